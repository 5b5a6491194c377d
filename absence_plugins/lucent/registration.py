"""The objectives in Lucent's own module, where its users look for them."""

from __future__ import annotations

from lucent.optvis import objectives as host

from absence_plugins.lucent.objectives import OBJECTIVES, absence_channel  # noqa: F401  (absence_channel: example)


def register() -> None:
    """Put the ``absence_*`` objectives into ``lucent.optvis.objectives``; again and again changes nothing.

    Raises:
        ValueError: a name there is already someone else's; nothing is registered then.

    >>> register()
    >>> host.absence_channel is absence_channel
    True
    >>> unregister()
    """
    taken = [name for name, made in OBJECTIVES.items() if getattr(host, name, made) is not made]
    if taken:
        raise ValueError(
            f"lucent.optvis.objectives already has {', '.join(taken)} from elsewhere; delete it there, or import ours "
            "from absence_plugins.lucent"
        )
    for name, made in OBJECTIVES.items():
        setattr(host, name, made)


def unregister() -> None:
    """Take them out again; what is not ours stays.

    >>> unregister()
    >>> hasattr(host, "absence_channel")
    False
    """
    for name, made in OBJECTIVES.items():
        if getattr(host, name, None) is made:
            delattr(host, name)

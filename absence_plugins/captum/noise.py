"""Noisy copies of a ``NoiseTunnel``, and the real input that they belong to.

Captum's tunnel hands its method nothing but the copies. So a tunnel around an adapter becomes an
:class:`AbsenceNoiseTunnel` when it is made, whose ``attribute`` keeps the real input in a contextvar while it runs. The
copies are recognized by their values, whatever a subclass does between the tunnel and the adapter.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import NoiseTunnel
from captum.log import log_usage
from torch import Tensor

from absence_plugins.core import AbsenceWarning

SQUARES = ("smoothgrad_sq", "vargrad")


@dataclass(eq=False)
class Noise:
    """One running call of a tunnel: the real inputs, the method that gets copies of them, and the last copies."""

    tunnel: NoiseTunnel
    kind: str
    originals: tuple[Tensor, ...]
    outer: Noise | None
    copies: tuple[Tensor, ...] = field(default=())
    said: set[str] = field(default_factory=set)  # what its method has warned of

    def holds(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether the inputs are the last copies."""
        return _are_equal(inputs, self.copies)

    def is_similar(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether the inputs could be copies: another number of samples of the same form."""
        return len(inputs) == len(self.originals) and all(
            one.shape[1:] == own.shape[1:] and len(one) % len(own) == 0
            for one, own in zip(inputs, self.originals, strict=True)
        )


_CURRENT: ContextVar[Noise | None] = ContextVar("noise", default=None)
_RUNNING: list[Noise] = []  # of all threads: a contextvar does not follow a method that runs in a thread of its own


class AbsenceNoiseTunnel(NoiseTunnel):
    """Captum's NoiseTunnel, for an adapter that chooses on the real input.

    R = mean over noisy copies of the method's map, for the non-target and against the references of the real input.

    Source: Smilkov et al., 2017, arXiv:1706.03825 (``nt_type="smoothgrad"``).

    ``NoiseTunnel(AbsenceSaliency(model))`` becomes one by itself.

    ``nt_type="smoothgrad_sq"`` and ``"vargrad"`` give Captum's unsigned map of the output that the method chose (mean
    of the squares, variance), with an AbsenceWarning that it has no sign.

    Raises:
        ValueError: a squared type around a method with ``evidence="absence"`` or ``"presence"``.

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> from absence_plugins.captum import AbsenceInputXGradient, AbsenceSaliency
    >>> tunnel = NoiseTunnel(AbsenceSaliency(net))
    >>> tunnel.attribute(torch.tensor([[1.0, 2.0]]), target=1, nt_samples=3), type(tunnel).__name__
    (tensor([[ 1., -1.]]), 'AbsenceNoiseTunnel')
    """

    @log_usage(part_of_slo=True)
    def attribute(self, inputs: Any, nt_type: str = "smoothgrad", *args: Any, **kwargs: Any) -> Any:
        """As ``captum.attr.NoiseTunnel.attribute``."""
        originals = tuple(part.detach() for part in (inputs if isinstance(inputs, tuple) else (inputs,)))
        if _CURRENT.get() is None:
            _check_squares(self, nt_type)
        noise = Noise(self, nt_type, originals, _CURRENT.get())
        token = _CURRENT.set(noise)
        _RUNNING.append(noise)
        try:
            return super().attribute(inputs, nt_type, *args, **kwargs)
        finally:
            _RUNNING.remove(noise)
            _CURRENT.reset(token)

    def has_convergence_delta(self) -> bool:
        """As Captum's; a tunnel around this one becomes an AbsenceNoiseTunnel."""
        adopt_tunnels(self)
        return bool(super().has_convergence_delta())

    def _add_noise_to_inputs(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        copies: tuple[Tensor, ...] = super()._add_noise_to_inputs(*args, **kwargs)
        noise = _CURRENT.get()
        if noise is not None:
            noise.copies = tuple(part.detach() for part in copies)
        return copies

    def __reduce_ex__(self, protocol: Any) -> Any:
        made = super().__reduce_ex__(protocol)
        own = type(self)
        return made if own is AbsenceNoiseTunnel else (_new_tunnel, (own.__bases__[1],), *made[2:])


_ADOPTED: dict[type[NoiseTunnel], type[AbsenceNoiseTunnel]] = {NoiseTunnel: AbsenceNoiseTunnel}


def _class_for(cls: type[NoiseTunnel]) -> type[AbsenceNoiseTunnel]:
    """The class that a tunnel of a class becomes: with a user's subclass of NoiseTunnel as its second base."""
    if cls not in _ADOPTED:
        _ADOPTED[cls] = type(cls.__name__, (AbsenceNoiseTunnel, cls), {"__module__": cls.__module__})
    return _ADOPTED[cls]


def _new_tunnel(cls: type[NoiseTunnel]) -> Any:
    """An empty tunnel, as pickle makes it."""
    made = _class_for(cls)
    return made.__new__(made)


def adopt_tunnels(method: Any) -> None:
    """Make Captum's tunnels around a method AbsenceNoiseTunnels.

    ``NoiseTunnel.__init__`` stores its method and then asks it ``has_convergence_delta()``, without saying who asks; so
    the tunnel is looked up among the youngest objects, or else among all that refer to the method.
    """
    found = [one for one in gc.get_objects(generation=0) if _is_around(one, method)]
    for tunnel in found or [one for one in _referrers(method) if _is_around(one, method)]:
        if not issubclass(type(tunnel), AbsenceNoiseTunnel):
            tunnel.__class__ = _class_for(type(tunnel))


def _check_squares(tunnel: NoiseTunnel, kind: str) -> None:
    """Warn of a map without a sign, in the words of the user's call; of tunnels in tunnels once.

    Raises:
        ValueError: evidence was asked for that a map without a sign does not have.
    """
    method = tunnel.attribution_method
    while isinstance(method, NoiseTunnel):
        method = method.attribution_method
    if kind not in SQUARES or getattr(method, "is_neutral", True):
        return
    if method.evidence != "signed":
        raise ValueError(
            f"nt_type={kind!r} has no sign, so it has no {method.evidence} part; use nt_type='smoothgrad' (with "
            f"evidence={method.evidence!r} for a map >= 0), or leave evidence out for Captum's unsigned map"
        )
    what = "the mean of the squared maps" if kind == "smoothgrad_sq" else "the variance of the maps"
    warnings.warn(
        f"nt_type={kind!r} has no sign: the result is {what} of the output that {type(method).__name__} chose, which "
        "tells how strongly a place matters and not whether it raises or suppresses the output; nt_type='smoothgrad' "
        "keeps the sign",
        AbsenceWarning,
        stacklevel=4,  # attribute, and Captum's wrapper around it
    )


def _is_around(one: Any, method: Any) -> bool:
    # of the type: `isinstance` runs the code of proxies
    return issubclass(type(one), NoiseTunnel) and vars(one).get("attribution_method") is method


def _referrers(method: Any) -> Iterator[Any]:
    for one in gc.get_referrers(method):
        yield one
        if type(one) is dict:  # the attributes of an object
            yield from gc.get_referrers(one)


def is_tunnel_running() -> bool:
    """Whether a call of an AbsenceNoiseTunnel runs, in any thread."""
    return bool(_RUNNING)


def check_known_tunnel(method: Any) -> None:
    """Reject a call by a tunnel that is not an AbsenceNoiseTunnel: of what it hands over the real input is not known.

    Raises:
        ValueError: with the remedy.
    """
    if not _RUNNING:
        name = type(method).__name__
        raise ValueError(
            f"{name} was called as NoiseTunnel calls its method, with noisy copies of an unknown input: make the "
            f"tunnel anew for this object, NoiseTunnel({name}(...)), or use absence_plugins.captum.AbsenceNoiseTunnel; "
            f"without a tunnel call {name}(...).attribute(...)"
        )


def real_inputs(method: Any, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], int]:
    """The inputs whose noisy copies a NoiseTunnel hands to ``method``, and how many copies; else the inputs, 1.

    The choices belong to the real input.

    Raises:
        ValueError: inputs that seem to be noisy copies of an unknown input.
    """
    real, asking, noise = inputs, method, _noise_of(method, inputs, _chain(_CURRENT.get()))
    while noise is not None:
        real, asking = noise.originals, noise.tunnel
        # a tunnel may itself be in a tunnel; without noise the copies are the originals, so only those outside are
        # asked
        noise = _noise_of(asking, real, _chain(noise.outer)) if noise.outer is not None else None
    return real, inputs[0].shape[0] // real[0].shape[0]


def is_news(text: str) -> bool:
    """Whether a method has not yet said this in the running call of a tunnel; it is not said again.

    >>> is_news("outside of tunnels"), is_news("outside of tunnels")
    (True, True)
    """
    chain = _chain(_CURRENT.get())
    if not chain:
        return True
    said = chain[-1].said
    is_new = text not in said
    said.add(text)
    return is_new


def _chain(noise: Noise | None) -> list[Noise]:
    found = []
    while noise is not None:
        found.append(noise)
        noise = noise.outer
    return found


def _noise_of(method: Any, inputs: tuple[Tensor, ...], chain: list[Noise]) -> Noise | None:
    """The call of a tunnel whose copies the inputs are; None if they are real."""
    for noise in (*chain, *(() if chain else _RUNNING)):
        if noise.holds(inputs):
            return noise
    for noise in chain:
        is_whole = not noise.copies or all(len(one) == len(own) for one, own in zip(inputs, noise.copies, strict=False))
        if noise.tunnel.attribution_method is method and noise.is_similar(inputs) and is_whole:
            return noise  # copies that were changed on the way: clamped, or of another type
        if not _are_equal(inputs, noise.originals) and (
            noise.tunnel.attribution_method is method or noise.is_similar(inputs)
        ):
            raise ValueError(
                f"a NoiseTunnel runs, and {type(method).__name__} gets inputs of shape {tuple(inputs[0].shape)} that "
                f"may be noisy copies of the tunnel's input {tuple(noise.originals[0].shape)}, but are not the ones "
                "that it made: the non-target would be chosen on noise. Hand over the tunnel's copies as they are, "
                "all in one call"
            )
    return None


def _are_equal(inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return len(inputs) == len(others) and all(
        one.shape == own.shape and one.dtype == own.dtype and one.device == own.device and
        (one.data_ptr() == own.data_ptr() or torch.equal(one, own))
        for one, own in zip(inputs, others, strict=True)
    )  # fmt: skip

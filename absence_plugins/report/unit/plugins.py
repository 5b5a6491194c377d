"""Where the maps and pictures of a report come from by default.

``absence_plugins.report`` imports no host. The packages that can draw maps or pictures of a unit register a function
under the entry point group ``absence_plugins.unit_report``, and are found there: this package registers its own
(Captum's maps, Lucent's pictures), another package may register others under another name.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

GROUP = "absence_plugins.unit_report"
NEEDED = {"maps": "captum", "pictures": "lucent", "changes": "lucent"}
NAMES = {"maps": "default_maps", "pictures": "default_pictures", "changes": "default_change"}
OWN = {kind: f"absence_plugins.commands.maps.unit.{name}" for kind, name in NAMES.items()}


class NotAvailable(Exception):
    """Nothing can draw it; the text says what to do, and stands on the page."""


def provider(kind: str, given: Any) -> Callable[..., Any]:
    """The callable behind ``maps=`` or ``pictures=``: given, or found among the entry points.

    Raises:
        NotAvailable: None was given, nothing is registered, or its host is missing.
        TypeError: given is something else than "auto", None or a callable.

    >>> provider("maps", None)
    Traceback (most recent call last):
    absence_plugins.report.unit.plugins.NotAvailable: switched off; in Python leave maps=None out, on the command line leave out --skip maps
    """
    if given is None:
        raise NotAvailable(
            f"switched off; in Python leave {kind}=None out, on the command line leave out --skip {kind}"
        )
    if callable(given):
        return given  # type: ignore[no-any-return]
    if given != "auto":
        raise TypeError(f"{kind}={given!r} must be 'auto', None or a callable")
    found = list(entry_points(group=GROUP, name=kind))
    remedy = f'pip install "absence-plugins[{NEEDED[kind]}]"'
    if not found and find_spec(NEEDED[kind]) is not None:
        raise NotAvailable(
            f"absence_plugins is not installed as a package, so its {kind} are not registered (entry point group "
            f"{GROUP}), although "
            f"{NEEDED[kind]} is there; install it (pip install -e . in its folder), or pass {kind}={OWN[kind]}"
        )
    if not found:
        raise NotAvailable(
            f"no installed package registers {kind} (entry point group {GROUP}); {remedy}, or pass {kind}=..."
        )
    try:
        return found[0].load()  # type: ignore[no-any-return]
    except ImportError as error:
        raise NotAvailable(f"{remedy} ({error})") from None

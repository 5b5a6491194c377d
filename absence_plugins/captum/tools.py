"""Captum's tools that hand a class on to an attribution method, and count on a map of that class: TCAV."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from absence_plugins.captum.noise import is_tunnel_running
from absence_plugins.core import AbsenceWarning

TCAV_PASSES = {"target", "additional_forward_args", "attribute_to_layer_input"}  # always, and by keyword


def calls_like_tcav(keywords: Mapping[str, Any]) -> bool:
    """Whether a call of the unlogged ``attribute`` is TCAV's: of a layer, with a class, outside a NoiseTunnel."""
    return set(keywords) >= TCAV_PASSES and not is_tunnel_running()


def for_class_asked(method: Any) -> Any:
    """The method as TCAV needs it: in the default setting, a copy that explains the class that is handed on.

    Raises:
        ValueError: the method gives magnitudes, whose signs cannot be counted.
    """
    name = type(method).__name__
    if method.evidence != "signed":
        raise ValueError(
            f"TCAV counts the signs of the map, and {name} has evidence={method.evidence!r}, which has none; leave "
            "evidence='signed'"
        )
    if not method._is_auto:
        return method
    warnings.warn(
        f"TCAV asks {name} for a class, so the logit of that class is explained and not its runner-up; say which you "
        f"mean: {name}(..., nontarget='target') for this, nontarget='runner_up' for what holds the other class down",
        AbsenceWarning,
        stacklevel=5,
    )
    asked = copy.copy(method)
    asked.nontarget = "target"
    return asked

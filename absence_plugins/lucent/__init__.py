"""Lucent's feature visualization, turned around: what drives a unit *down*.

Change the import, keep the call::

    from absence_plugins.lucent import render_vis

    render_vis(model, "-layer3_0:7")  # lower channel 7, before its nonlinearity

``absence_*`` objectives drive a pre-activation down, ``absence_contrast`` shows a unit's two sides from the same start,
and ``register()`` puts them into ``lucent.optvis.objectives``.
"""

from typing import TYPE_CHECKING, Any

try:
    import lucent.optvis.objectives as _host  # noqa: F401
except ImportError as error:
    raise ImportError('absence_plugins.lucent needs Lucent: pip install "absence-plugins[lucent]"') from error

from absence_plugins.lucent.accentuate import accentuate
from absence_plugins.lucent.accentuation import Accentuation
from absence_plugins.lucent.objectives import (
    AbsenceObjective,
    absence_channel,
    absence_channel_weight,
    absence_class,
    absence_contrast,
    absence_direction,
    absence_direction_neuron,
    absence_neuron,
    as_objective,
    contrast,
)
from absence_plugins.lucent.registration import register, unregister
from absence_plugins.lucent.rendering import Reached, Rendering
from absence_plugins.lucent.values import unit_values

if TYPE_CHECKING:
    from absence_plugins.lucent.render import render_vis

__all__ = [
    "AbsenceObjective",
    "Accentuation",
    "Reached",
    "Rendering",
    "absence_channel",
    "absence_channel_weight",
    "absence_class",
    "absence_contrast",
    "absence_direction",
    "absence_direction_neuron",
    "absence_neuron",
    "accentuate",
    "as_objective",
    "contrast",
    "register",
    "render_vis",
    "unit_values",
    "unregister",
]


def __getattr__(name: str) -> Any:  # a rendering needs Lucent's transforms, thus kornia and torchvision; the rest not
    if name != "render_vis":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from absence_plugins.lucent.render import render_vis

    return render_vis

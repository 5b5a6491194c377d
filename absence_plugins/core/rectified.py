"""Values that a rectifier has cut off at 0: noticed, and said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import capture, overwritten
from absence_plugins.core.reading import is_rectifier


def looks_rectified(values: Tensor) -> bool:
    """Whether no value is below 0 and some are exactly 0, as behind a ReLU."""
    return bool((values >= 0).all()) and bool((values == 0).any())


def rectified_note(layer: str) -> str:
    """What to say of a layer (the name of its class) whose values look rectified, and what to do."""
    return (
        f"every value of the neuron's layer ({layer}) is 0 or more, and some are exactly 0, as behind a ReLU; a neuron that is 0 "
        "there shows no absence. Explain a layer in front of the rectifier, such as a block's last convolution or batch norm"
    )


def check_preactivation(layer: nn.Module, forward: Callable[[], Any], *, side: str = "output") -> None:
    """Refuse a layer whose value is rectified, by itself or by an in-place rectifier behind it.

    A post-ReLU neuron has value 0 and gradient 0 exactly where the concept whose absence it encodes is
    present, so every map of it is empty there. ``forward`` runs the model once; ``side="input"`` if the
    layer's input is explained.

    Raises:
        ValueError: with the remedy.
    """
    name = type(layer).__name__
    if side == "output" and is_rectifier(layer):
        raise ValueError(
            f"the neuron's layer ({name}) puts out rectified values: 0, with zero gradient, where the concept is present; "
            "explain the value before it: pass the layer in front of it, or attribute_to_neuron_input=True"
        )
    with capture(layer, side=side) as seen:
        changed = overwritten(layer, forward, side=side)
    if seen and not changed and bool((seen[-1] >= 0).all()) and bool((seen[-1] == 0).any()):
        warnings.warn(rectified_note(name), AbsenceWarning, stacklevel=6)
    if changed:
        raise ValueError(
            f"the {side} of the neuron's layer ({name}) is overwritten in place during the forward (ReLU(inplace=True)?), "
            "so rectified values would be explained; set inplace=False on that module"
        )

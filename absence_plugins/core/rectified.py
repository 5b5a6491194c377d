"""Values that a rectifier has cut off at 0: noticed, and said."""

from __future__ import annotations

from torch import Tensor


def looks_rectified(values: Tensor) -> bool:
    """Whether no value is below 0 and some are exactly 0, as behind a ReLU."""
    return bool((values >= 0).all()) and bool((values == 0).any())


def rectified_note(layer: str) -> str:
    """What to say of a layer (the name of its class) whose values look rectified, and what to do."""
    return (
        f"every value of the neuron's layer ({layer}) is 0 or more, and some are exactly 0, as behind a ReLU; a neuron "
        "that is 0 there shows no absence. Explain a layer in front of the rectifier, such as a block's last "
        "convolution or batch norm"
    )

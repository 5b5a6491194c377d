"""What an adapter must know of its host class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LAYER_INPUTS = ("attribute_to_layer_input", "attribute_to_neuron_input")
ANNOUNCEMENTS = (  # what Captum says about its bookkeeping on every call
    "Setting forward, backward hooks",
    "Setting backward hooks on ReLU",
    r"Input Tensor \d+ did not already require gradients",
    r"Input Tensor \d+ has a dtype",
)


@dataclass(frozen=True)
class Traits:
    """What an adapter must know of its host class.

    refuses: why the method cannot show absences, and what can; "" if it can.
    no_reference: why it takes no reference; "" if it does.
    baselines: the name of the argument that takes them.
    complete: the map sums to u(x) - u(baseline).
    local: the map sees only the gradient at x, so a unit that is dead there gives zeros.
    exact: the sum is checked where the map is made, and rejected where it is off.
    sampled: complete in expectation only.
    distribution: the host takes all rows of ``baselines`` for every sample, not row i for sample i.
    arranged: the layer's channels must be on axis 1.
    automatic: the name of the argument that says how many perturbations share a forward; chosen where it is not given.
    unsigned: the name of the argument that deletes the sign; "" if there is none.
    passing: how the host's own first forward on x can tell the output to explain: "inputs" or "layer", it runs the
        model once, for gradients there; "pairs", the first pass of a comparison; "", it cannot.
    """

    refuses: str = ""
    no_reference: str = ""
    baselines: str = "baselines"
    complete: bool = False
    local: bool = False
    exact: bool = False
    sampled: bool = False
    distribution: bool = False
    arranged: bool = False
    automatic: str = ""
    unsigned: str = ""
    passing: Literal["", "inputs", "layer", "pairs"] = ""

"""Two-sided guided backpropagation in Zennit: what raises an output and what holds it down, in one pass.

Guided backpropagation keeps only what raises the output. Applied to the negated output as well, and subtracted,
it keeps both. The three passes that this takes run as one batch [x, x, x].
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from zennit.rules import ReLUGuidedBackprop

from absence_plugins.core import AbsenceWarning
from absence_plugins.zennit.pairing import RootHook, Trace, hooks_on


class Triple(RootHook):
    """The batch [x, x, x], seeded with w, -w and w; the ReLUs of the last third let nothing through."""

    def register(self, module: nn.Module) -> Any:
        """On the root; tells the ReLU hooks of the batch."""
        for hook in hooks_on(module):
            if isinstance(hook, AbsenceReLUGuidedBackprop):
                hook.triple = self
        return super().register(module)

    def copies(self, x: Tensor) -> Tensor:
        """[x, x, x]."""
        warnings.warn(
            "AbsenceGuidedBackprop is local (it sees only units that are active at x) and its map does not sum to a "
            "difference of outputs; AbsenceEpsilonGamma's does",
            AbsenceWarning,
            stacklevel=2,
        )
        return torch.cat([x, x, x])

    def seeds(self, trace: Trace, weights: Tensor, output: Tensor) -> Tensor:
        """[w, -w, w]: +u, -u, and u without a ReLU."""
        trace.restart(None)
        return torch.cat([weights, -weights, weights])

    def collect(self, trace: Trace, root: nn.Module | None, x: Tensor, gradient: Tensor) -> Tensor:
        """(x - r) * (guided(u) - guided(-u) - what passes no ReLU, which both contain)."""
        raising, lowering, unrectified = gradient.chunk(3)
        difference = x if self.reference is None else x - self.reference_for(x)
        return difference * (raising - lowering - unrectified)


class AbsenceReLUGuidedBackprop(ReLUGuidedBackprop):
    """Zennit's guided ReLU on the first two thirds of the batch [x, x, x]; the last third stops here.

    Where no composite has made such a batch, it is Zennit's.
    """

    triple: Triple | None = None

    def backward(self, module: Any, grad_input: Any, grad_output: Any) -> Any:
        """Only positive gradients of active units, and nothing in the last third."""
        (guided,) = super().backward(module, grad_input, grad_output)
        if self.triple is None:
            return (guided,)
        kept = guided.shape[0] - guided.shape[0] // 3
        return (torch.cat([guided[:kept], torch.zeros_like(guided[kept:])]),)

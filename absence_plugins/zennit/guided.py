"""Two-sided guided backpropagation in Zennit: what raises an output and what holds it down, in one pass.

Guided backpropagation keeps only what raises the output. Applied to the negated output as well, and subtracted,
it keeps both. The three passes that this takes run as one batch [x, x, x].
"""

from __future__ import annotations

import sys
import warnings
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from zennit.rules import ReLUGuidedBackprop

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.endings import LastOperation
from absence_plugins.core.interrupts import undivided
from absence_plugins.zennit.checks import check_input, check_mode
from absence_plugins.zennit.pairing import output_weights
from absence_plugins.zennit.root_hook import Question, RootHook, hooks_on


class Triple(RootHook):
    """The batch [x, x, x], seeded with w, -w and w; the ReLUs of the last third let nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[int, tuple[Question, Any]] = {}  # by thread

    def register(self, module: nn.Module) -> Any:
        """On the root; tells the ReLU hooks of the batch."""
        for hook in hooks_on(module):
            if isinstance(hook, AbsenceReLUGuidedBackprop):
                hook.triple = self
        return super().register(module)

    def remove(self) -> None:
        """A forward that was interrupted is left."""
        super().remove()
        self._leave_mode()

    @undivided
    def _enter_mode(self) -> None:
        last = LastOperation()
        last.__enter__()
        self._running[get_ident()] = self.question, last

    @undivided
    def _leave_mode(self) -> tuple[Question, Any] | None:
        running = self._running.pop(get_ident(), None)
        if running is not None:
            running[1].__exit__(*sys.exc_info())
        return running

    def pre_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """[x, x, x], if a gradient is asked for."""
        if not self.answers(module, args):
            return None
        if sum(isinstance(value, Tensor) for value in args) != 1 or not isinstance(args[0], Tensor):
            raise ValueError("guided backpropagation takes one input; wrap the model so that it takes only that one")
        check_input(args[0])
        check_mode(module)
        warnings.warn(
            "AbsenceGuidedBackprop is local (it sees only units that are active at x) and its map does not sum to a "
            "difference of outputs; AbsenceEpsilonGamma's does",
            AbsenceWarning,
            stacklevel=2,
        )
        self._enter_mode()
        return (_Join.apply(self, self.question, args[0]), *args[1:]), kwargs

    def post_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """The outputs of x alone."""
        running = self._leave_mode()
        if running is None:
            return None
        question, last = running
        if output is None:
            return None
        samples = len(args[0]) // 3
        output = self.read(last, output, 3 * samples)
        third = (
            output[:samples] if isinstance(output, Tensor) and output.dim() and len(output) == 3 * samples else output
        )
        self.check_output(module, (args[0][:samples], *args[1:]), kwargs, third, samples)
        return _Split.apply(self, question, output)


class _Join(torch.autograd.Function):
    """Forward [x, x, x]; backward (x - r) * (guided(u) - guided(-u) - what passes no ReLU, which both contain)."""

    @staticmethod
    def forward(ctx: Any, hook: Triple, question: Question, x: Tensor) -> Tensor:
        ctx.hook, ctx.question = hook, question
        ctx.save_for_backward(x)
        return torch.cat([x, x, x])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        raising, lowering, unrectified = gradient.chunk(3)
        if not ctx.hook.active:
            return None, None, raising
        difference = x if ctx.question.reference is None else x - ctx.hook.reference_for(ctx.question, x)
        return None, None, difference * (raising - lowering - unrectified)


class _Split(torch.autograd.Function):
    """Forward the outputs of x; backward the seeds [w, -w, w]: +u, -u, and u without a ReLU."""

    @staticmethod
    def forward(ctx: Any, hook: Triple, question: Question, output: Tensor) -> Tensor:
        ctx.hook, ctx.question = hook, question
        ctx.takes_weights = True  # read by nontarget(...) from output.grad_fn
        ctx.save_for_backward(output)
        return output[: len(output) // 3].clone()

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> Any:
        (output,) = ctx.saved_tensors
        if not ctx.hook.active:
            return None, None, torch.cat([seed, torch.zeros_like(seed), torch.zeros_like(seed)])
        weights = seed if ctx.question.takes_weights else output_weights(seed, output[: len(seed)])
        return None, None, torch.cat([weights, -weights, weights])


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

"""Hooks on the root of a model: its input compared with a reference, by the relevance engine.

Before the forward the input x enters the engine's graph; behind it the reference runs over the same graph, and the
caller gets the outputs of x, whose gradient is the relevance of the difference: m (x - r), which sums to u(x) - u(r)
(docs/relevance-mathematics.md). The rules on modules (:mod:`absence_plugins.zennit.rules`) only name the
redistribution in force inside of them.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import BasicHook

from absence_plugins.core.endings import LastOperation
from absence_plugins.core.interrupts import undivided
from absence_plugins.core.precision import is_coarse, warn_unresolved
from absence_plugins.core.scores import logits_of, read_scores
from absence_plugins.relevance.comparison import Comparison
from absence_plugins.relevance.operation import RelevanceError
from absence_plugins.relevance.result import conservation
from absence_plugins.zennit import rules
from absence_plugins.zennit.checks import check_input, check_mode
from absence_plugins.zennit.root_hook import Question, RootHook, hook_owners, hooks_on
from absence_plugins.zennit.scores import check_values, weighted

# What the engine rejects, and a sum that is not u(x) - u(r): one class, by the name that it has here.
ConservationError = RelevanceError


@dataclass
class _Call:
    """One call of the model: the pass of x, and then that of its reference."""

    comparison: Comparison
    question: Question
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[int]  # positions among args of what gets relevance
    handled: Any  # the exception that the caller handled when the call began
    passes: ExitStack = field(default_factory=ExitStack)
    last: Any = None  # what the running pass ends in
    reference: list[Any] | None = None  # while it runs
    outputs: tuple[Tensor, Tensor] | None = None  # of x and of r

    @undivided
    def begin(self, mode: Any) -> tuple[Any, ...]:
        """A pass begins: the values that it runs on."""
        values = tuple(self.passes.enter_context(mode))
        self.last = self.passes.enter_context(LastOperation())
        return values

    def ends_early(self, output: Any) -> bool:
        """Whether the forward that ends has raised."""
        return output is None or sys.exc_info()[1] is not self.handled


class Pair(RootHook):
    """x against a reference: relevance of the difference, conserved."""

    def __init__(self) -> None:
        super().__init__()
        self.checked = True
        self._calls: dict[int, _Call] = {}  # by thread
        self._bound: list[Any] = []

    def register(self, module: nn.Module) -> Any:
        """On the root; tells every rule on the model's modules that there is something to compare with."""
        for hook in hooks_on(module):
            if isinstance(hook, BasicHook) or type(hook).__module__.startswith("zennit."):
                name = type(hook).__name__
                remedy = f"use Absence{name} beside" if hasattr(rules, f"Absence{name}") else "leave it out beside"
                raise ValueError(
                    f"{name} is a rule of Zennit's, which shares relevance out by values and not by differences; "
                    f"{remedy} the other Absence rules"
                )
            if isinstance(hook, rules.AbsenceRule):
                hook.pairs.add(self)
                self._bound.append(weakref.ref(hook))
        return super().register(module)

    def remove(self) -> None:
        """The rules are on their own again; a forward that was interrupted is left."""
        super().remove()
        for reference in self._bound:
            hook = reference()
            if hook is not None:
                hook.pairs.discard(self)
        self._bound.clear()
        call = self._calls.pop(get_ident(), None)
        if call is not None:
            call.passes.__exit__(*sys.exc_info())

    def pre_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """x's pass begins, if a gradient is asked for; or that of its reference."""
        call = self._calls.get(get_ident())
        if call is not None and call.reference is not None:
            return call.begin(call.comparison.replaying(call.reference)), kwargs
        if call is not None or not self.answers(module, args):
            return None
        inputs = [place for place, value in enumerate(args) if isinstance(value, Tensor) and value.requires_grad]
        for place in inputs:
            check_input(args[place])
        check_mode(module)
        named = {name: hook for name, hook in rules_on(module, self.owner).items() if hook.active}
        own = {id(hook.redistribution) for hook in named.values() if hook.own_layer_epsilon}
        comparison = Comparison(
            None,
            [value.detach() if isinstance(value, Tensor) else value for value in args],
            fixed=[place for place in range(len(args)) if place not in inputs],
            model=module,
            rule=lambda name: named[name].redistribution if name in named else None,
            last_rule=lambda rule: None if id(rule) in own else rule,
        )
        call = _Call(comparison, self.question, args, kwargs, inputs, sys.exc_info()[1])
        self._calls[get_ident()] = call
        return call.begin(comparison.recording(is_running=True)), kwargs

    def post_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """A pass ends. Behind that of x the reference runs, and the caller gets x's outputs."""
        call = self._calls.get(get_ident())
        if call is None:
            return None
        is_first = call.reference is None
        try:
            if call.ends_early(output):
                call.passes.__exit__(*sys.exc_info())
                return None
            with call.passes:  # what is moved behind a softmax is moved in the same pass
                samples = len(call.args[call.inputs[0]])
                read = (
                    self.read(call.last, output, samples) if is_first else call.last.in_front_of(logits_of(output))[0]
                )
        finally:
            if is_first:
                del self._calls[get_ident()]
        return self._compare(module, call, read) if is_first else read

    def _compare(self, module: nn.Module, call: _Call, output: Any) -> Tensor:
        self.check_output(module, call.args, call.kwargs, output, len(call.args[call.inputs[0]]))
        call.comparison.explain(output)
        call.reference = self._references(call)
        self._calls[get_ident()] = call
        try:
            other = module(*call.args, **call.kwargs)
        finally:
            try:
                call.passes.__exit__(*sys.exc_info())  # a pass that was interrupted
            finally:
                del self._calls[get_ident()]
        call.outputs = self.outputs[get_ident()] = (output.detach(), other.detach())
        compared: Tensor = _Compared.apply(
            self, weakref.ref(module), call, *(call.args[place] for place in call.inputs)
        )
        return compared

    def _references(self, call: _Call) -> list[Any]:
        """r in the place of every input; what gets no relevance is the same as for x."""
        if len(call.inputs) > 1 and call.question.reference is not None:
            raise ValueError(
                f"{len(call.inputs)} inputs require gradients, and there is one reference; let the others require none"
            )
        values = list(call.args)
        for place in call.inputs:
            values[place] = self.reference_for(call.question, values[place].detach()).to(values[place])
        return values

    def relevance(self, call: _Call, weights: Tensor) -> list[Tensor]:
        """R of every input for these weights on the outputs, after the check of the sum."""
        assert call.outputs is not None
        check_values(weights, call.outputs[0])
        pulled = call.comparison.pull(call.comparison.output, weights)
        found = [entry.relevance for entry in pulled.inputs if entry is not None]
        if self.checked:
            parts = [*found, *pulled.absorbed]
            u, other = (values.where(weights != 0, 0.0) for values in call.outputs)
            error, is_conserved = conservation(parts, u, other, weights, call.comparison.coarsest)
            if not is_conserved:
                row = int(error.nan_to_num(torch.inf).argmax())
                raise ConservationError(
                    f"the relevance of sample {row} does not sum to u(x) - u(r): it is off by {float(error[row]):.1e} "
                    "of it. Part of the model is not seen as torch operations, or its numbers overflow; try float64"
                )
        if not call.question.takes_weights and is_coarse(call.comparison.coarsest):  # our attributors say it themselves
            _warn_rounding(call, weights)
        return found


def _warn_rounding(call: _Call, weights: Tensor) -> None:
    """Say so where the difference of the explained outputs is below the resolution of half precision."""
    assert call.outputs is not None
    u, other = (weighted(weights, values).reshape(len(values), -1) for values in call.outputs)
    warn_unresolved(u.sum(1), other.sum(1, keepdim=True), u.abs().sum(1), call.comparison.coarsest, level=3)


class _Compared(torch.autograd.Function):
    """The outputs of x, whose gradient is relevance; the plain gradient while the composite is inactive or gone."""

    @staticmethod
    def forward(ctx: Any, hook: Pair, module: Any, call: _Call, *inputs: Tensor) -> Tensor:
        ctx.hook, ctx.module, ctx.call = hook, module, call
        ctx.takes_weights = True  # read by nontarget(...) from output.grad_fn
        ctx.save_for_backward(*inputs)
        output: Tensor = call.comparison.output.detach().clone()
        return output

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> Any:
        inputs, call = ctx.saved_tensors, ctx.call
        if not ctx.hook.active:
            return None, None, None, *_plain_gradient(ctx.module(), call, inputs, seed)
        weights = seed.detach()
        if not call.question.takes_weights:
            weights = output_weights(weights, call.outputs[0])
        found = ctx.hook.relevance(call, weights)
        if not _keeps_graph():
            ctx.call = None  # and with it the graph
        if torch.is_grad_enabled():
            found = [_Underived.apply(value, *inputs) for value in found]
        return None, None, None, *found


def _keeps_graph() -> bool:
    """Whether the backward that runs keeps its graph. Older torch does not say: then it is freed with its output."""
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or bool(asked())


class _Underived(torch.autograd.Function):
    """A map with ``create_graph=True``: it knows what it depends on, and rejects to be derived."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise ConservationError(
            "the derivative of a map of relevance is not available; train with the map of AbsenceIntegratedGradients, "
            "or with absence_plugins.methods.debias.AttributionPrior"
        )


def _plain_gradient(module: nn.Module | None, call: _Call, inputs: tuple[Tensor, ...], seed: Tensor) -> Any:
    if module is None:
        raise RuntimeError("the model is gone, so it cannot be derived")
    args, create = list(call.args), torch.is_grad_enabled()
    with torch.enable_grad():
        for place, value in zip(call.inputs, inputs, strict=True):
            args[place] = value if create else value.detach().requires_grad_()
        output, _ = read_scores(lambda: module(*args, **call.kwargs))
        return torch.autograd.grad(
            output, [args[place] for place in call.inputs], seed, create_graph=create, allow_unused=True
        )


def output_weights(seed: Tensor, output: Tensor) -> Tensor:
    """How much of which output a seed in Zennit's manner asks for.

    Zennit seeds LRP with the output itself (its default, or ``output * eye``) and gradients with ones: entries
    that hand an output through and entries of 1 alike mean "this output"; any other number is its weight.

    >>> output_weights(torch.tensor([[0.0, -3.0, 2.0]]), torch.tensor([[5.0, -3.0, 7.0]]))
    tensor([[0., 1., 2.]])
    """
    rows = (-1, *[1] * (seed.dim() - 1))
    handed = (seed == output).reshape(len(seed), -1).all(1)  # the outputs themselves, also where one of them is 0
    mask = ((seed == 0) | (seed == 1)).reshape(len(seed), -1).all(1) & (seed != 0).reshape(len(seed), -1).any(1)
    means_output = ((seed == output) & (seed != 0)) | (handed & ~mask).reshape(rows)
    return torch.where(means_output, torch.ones_like(seed), seed)


def rules_on(root: nn.Module, thread: int) -> dict[str, rules.AbsenceRule]:
    """The rule of every module that has one, by the module's name; of several, the last; those of the thread, if it has
    some.
    """
    hooks = of_thread([hook for hook in hooks_on(root) if isinstance(hook, rules.AbsenceRule)], thread)
    kept = {id(hook): hook for hook in hooks}
    return {name: hook for name, module in root.named_modules() for hook in hook_owners(module) if id(hook) in kept}


def of_thread(hooks: list[Any], thread: int) -> list[Any]:
    """The hooks that the thread has registered; all, where it has registered none."""
    return [hook for hook in hooks if hook.owner == thread] or hooks

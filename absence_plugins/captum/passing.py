"""The explained output, chosen in the host's own forward: no forward is added where the host runs the model on x
anyway.

The host is handed a :class:`Deciding` in place of the model. On its first call it runs the model, chooses from what
that returns, and gives the host the chosen output alone. Where anything is not as plain as this needs - a softmax at
the end, a random draw, an input that is overwritten, an output or a layer of another form, no such target - the attempt
is given up before the host has gone on, the random state is put back, and one more forward decides as it always can
(:func:`absence_plugins.captum.decisions.decide_ahead`), with the same errors and warnings.
"""

from __future__ import annotations

import inspect
from operator import is_
from typing import Any
from weakref import WeakSet

import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

from absence_plugins.captum.decisions import decide, settle
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.points import OneLayer
from absence_plugins.captum.traits import LAYER_INPUTS
from absence_plugins.core.endings import ends_in_arithmetic
from absence_plugins.core.layouts import FIRST
from absence_plugins.core.outputs import select
from absence_plugins.core.training import Draws

IN_PLACE = ("in-place operation", "modified by an inplace operation")
_AHEAD: WeakSet[Any] = WeakSet()  # methods whose host's forward could not tell: they do not try again


class Unsettled(Exception):
    """The output has to be chosen by a forward of its own."""


def decide_in_passing(method: Any, plan: Plan) -> tuple[Plan, Any]:
    """The decided plan, and the host's map and delta; where that is not possible the plan as it was, and None."""
    if not _is_possible(method, plan):
        return plan, None
    attempt = object.__new__(Plan)  # copy.copy takes long
    attempt.__dict__.update(plan.__dict__)
    deciding = attempt.passing = Deciding(method, attempt)
    try:
        return attempt, method._signed(attempt, None)
    except Exception as error:
        failure = deciding.failure
        if failure is not None and failure is not error:  # said in other words by the host's surroundings
            raise failure from None
        if failure is not None or attempt.choice is not None:
            raise
    finally:
        attempt.passing = None  # a cycle would keep all tensors until Python looks for cycles
    _AHEAD.add(method)
    return plan, None


def _is_possible(method: Any, plan: Plan) -> bool:
    """Whether the host's first forward is on the real inputs, and nothing is needed in front of it."""
    if method._traits.passing == "" or method in _AHEAD or method.nontarget is None:
        return False
    if method.reference is not None or plan.real is not plan.inputs or hasattr(method._model, "device_ids"):
        return False
    if not all(part.is_floating_point() for part in plan.real):
        return False
    if method._traits.passing != "layer":
        return True
    is_wanted = not any(plan.arguments.get(name) for name in LAYER_INPUTS) and not method._layers
    is_known = isinstance(method.layer, FIRST) or not method._traits.arranged
    return is_wanted and isinstance(method.layer, nn.Module) and is_known


class Deciding:
    """The model, and on its first call the choice of the output: inputs -> the chosen output [B] (of a comparison all
    outputs, among which :attr:`Plan.choice` selects).
    """

    __signature__ = inspect.signature(lambda *inputs: None)  # Captum asks each function for it, which takes long

    def __init__(self, method: Any, plan: Plan) -> None:
        self.method, self.plan, self.model = method, plan, plan.model
        self.kind, self.arranged = method._traits.passing, method._traits.arranged
        self.given: tuple[Tensor, ...] = ()
        self.failure: Exception | None = None  # of the user's model itself: it is not run again

    def prepare(self, call: dict[str, Any]) -> Deciding:
        """Enter what the host is handed: copies of the inputs, and no target."""
        if self.kind != "pairs":
            self.given = tuple(part.clone() for part in self.plan.real)
            call["inputs"] = self.given if self.plan.is_tuple else self.given[0]
            call["target"] = None
        if self.kind == "inputs" or isinstance(self.method, LayerGradientXActivation):
            for part in self.given:
                part.requires_grad_()  # Captum would, with a warning on every call
        return self

    def __call__(self, *inputs: Any) -> Tensor:
        """The chosen output; of a comparison all outputs."""
        plan = self.plan
        is_first = plan.choice is None
        outputs = self._decide(inputs) if is_first else self.model(*inputs)
        choice = plan.choice
        assert choice is not None
        columns = choice.columns(outputs)
        if self.kind == "pairs":
            return columns
        explained = select(columns, choice.index)
        if is_first:
            plan.output = explained.detach()
        return explained

    def _decide(self, inputs: tuple[Any, ...]) -> Tensor:
        plan = self.plan
        own = inputs[: len(plan.real)]
        if self.kind != "pairs" and not (len(own) == len(self.given) and all(map(is_, own, self.given))):
            raise Unsettled
        watch = OneLayer(self.method.layer) if self.kind == "layer" else None
        with torch._C.DisableTorchFunction():  # a comparison records what the model does, and nothing else
            versions = [part._version for part in own]
            draws = Draws(own)
            draws.__enter__()
        try:
            outputs = self._run(inputs, watch)
            with torch._C.DisableTorchFunction():
                draws.__exit__()
                if draws.happened or versions != [part._version for part in own]:
                    raise Unsettled
                if not isinstance(outputs, Tensor) or not ends_in_arithmetic(outputs):
                    raise Unsettled
                if watch is not None and not self._is_plain(watch, own):
                    raise Unsettled
                with torch.no_grad():
                    scores = self.method._checked(outputs.detach(), own[0].shape[0])
                    decide(self.method, plan, scores)
                    settle(self.method, plan, scores)
                    if self.kind == "pairs":
                        assert plan.choice is not None
                        plan.output = plan.choice.values(scores)
        except BaseException:
            plan.choice = None
            draws.restore()
            raise
        return outputs

    def _run(self, inputs: tuple[Any, ...], watch: OneLayer | None) -> Any:
        try:
            if watch is None:
                return self.model(*inputs)
            with watch:
                return self.model(*inputs)
        except Exception as error:
            is_odd = watch is not None and watch.returned is not None and not self._is_plain(watch, inputs)
            if is_odd or any(words in str(error) for words in IN_PLACE):
                raise Unsettled from error  # Captum's hook could not take it; without gradients it may work
            self.failure = error
            raise

    def _is_plain(self, watch: OneLayer, inputs: tuple[Any, ...]) -> bool:
        return watch.is_plain(inputs[0].shape[0], arranged=self.arranged)

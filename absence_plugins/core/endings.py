"""The logits in front of a softmax or sigmoid that a model ends in, taken from its forward.

A probability rises when another logit falls, so what is explained is the logit. Where the tensor of scores that a model
returns *is* the result of a softmax, log-softmax or sigmoid, these logits are the operation's input. The model is not
changed: a mode of torch sees the operation, whether it is a module, a function or a method. A softmax inside the model
(attention, gates) is never taken, nor one from whose result anything else is computed: an average of probabilities has
no logits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from absence_plugins.core.hooks import keep_to_thread

KINDS = {  # torch functions and methods, by name
    **dict.fromkeys(("softmax", "special_softmax"), "softmax"),
    **dict.fromkeys(("log_softmax", "special_log_softmax"), "log_softmax"),
    **dict.fromkeys(("sigmoid", "sigmoid_", "special_expit"), "sigmoid"),
}
MOVES = frozenset({
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "permute"),
    *("transpose", "swapaxes", "swapdims", "t", "movedim", "moveaxis", "narrow", "expand", "expand_as", "__getitem__"),
})  # fmt: skip
COPIES = frozenset({
    *("contiguous", "clone", "detach", "to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda"),
})  # fmt: skip


@dataclass(frozen=True)
class Step:
    """An operation behind the softmax that moves or copies its result."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def on(self, value: Tensor) -> Tensor:
        """The same for another tensor."""
        moved: Tensor = self.function(value, *self.args, **self.kwargs)
        return moved


@dataclass(frozen=True)
class _Made:
    """How a tensor was made: the softmax's input, its axis, and what was done with the result."""

    kind: str
    axis: int
    source: Tensor
    source_version: int
    version: int  # of the tensor
    steps: tuple[Step, ...] = ()

    def logits_for(self, scores: Tensor) -> Tensor | None:
        """The logits in the form of the scores; None where the scores are not this softmax over their classes."""
        if _version(scores) != self.version or _version(self.source) != self.source_version:
            return None
        logits = self.source.to(scores.dtype)
        for step in self.steps:
            logits = step.on(logits)
        if logits.shape != scores.shape or (self.kind != "sigmoid" and not self._is_over_classes(scores)):
            return None
        return None if scores.is_inference() and not self._agree(logits, scores) else logits

    def _agree(self, logits: Tensor, scores: Tensor) -> bool:
        """Whether the scores are still what was computed: tensors of inference mode count no changes in place."""
        again = logits.sigmoid() if self.kind == "sigmoid" else getattr(torch, self.kind)(logits, 1)
        return torch.allclose(again, scores, rtol=1e-3, atol=1e-6, equal_nan=True)

    def _is_over_classes(self, scores: Tensor) -> bool:
        """Whether the entries along the scores' axis 1 are all those of the softmax, in their order."""
        if scores.dim() < 2 or scores.shape[1] < 2 or self.source.dim() == 0:
            return False
        if not self.steps:
            return self.axis == 1
        shape = [1] * self.source.dim()
        shape[self.axis] = -1
        with torch._C.DisableTorchFunction():
            places = torch.arange(self.source.shape[self.axis], device=self.source.device).view(shape)
            moved = places.expand_as(self.source)
            for step in self.steps:
                moved = moved if step.name in COPIES else step.on(moved)
            own = torch.arange(self.source.shape[self.axis], device=moved.device).view(-1, *[1] * (scores.dim() - 2))
            return scores.shape[1] == len(own) and bool((moved == own).all())


class LastOperation(TorchFunctionMode):
    """Sees in a forward which tensors are the result of a softmax, log-softmax or sigmoid, and of nothing behind it.

    >>> net, x = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(1)), torch.rand(1, 2)
    >>> with LastOperation() as last:
    ...     scores = net(x)
    >>> logits, kind = last.in_front_of(scores)
    >>> torch.equal(logits, net[0](x)), kind
    (True, 'softmax')
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: Any = WeakTensorKeyDictionary()  # a softmax that nobody holds any more is forgotten

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in KINDS:
            return self._keep(KINDS[name], func, args, kwargs)
        output = func(*args, **kwargs)
        if len(self._made) and (name in MOVES or name in COPIES) and isinstance(output, Tensor):
            self._follow(Step(name, func, args[1:], kwargs), args, output)
        return output

    def in_front_of(self, scores: Tensor) -> tuple[Tensor, str]:
        """The logits and what stands behind them ("softmax", "log_softmax", "sigmoid"); else the scores and ""."""
        made = self._made.get(scores)
        logits = None if made is None else made.logits_for(scores)
        return (scores, "") if logits is None else (logits, made.kind)

    def _keep(self, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        source = args[0] if args else kwargs.get("input")
        if not isinstance(source, Tensor):
            return func(*args, **kwargs)
        is_overwritten = func.__name__.endswith("_") or kwargs.get("out") is source
        kept = source.clone() if is_overwritten else source
        version = _version(kept)
        output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            axis = _axis_of(source, args, kwargs) if kind != "sigmoid" else 0
            self._made[output] = _Made(kind, axis, kept, version, _version(output))
        return output

    def _follow(self, step: Step, args: Any, output: Tensor) -> None:
        made = self._made.get(args[0]) if args and isinstance(args[0], Tensor) else None
        if made is None or output is args[0] or _version(args[0]) != made.version:
            return
        self._made[output] = replace(made, steps=(*made.steps, step), version=_version(output))


ARITHMETIC = frozenset({
    *("Addmm", "Addmv", "Mm", "Mv", "Bmm", "Baddbmm", "Addbmm", "Convolution", "MkldnnConvolution", "CudnnConvolution"),
    *("Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Mean", "Sum", "Relu", "Tanh"),
    *("linear", "conv1d", "conv2d", "conv3d", "matmul", "mm", "bmm", "addmm", "add", "sub", "mul", "div", "relu"),
})  # fmt: skip
MOVING = frozenset({
    *("View", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze", "Transpose", "T", "Permute", "Clone", "Alias"),
})  # fmt: skip


def ends_in_arithmetic(scores: Tensor) -> bool:
    """Whether autograd's graph says that scores are no softmax's or sigmoid's result, moved or not. False: not known.

    >>> x = torch.ones(1, 3, requires_grad=True)
    >>> [ends_in_arithmetic(one) for one in ((x * 2).view(3, 1), (x * 2).softmax(1).view(3, 1), x)]
    [True, False, False]
    """
    node = scores.grad_fn
    while node is not None:
        record = getattr(node, "record", None)  # of a comparison's own nodes (absence_plugins.relevance)
        name = _operation_of(node.name()) if record is None else record.name
        if name in ARITHMETIC:
            return True
        if name not in MOVING:
            return False
        node = node.next_functions[0][0]
    return False


@functools.cache
def _operation_of(node: str) -> str:
    """A node's operation: its name without "Backward" and the digit."""
    return node.partition("Backward")[0]


def _axis_of(source: Tensor, args: Any, kwargs: Any) -> int:
    """The axis of a softmax; one that is not named is torch's own choice."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if axis is None:
        axis = 0 if source.dim() in (0, 1, 3) else 1
    return int(axis) % max(source.dim(), 1)


def _version(tensor: Tensor) -> int:
    """How often a tensor was overwritten; tensors of inference mode do not say."""
    return 0 if tensor.is_inference() else tensor._version


def describe_ending(kind: str) -> str:
    """What is said where a model ends in a softmax, log-softmax or sigmoid.

    >>> describe_ending("softmax")
    'the model ends in a softmax over axis 1; its input, the logits, is explained'
    """
    return (
        f"the model ends in a {kind}{'' if kind == 'sigmoid' else ' over axis 1'}; its input, the logits, is explained"
    )


@contextmanager
def located_softmaxes() -> Iterator[list[str]]:
    """The softmaxes that run in this block, each by the module that calls it, for error messages.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(1))
    >>> with located_softmaxes() as found:
    ...     _ = net(torch.rand(1, 2))
    >>> found
    ["softmax in '1' (Softmax)"]
    """
    running: list[nn.Module] = []
    found: list[str] = []

    def enter(module: nn.Module, _inputs: Any) -> None:
        running.append(module)

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if running:
            running.pop()

    def call(kind: str) -> str:
        if not running:
            return f"{kind} in a function"
        names = {id(module): name for name, module in reversed(list(running[0].named_modules()))}
        name = names.get(id(running[-1]), "")
        return f"{kind} in {repr(name) if name else 'the forward of the model'} ({type(running[-1]).__name__})"

    handles = [
        register_module_forward_pre_hook(keep_to_thread(enter)),
        register_module_forward_hook(keep_to_thread(leave), always_call=True),
    ]
    try:
        with _Listening(lambda kind: found.append(call(kind))):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def describe_location(found: list[str]) -> str:
    """The end of an error message about probabilities: where softmaxes ran, and why they are not left out by
    themselves.

    >>> describe_location(["softmax in 'a' (Head)"])
    " (a softmax in 'a' (Head) runs, but the outputs are not its result alone: more is computed from it)"
    """
    if not found:
        return (
            " (none is seen among the model's operations: it is written out, or runs in scripted code or in threads; "
            "pass the Python module itself, such as model.module of DataParallel)"
        )
    shown = f"a {found[-1]} runs" + (f", the last of {len(found)}" if len(found) > 1 else "")
    cut = "; in a copy of the model put torch.nn.Identity() in its place" if "oftmax)" in found[-1] else ""
    return f" ({shown}, but the outputs are not its result alone: more is computed from it{cut})"


class _Listening(TorchFunctionMode):
    """Tells of every softmax."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kind = KINDS.get(getattr(func, "__name__", ""), "sigmoid")
        if kind != "sigmoid":
            self._tell(kind)
        return func(*args, **(kwargs or {}))

"""The second derivatives of a penalty: tried at the first call, and watched whenever a loss is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves, tree_map

from absence_plugins.core.interrupts import uncut
from absence_plugins.core.module_calls import observed_calls
from absence_plugins.methods.debias.checks import graph_nodes

ONCE = once_differentiable(lambda _context: None).__code__
MISSING = ("is not implemented", "differentiate twice", "not supported", "double backward")
REMEDY = (
    "exchange it for a composition of functions that torch differentiates twice (of numbers that can be 0, take the "
    "root of x.clamp_min(1e-12)), or train without the prior"
)


def try_second_derivatives(
    penalty: Tensor, logits: Tensor, model: nn.Module, forward: Callable[[Tensor], Any], x: Tensor
) -> None:
    """Differentiate a penalty once, without an effect, before a training relies on it.

    ``logits``: of which the penalty was made. ``forward``: the model's forward, without a trace; it runs again where
    the derivative fails, to find the module.

    Raises:
        ValueError: a second derivative that torch lacks, or that is not finite; the module and the remedy.
    """
    named = _trained(model)
    if not penalty.requires_grad or not named:
        return
    once = _once_differentiable(logits)
    if once:  # its gradient may come without a graph: nothing would raise
        raise ValueError(_missing(f"the backward of {once} is marked with once_differentiable", model, forward, x))
    try:
        slopes = torch.autograd.grad(penalty, list(named.values()), retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if not any(words in str(error) for words in MISSING):
            raise
        raise ValueError(_missing(str(error).splitlines()[0].rstrip("."), model, forward, x)) from error
    bad = [name for (name, _), slope in zip(named.items(), slopes, strict=True) if slope is not None and _is_bad(slope)]
    if bad:
        raise ValueError(_not_finite(bad, model, forward, x))


def watch_gradients(penalty: Tensor, model: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> None:
    """Let every backward pass through a penalty fail if a parameter's gradient is not finite.

    The check runs inside ``backward()`` (or ``torch.autograd.grad``), which then raises: no optimizer steps on these
    gradients. Not in float16, where ``GradScaler`` looks for them and skips the step. Nothing is left on the model.
    """
    halves = {parameter.dtype for parameter in model.parameters()} | {penalty.dtype}
    if torch.is_autocast_enabled(x.device.type):
        halves.add(torch.get_autocast_dtype(x.device.type))
    if not penalty.requires_grad or torch.float16 in halves:
        return

    def begin(_slope: Tensor) -> None:
        engine: Any = torch.autograd.Variable._execution_engine
        with uncut():
            engine.queue_callback(_Watched(model, forward, x))

    penalty.register_hook(begin)  # type: ignore[no-untyped-call]


class _Watched:
    """The parameters' gradients during one backward pass; called at its end, and dropped by autograd after it."""

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> None:
        self._found = (model, forward, x)
        self._largest: dict[str, Tensor] = {}
        # the hooks hold the dictionary and not this object, which autograd alone keeps alive
        self._handles = [
            parameter.register_hook(_measuring(name, self._largest))  # type: ignore[no-untyped-call]
            for name, parameter in _trained(model).items()
        ]

    def __call__(self) -> None:
        self._off()
        names = list(self._largest)
        if names and not torch.stack([one.double().cpu() for one in self._largest.values()]).isfinite().all():
            raise ValueError(_not_finite([name for name in names if _is_bad(self._largest[name])], *self._found))

    def __del__(self) -> None:  # a pass that fails half-way never calls
        self._off()

    def _off(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _measuring(name: str, largest: dict[str, Tensor]) -> Callable[[Tensor], None]:
    def measure(slope: Tensor | None) -> None:  # None where an operation counts a parameter as constant
        if slope is not None and slope.numel() and slope.layout == torch.strided:
            largest[name] = torch.linalg.vector_norm(slope.detach(), float("inf"))

    return measure


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def _is_bad(slope: Tensor) -> bool:
    return not bool(slope.isfinite().all())


def _missing(why: str, model: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> str:
    cause = _found(model, forward, x) or "the model"
    return f"the penalty's gradient cannot be computed: {cause} has no second derivative in torch ({why}); {REMEDY}"


def _once_differentiable(*outputs: Tensor) -> str:
    """The first function of a user's in a graph that says it can be differentiated once; "" if there is none."""
    for node in graph_nodes(*outputs):
        function = getattr(node, "_forward_cls", None)
        if getattr(getattr(function, "backward", None), "__code__", None) is ONCE:
            return str(getattr(function, "__name__", function))
    return ""


def _not_finite(names: list[str], model: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> str:
    rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
    cause = _found(model, forward, x)
    why = f"a second derivative of {cause} is not" if cause else "no module alone is the cause (an overflow?)"
    return (
        f"the loss's gradient is not finite at the parameter {names[0]}{rest}: {why}; "
        f"{REMEDY if cause else 'lower the learning rate or the weight of the penalty'}"
    )


def _found(model: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> str:
    """The innermost module whose own second derivative fails on these inputs, in words; "" if none does."""
    found: list[str] = []

    def examine(name: str, module: nn.Module, inputs: Any, keywords: Any) -> None:
        if not found and not _has_second_derivative(module, inputs, keywords):
            found.append(f"{name or 'the model'} ({type(module).__name__})")

    with torch.enable_grad(), observed_calls(model, examine):
        forward(x.detach().requires_grad_())
    return found[0] if found else ""


def _has_second_derivative(module: nn.Module, inputs: Any, keywords: Any) -> bool:
    """Whether a module's call can be differentiated twice, to finite numbers, by its inputs and parameters."""
    leaves: list[Tensor] = [one for one in module.parameters() if one.requires_grad]

    def as_leaf(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaves.append(value.detach().requires_grad_())
        return leaves[-1].clone()  # a module may work in place

    inputs, keywords = tree_map(as_leaf, (inputs, keywords))
    try:
        outputs = tree_leaves(module(*inputs, **keywords))
        if _once_differentiable(*(one for one in outputs if isinstance(one, Tensor))):
            return False
        first = _slopes(outputs, leaves, create_graph=True)
        second = _slopes(first, leaves, create_graph=False)
    except RuntimeError:
        return False
    return not any(_is_bad(one) for one in (*first, *second))


def _slopes(outputs: list[Any], leaves: list[Tensor], *, create_graph: bool) -> list[Tensor]:
    """The gradients of randomly weighted outputs; an empty list where they are constant."""
    ends = [one for one in outputs if isinstance(one, Tensor) and one.requires_grad]
    if not ends:
        return []
    generator = torch.Generator().manual_seed(0)
    weights = [torch.rand(one.shape, generator=generator).to(one) for one in ends]
    slopes = torch.autograd.grad(ends, leaves, weights, create_graph=create_graph, allow_unused=True)
    return [one for one in slopes if one is not None]

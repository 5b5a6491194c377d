"""What a piece of work asks of a model, recorded, and then the same forwards and backwards alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from absence_plugins.core.changed_parts import Changed, run_changed
from absence_plugins.core.units import Layer
from absence_plugins.methods.insertion import measure


@dataclass(frozen=True)
class Call:
    """One forward.

    Attributes:
        shape: of the input; layout: its memory format.
        is_whole: whether it ran to the model's end, and not to the layer only.
        keeps: whether a graph was kept for a backward; pulls: backwards that followed it.
        changed: images of which only what a rectangle changes was computed.
    """

    shape: tuple[int, ...]
    layout: torch.memory_format
    is_whole: bool
    keeps: bool
    pulls: int = 0
    changed: Changed | None = None


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Call]]:
    """The calls of a model of images inside the block, in order."""
    calls: list[Call] = []
    inside: list[bool] = []
    grad, backward = torch.autograd.grad, torch.Tensor.backward

    def begin(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not inside:
            x = inputs[0]
            is_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
            layout = torch.channels_last if is_last else torch.contiguous_format
            calls.append(Call(tuple(x.shape), layout, False, torch.is_grad_enabled()))

    def end(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if not inside:
            calls[-1] = replace(calls[-1], is_whole=True)

    def note() -> None:
        for place in range(len(calls) - 1, -1, -1):
            if calls[place].keeps:
                calls[place] = replace(calls[place], pulls=calls[place].pulls + 1)
                return

    def grad_noted(*given: Any, **options: Any) -> Any:
        note()
        return grad(*given, **options)

    def backward_noted(*given: Any, **options: Any) -> Any:
        note()
        return backward(*given, **options)  # type: ignore[no-untyped-call]

    def follow(run: Callable[[Tensor], Tensor], changed: Changed) -> Any:
        inside.append(True)
        try:
            found = run_changed(run, changed)
        finally:
            inside.pop()
        calls.append(Call(tuple(changed.images.shape), torch.contiguous_format, False, False, changed=changed))
        return found

    with ExitStack() as stack:
        for hook in (model.register_forward_pre_hook(begin), model.register_forward_hook(end)):
            stack.callback(hook.remove)
        stack.enter_context(patch.object(torch.autograd, "grad", grad_noted))
        stack.enter_context(patch.object(torch.Tensor, "backward", backward_noted))
        stack.enter_context(patch(f"{measure.__name__}.run_changed", follow))
        yield calls


def replay(model: nn.Module, layer: Layer, calls: list[Call]) -> None:
    """The same forwards, to the layer or to the end, and backwards, on random images; nothing else."""
    device = next(model.parameters()).device
    made: dict[tuple[Any, ...], Tensor] = {}
    with layer.reading(model) as run:
        for call in calls:
            key = (call.shape, call.layout)
            if key not in made:
                made[key] = torch.rand(call.shape, device=device).contiguous(memory_format=call.layout)
            x = made[key]
            if call.changed is not None:
                run_changed(run, call.changed)
            elif not call.keeps or not call.pulls:
                with torch.no_grad():
                    _ = model(x) if call.is_whole else run(x)
            else:
                with torch.enable_grad():
                    leaf = x.detach().clone().requires_grad_()
                    outputs = layer.maps(model, leaf) if not call.is_whole else model(leaf)
                    for pull in range(call.pulls):
                        torch.autograd.grad(outputs.sum(), leaf, retain_graph=pull + 1 < call.pulls)

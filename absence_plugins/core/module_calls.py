"""Which module is running: the stack of module calls during a forward, and what each call is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from absence_plugins.core.hooks import keep_to_thread


@contextmanager
def running_modules(model: Any, *, is_running: bool = False) -> Iterator[list[str]]:
    """The names of the modules that are running in this thread, outermost first; "" is the model itself.

    ``is_running``: the model's own call has begun already.

    >>> net, seen = nn.Sequential(nn.Identity()), []
    >>> with running_modules(net) as running:
    ...     _ = net[0].register_forward_pre_hook(lambda *_: seen.append(list(running)))
    ...     _ = net(1)
    >>> seen
    [['', '0']]
    """
    running: list[str] = [""] if is_running else []
    handles: list[Any] = []
    model = getattr(model, "__self__", model)  # model.forward
    try:
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            if isinstance(module, torch.jit.ScriptModule) or (is_running and module is model):
                continue  # takes no hooks, or is entered already
            handles.append(module.register_forward_pre_hook(keep_to_thread(_entering(running, name)), prepend=True))
            handles.append(module.register_forward_hook(keep_to_thread(_leaving(running)), always_call=True))
        yield running
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def observed_calls(model: nn.Module, see: Callable[[str, nn.Module, Any, Any], None]) -> Iterator[None]:
    """In this block ``see(name, module, inputs, keywords)`` runs after every module call, with copies of its inputs.

    Inner modules come before those that hold them. ``see`` may call the module again: such calls are not seen.

    >>> net, seen = nn.Sequential(nn.ReLU(inplace=True)), []
    >>> with observed_calls(net, lambda name, module, inputs, keywords: seen.append((name, inputs[0].item()))):
    ...     _ = net(torch.tensor(-1.0))
    >>> seen
    [('0', -1.0), ('', -1.0)]
    """
    given: list[tuple[Any, Any]] = []
    is_seeing: list[bool] = []

    def enter(_module: nn.Module, inputs: Any, keywords: Any) -> None:
        if not is_seeing:
            copied = tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, (inputs, keywords))
            given.append(copied)

    def leaving(name: str) -> Any:
        def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
            if not is_seeing:
                is_seeing.append(True)
                try:
                    see(name, module, *given.pop())
                finally:
                    is_seeing.clear()

        return leave

    handles: list[Any] = []
    try:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_pre_hook(keep_to_thread(enter), prepend=True, with_kwargs=True))
                handles.append(module.register_forward_hook(keep_to_thread(leaving(name))))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(running: list[str], name: str) -> Any:
    def enter(_module: nn.Module, _inputs: Any) -> None:
        running.append(name)

    return enter


def _leaving(running: list[str]) -> Any:
    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if running:
            running.pop()

    return leave

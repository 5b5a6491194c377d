"""Which module is running: the stack of module calls during a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import nn


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
            handles.append(module.register_forward_pre_hook(_entering(running, name), prepend=True))
            handles.append(module.register_forward_hook(_leaving(running), always_call=True))
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _entering(running: list[str], name: str) -> Any:
    thread = get_ident()

    def enter(_module: nn.Module, _inputs: Any) -> None:
        if get_ident() == thread:
            running.append(name)

    return enter


def _leaving(running: list[str]) -> Any:
    thread = get_ident()

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if get_ident() == thread and running:
            running.pop()

    return leave

"""Which module is running: the stack of module calls during a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def running_modules(model: Any) -> Iterator[list[str]]:
    """The names of the modules that are running, outermost first; "" is the model itself.

    >>> net, seen = nn.Sequential(nn.Identity()), []
    >>> with running_modules(net) as running:
    ...     _ = net[0].register_forward_pre_hook(lambda *_: seen.append(list(running)))
    ...     _ = net(1)
    >>> seen
    [['', '0']]
    """
    running: list[str] = []
    handles: list[Any] = []
    model = getattr(model, "__self__", model)  # model.forward
    try:
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            handles.append(module.register_forward_pre_hook(_entering(running, name), prepend=True))
            handles.append(module.register_forward_hook(_leaving(running), always_call=True))
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _entering(running: list[str], name: str) -> Any:
    def enter(_module: nn.Module, _inputs: Any) -> None:
        running.append(name)

    return enter


def _leaving(running: list[str]) -> Any:
    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    return leave

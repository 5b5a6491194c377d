"""Readers of layers in a running forward: of the model itself its logits, and of several layers at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from torch import nn

from absence_plugins.core.endings import LastOperation
from absence_plugins.core.hooks import keep_to_thread
from absence_plugins.core.interrupts import undivided
from absence_plugins.core.reading import Watch, find_module, plain_model, tensor_of
from absence_plugins.core.turns import working_on


def make_watch(module: nn.Module, side: str, name: str) -> Watch:
    """The reader of a layer on a side; the name "" is the model itself."""
    return RootWatch(module, side, name) if side == "auto" and not name else Watch(module, side, name)


class RootWatch(Watch):
    """Reads a model's outputs; of one that ends in a softmax or sigmoid, also as a function, the logits in front of it.

    >>> import torch
    >>> class Net(nn.Linear):
    ...     def forward(self, x: torch.Tensor) -> torch.Tensor:
    ...         return super().forward(x).softmax(1)
    >>> net, x = Net(2, 3), torch.zeros(1, 2)
    >>> with RootWatch(net, "auto", "") as watch:
    ...     _ = net(x)
    >>> torch.equal(watch.last()[0], net.bias)
    True
    """

    def __init__(self, module: nn.Module, side: str, name: str) -> None:
        super().__init__(module, side, name)
        self._running: list[Any] = []

    def _on_output(self, activations: list[nn.Module]) -> None:
        self._on(self.module.register_forward_pre_hook(keep_to_thread(self._begin)))
        super()._on_output(activations)
        self._on(self.module.register_forward_hook(keep_to_thread(self._leave), always_call=True))

    def _off(self) -> None:
        super()._off()
        while self._running:  # a forward that was interrupted
            self._leave()

    @undivided
    def _begin(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        self._running.append(LastOperation())
        self._running[-1].__enter__()

    @undivided
    def _leave(self, *_call: Any) -> None:
        if self._running:
            self._running.pop().__exit__(*sys.exc_info())

    def _keep_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        last = self._running[-1] if self._running else None
        self._leave()
        value = tensor_of(output, self.name)
        if last is not None and not (self._left is not None and self._left[1] is value):
            logits, ending = last.in_front_of(value)
            output = logits if ending else output
        super()._keep_output(module, inputs, output)


class Recorder:
    """Reads several layers in one forward; its hooks are on the model inside a ``with`` block.

    ``outputs`` holds what every module but the model put out in the last forward: the very objects, not copies.
    :meth:`watch` adds a layer of which a copy is kept, at the side where a unit is read.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True))
    >>> _ = net[0].weight.data.fill_(-1.0)
    >>> with Recorder(net) as recorder, torch.no_grad():
    ...     watch = recorder.watch("1")
    ...     _ = net(torch.ones(1, 1))
    >>> watch.values, recorder.outputs[net[1]]
    ([tensor([[-1.]])], tensor([[0.]]))
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = plain_model(model)
        self.outputs: dict[nn.Module, Any] = {}
        self.watches: dict[tuple[str, str], Watch] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # a module may take no hook
            stack.enter_context(working_on(self.model))
            for module in self.model.modules():
                if module is not self.model:
                    stack.callback(module.register_forward_hook(keep_to_thread(self._keep)).remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self.watches.clear()

    def watch(self, name: str, side: str = "auto") -> Watch:
        """Copies of a layer's value from the next forward on. Raises ValueError where there is no such layer."""
        if (name, side) not in self.watches:
            watch = make_watch(find_module(self.model, name), side, name)
            self.watches[name, side] = self._stack.enter_context(watch)
        return self.watches[name, side]

    def forget(self) -> None:
        """Before a forward."""
        self.outputs.clear()
        for watch in self.watches.values():
            watch.forget()

    @contextmanager
    def held(self) -> Iterator[None]:
        """What was read stays as it is, although the model runs again in the block."""
        outputs = dict(self.outputs)
        read = [(watch, list(watch.values), watch.point) for watch in self.watches.values()]
        try:
            yield
        finally:
            self.outputs.clear()
            self.outputs.update(outputs)
            for watch, values, point in read:
                watch.forget()
                watch.values.extend(values)
                watch.point = point

    def _keep(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        self.outputs[module] = output

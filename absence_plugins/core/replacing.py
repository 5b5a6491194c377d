"""Replacing a layer's value at the very point where it is read: in front of the nonlinearity that the layer ends in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

from absence_plugins.core.hooks import hooking, keep_to_thread
from absence_plugins.core.reading import Watch, plain_model, tensor_of
from absence_plugins.core.running import as_written
from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Layer


@contextmanager
def replacing(model: nn.Module, layer: str | Layer, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """In this block the model continues with ``change(maps)`` in place of a layer's maps [B, U, ...].

    The maps are those that :meth:`Layer.maps` reads, and are replaced where they are read: in front of the nonlinearity
    that the layer ends in. Every call of the layer is changed; another reader of the layer reads the changed maps.

    Raises:
        ValueError: no such layer; in a forward, what :meth:`Layer.maps` raises.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> with replacing(net, "1", lambda maps: maps * 0 - 3):
    ...     net(torch.ones(1, 1)).tolist(), Layer("1").read(net, torch.ones(1, 1)).tolist()
    ([[0.0, 0.0]], [[-3.0, -3.0]])
    """
    at = Layer.of(layer)
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    is_asking: list[bool] = []

    def keep(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if not is_asking:
            given[:] = [(inputs, keywords)]

    def changed(value: Tensor) -> Tensor:
        if is_asking:
            return value
        is_asking.append(True)  # the axis of the channels may be looked up with another forward
        try:
            axes = at.axes(model, replacement, value, *(given[0] if given else ((), {})))
        finally:
            is_asking.clear()
        return axes.back(change(axes.maps(value)))

    inner = plain_model(model)
    with (
        hooking(inner, [lambda: inner.register_forward_pre_hook(keep_to_thread(keep), with_kwargs=True)]),
        replaced(at.watch(model), changed) as replacement,
    ):
        yield


@contextmanager
def replaced(watch: Watch, change: Callable[[Tensor], Tensor]) -> Iterator[Watch]:
    """In this block the model continues with ``change(value)`` at the point where a watch reads its value.

    The input of an activation, or of the one that a block ends in, where that is what the watch reads; else the
    module's output (of several, the tensor that is read). Every call is changed; the new value may hold another number
    of samples. The given watch is not entered; another one on the same module reads the new value.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> with replaced(Watch(net, "auto", "net"), lambda value: value * 0 - 3):  # in front of the ReLU
    ...     net(torch.ones(2, 1)).flatten().tolist()
    [0.0, 0.0]
    """
    with working_on(watch.module), as_written(), _Replacement(watch, change) as replacement:
        yield replacement


def exchange(value: Any, old: Tensor, new: Tensor) -> Any:
    """What a layer takes or puts out, with one tensor in the place of another, wherever it stands.

    >>> import torch
    >>> a, b = torch.zeros(1), torch.ones(1)
    >>> exchange((a, {"of": [a, 3]}), a, b)
    (tensor([1.]), {'of': [tensor([1.]), 3]})
    """
    if value is old:
        return new
    if is_dataclass(value) and not isinstance(value, type):
        named = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        return replace(value, **{key: exchange(one, old, new) for key, one in named.items()})
    if isinstance(value, Mapping):
        made = copy.copy(value)
        made.update({key: exchange(one, old, new) for key, one in value.items()})  # type: ignore[attr-defined]
        return made
    if isinstance(value, (tuple, list)):
        parts = [exchange(one, old, new) for one in value]
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    return value


class _Replacement(Watch):
    """A watch that puts another value at the point where it reads."""

    replaces = True

    def __init__(self, watch: Watch, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(watch.module, watch.side, watch.name)
        self._change = change
        self._is_again = False

    def _changed(self) -> Tensor:
        # a copy: what follows may work in place, and what is given may be read again
        return self._change(self.values.pop()).clone()

    def _keep_input(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        super()._keep_input(module, inputs, keywords)
        old = tensor_of((*inputs, *keywords.values()), self.name)
        return exchange((inputs, keywords), old, self._changed())

    def _enter_activation(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self._is_again:
            super()._enter_activation(module, inputs)

    def _leave_activation(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not self._is_again:
            super()._leave_activation(module, inputs, output)

    def _keep_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        super()._keep_output(module, inputs, output)
        value = self._changed()
        last, side = self.point
        if side == "input":  # the block ends in this activation: it works on the new value
            self._is_again = True
            try:
                value = last(value)
            finally:
                self._is_again = False
        return exchange(output, tensor_of(output, self.name), value)

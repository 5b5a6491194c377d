"""The arguments of an operation by name, from both passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Place

# Other spellings of a keyword in torch.
SPELLINGS = {
    "input": ("self", "x", "a", "A"),
    "other": ("mat2", "vec2", "vec", "tensor", "b"),
    "first": ("mat1", "batch1"),
    "second": ("mat2", "batch2"),
    "dim": ("axis",),
}


def _spelled(name: str, kwargs: dict[str, Any]) -> str | None:
    return next((spelling for spelling in (name, *SPELLINGS.get(name, ())) if spelling in kwargs), None)


@dataclass(frozen=True)
class Argument:
    """One argument: its value for x and for r, and where it stands (None where it is left at its default)."""

    value: Any
    other: Any
    place: Place | None = None
    varies: bool = False


class Arguments:
    """``Arguments(op, input=..., dim=None)`` binds positions and keywords in the order given; a value is the
    default.
    """

    def __init__(self, op: Operation, **defaults: Any) -> None:
        self._op = op
        self._bound: dict[str, Argument] = {}
        for position, (name, default) in enumerate(defaults.items()):
            place: Place
            if position < len(op.args):
                place = (position,)
            elif (spelled := _spelled(name, op.kwargs)) is not None:
                place = (spelled,)
            else:
                self._bound[name] = Argument(default, default)
                continue
            self._bound[name] = Argument(op.operand(place), op.other_operand(place), place, place in op.varying)

    def __getitem__(self, name: str) -> Argument:
        return self._bound[name]

    def value(self, name: str) -> Any:
        """The value in x's call."""
        return self._bound[name].value

    def varying(self) -> list[str]:
        """The names of the tensors that depend on the input."""
        return [name for name, argument in self._bound.items() if argument.varies]

    def in_order(self, found: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
        """Multipliers by name, in the order of the operation's varying operands."""
        by_place = {argument.place: found.get(name) for name, argument in self._bound.items()}
        return tuple(by_place.get(place) for place in self._op.varying)


def substitute(op: Operation, values: dict[Place, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of x's call with other values at some places."""
    args: list[Any] = list(op.args)
    kwargs = dict(op.kwargs)
    for place, value in values.items():
        first, *rest = place
        holder: Any = kwargs if isinstance(first, str) else args
        holder[first] = _replace(holder[first], rest, value)
    return tuple(args), kwargs


def _replace(container: Any, path: list[int | str], value: Any) -> Any:
    if not path:
        return value
    first, *rest = path
    items = list(container)
    items[int(first)] = _replace(items[int(first)], rest, value)
    return tuple(items) if isinstance(container, tuple) else items


def function_of_varying(op: Operation) -> Callable[..., Any]:
    """The operation as a function of its varying operands alone, the rest as in x's call."""

    def call(*values: Tensor) -> Any:
        args, kwargs = substitute(op, dict(zip(op.varying, values, strict=True)))
        return op.function(*args, **kwargs)

    return call


def single(multiplier: Multiplier) -> Tensor | None:
    """The multiplier of the only output, or of the first of several (values and indices)."""
    return multiplier[0] if isinstance(multiplier, tuple) else multiplier

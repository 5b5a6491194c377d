"""What x's pass leaves of each operation, safe from later in-place operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from absence_plugins.relevance.operation import Place, Pull


@dataclass(slots=True, weakref_slot=True, eq=False)
class Record:
    """One operation of x's pass with a varying operand; ``args`` hold no graph.

    An operation with a secant keeps all its operands and its output; a linear one keeps its constants, and None in
    the places of the varying operands.
    """

    name: str
    path: str  # of the module that calls it
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    varying: tuple[Place, ...]
    function: Callable[..., Any]
    is_linear: bool
    output: Any = None
    rule: Any = None
    reciprocal: Place | None = None  # of a product: the factor that is a reciprocal or its root
    pull: Pull | None = None
    graph_operand: Tensor | None = None  # with its graph, where a rule writes to the map
    is_linear_in_m: bool = (
        False  # the pull may be derived in the multipliers (it is asked for between input and operand)
    )
    overwritten: set[Place] = field(default_factory=set)  # places in (args, kwargs, output) that are overwritten later

    @property
    def where(self) -> str:
        """The module for messages."""
        return f"module {self.path!r}" if self.path else "the model's own forward"


def scan(values: Any, places: list[Place], operands: list[Tensor], prefix: Place = ()) -> Any:
    """Find the operands that depend on the input; detach the constants that require gradients (parameters).

    Dependent is what requires grad and is no leaf, as the input enters as a clone of a leaf.
    """
    changed: list[Any] | None = None
    for index, value in enumerate(values):
        if isinstance(value, Tensor):
            if not value.requires_grad:
                continue
            if not value.is_leaf:
                places.append((*prefix, index))
                operands.append(value)
                continue
            new: Any = value.detach()
        elif isinstance(value, (tuple, list)):
            new = scan(value, places, operands, (*prefix, index))
            if new is value:
                continue
        else:
            continue
        if changed is None:
            changed = list(values)
        changed[index] = new
    if changed is None:
        return values
    return changed if isinstance(values, list) else tuple(changed)


def scan_keywords(kwargs: dict[str, Any], places: list[Place], operands: list[Tensor]) -> dict[str, Any]:
    """:func:`scan` for keyword arguments."""
    found: list[Place] = []
    values = scan(tuple(kwargs.values()), found, operands)
    names = list(kwargs)
    places.extend((names[int(place[0])], *place[1:]) for place in found)
    return dict(zip(names, values, strict=True))


def detach_all(value: Any) -> Any:
    """The same tensors without graph."""
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad else value
    if isinstance(value, (tuple, list)):
        entries = [detach_all(entry) for entry in value]
        return entries if isinstance(value, list) else tuple(entries)
    return value


def exchange(
    args: tuple[Any, ...], kwargs: dict[str, Any], places: Iterable[Place], values: Iterable[Tensor | None]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with other values at some places.

    >>> exchange((1, [2, 3]), {"dim": 4}, [(1, 0), ("dim",)], [None, None])
    ((1, [None, 3]), {'dim': None})
    """
    positional = list(args)
    for (first, *rest), value in zip(places, values, strict=False):
        if isinstance(first, str):
            kwargs = {**kwargs, first: put(kwargs[first], tuple(rest), value)}
        else:
            positional[first] = put(positional[first], tuple(rest), value) if rest else value
    return tuple(positional), kwargs


def tensors_in(value: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """All tensors in nested arguments, with their places."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, (tuple, list)):
        for index, entry in enumerate(value):
            if isinstance(entry, (Tensor, tuple, list)):
                yield from tensors_in(entry, (*place, index))
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from tensors_in(entry, (*place, name))


def put(value: Any, place: Place, tensor: Tensor | None) -> Any:
    """Nested arguments with the tensor at one place exchanged."""
    if not place:
        return tensor
    first, *rest = place
    if isinstance(value, dict):
        return {**value, first: put(value[first], tuple(rest), tensor)}
    entries = list(value)
    entries[int(first)] = put(entries[int(first)], tuple(rest), tensor)
    return entries if isinstance(value, list) else tuple(entries)


class Memory:
    """Which records hold which storage, so that an in-place operation leaves them a copy of the old values."""

    def __init__(self) -> None:
        self._held: dict[int, list[Record]] = {}

    def hold(self, record: Record) -> None:
        """Note the tensors of a record."""
        for value in (*record.args, *record.kwargs.values(), record.output):
            if isinstance(value, Tensor):
                self._note(value, record)
            elif isinstance(value, (tuple, list, dict)):
                for _, tensor in tensors_in(value):
                    self._note(tensor, record)

    def _note(self, tensor: Tensor, record: Record) -> None:
        key = _key(tensor)
        records = self._held.get(key)
        if records is None:
            self._held[key] = [record]
        elif records[-1] is not record:
            records.append(record)

    def release(self, target: Tensor) -> Tensor | None:
        """Copy what records hold of the target's storage, before it is overwritten.

        Returns a copy of the target itself if there is one among the copies.
        """
        key = _key(target)
        records = self._held.pop(key, None)
        if records is None:
            return None
        copies: dict[tuple[Any, ...], Tensor] = {}
        for record in records:
            whole = (record.args, record.kwargs, record.output)
            for place, tensor in list(tensors_in(whole)):
                if _key(tensor) != key:
                    continue
                layout = _layout(tensor)
                if layout not in copies:
                    copies[layout] = tensor.clone()
                whole = put(whole, place, copies[layout])
                record.overwritten.add(place)
            record.args, record.kwargs, record.output = whole
            self.hold(record)
        return copies.get(_layout(target))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()

"""The calls that make a data set's pictures: recorded on a real one, run again on a black one.

Nothing of the data set is changed: what is recorded is a copy that shares everything but the transforms, and the data
set itself only ever sees its own pictures (it may keep what it made, in memory or on disk).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType, new_class
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.dataset_items import single_samples

LONGEST = 1000  # elements of a list of transforms, not of samples


@dataclass(eq=False)
class RecordedCall:
    """One call of a transform: what went in, and what came out."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class _Recorded:
    """A transform whose calls are recorded."""

    def __init__(self, function: Callable[..., Any], calls: list[RecordedCall]) -> None:
        self._function, self._calls = function, calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._function(*args, **kwargs)
        self._calls.append(RecordedCall(self._function, args, kwargs, output))
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class UnknownBlackError(Exception):
    """It cannot be told what black is in front of a transform."""


def read_recorded(dataset: Any, last: bool, calls: list[RecordedCall]) -> Any:
    """The first or last item, while the calls that make it are recorded."""
    collate = None
    if isinstance(dataset, torch.utils.data.DataLoader):
        dataset, collate = dataset.dataset, dataset.collate_fn
    if isinstance(dataset, torch.utils.data.IterableDataset):
        raise UnknownBlackError  # may read from a stream, which would lose a sample
    twin, place = _record(dataset, calls), len(dataset) - 1 if last else 0
    item = twin[place]
    if collate in (None, torch.utils.data.default_collate, torch.utils.data.default_convert):
        return item
    assert collate is not None
    return next(single_samples([_Recorded(collate, calls)([item])]))


def _record(value: Any, calls: list[RecordedCall]) -> Any:
    """A data set, or what one holds, with its transforms recorded; the original stays as it is."""
    if isinstance(value, (type, Tensor, str, bytes)):
        return value
    form = getattr(value, "format", None)
    if hasattr(value, "with_transform") and isinstance(form, Mapping) and form.get("type") == "custom":  # Hugging Face
        recorded = _Recorded(_isolate(form["format_kwargs"]["transform"]), calls)
        return value.with_transform(recorded, form.get("columns"), form.get("output_all_columns", False))
    if isinstance(value, torch.utils.data.Dataset) or (hasattr(value, "__getitem__") and _has_transform(value)):
        return _share(value, calls)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        parts = [_record(part, calls) for part in value] if len(value) <= LONGEST else list(value)
        is_same = all(part is own for part, own in zip(parts, value, strict=True))
        return value if is_same else type(value)(parts)
    return _Recorded(_isolate(value), calls) if callable(value) else value


class _Twin:
    """What a data set's twin does otherwise: it shares files and connections, so it must not close them."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:  # a class of the user that lists its subclasses hears nothing of this one
        pass

    def __del__(self) -> None:
        pass


def _share(value: Any, calls: list[RecordedCall]) -> Any:
    """A second object with the attributes of a data set, of its class, or of a subclass without its ``__del__``.

    Raises what a class raises that cannot have subclasses.
    """
    kind = type(value)
    if hasattr(kind, "__del__"):
        own = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        kind = new_class(kind.__name__, (_Twin, kind), exec_body=lambda body: body.update(own))
    twin = object.__new__(kind)
    for each in type(value).__mro__:
        for slot in vars(each).values():
            if isinstance(slot, MemberDescriptorType) and each is not object:
                try:
                    slot.__set__(twin, _record(slot.__get__(value), calls))
                except (AttributeError, TypeError):  # empty, or not to be set
                    continue
    if hasattr(value, "__dict__"):
        twin.__dict__.update({name: _record(part, calls) for name, part in vars(value).items()})
    return twin


def _isolate(transform: Any) -> Any:
    """A copy of a transform, so that generators, statistics and counters that it holds stay as they are; itself where
    it cannot be copied, belongs to another object, or holds something with a ``__del__``, which a copy would close.
    Parameters of modules in it are shared, as they may be large.
    """
    if isinstance(transform, MethodType):
        return transform
    try:
        parts = list(_walk(transform, set()))
        if any(hasattr(type(part), "__del__") for part in parts):
            return transform
        return copy.deepcopy(transform, {id(part): part for part in parts if isinstance(part, torch.nn.Parameter)})
    except Exception:  # of a lock, ...
        return transform


def _walk(value: Any, seen: set[int]) -> Iterator[Any]:
    """What a transform is and holds, at any depth."""
    if id(value) in seen or isinstance(value, (type, ModuleType, FunctionType, str)):
        return
    seen.add(id(value))
    yield value
    parts: list[Any] = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, partial):
        parts += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, MethodType):
        parts.append(value.__self__)
    elif isinstance(value, dict):
        parts += value.values()
    elif isinstance(value, (list, tuple, set, frozenset)) and len(value) <= LONGEST:
        parts += value
    for part in parts:
        yield from _walk(part, seen)


def _has_transform(value: Any) -> bool:
    return any("transform" in name for name in getattr(value, "__dict__", ()))


def replay_black(call: RecordedCall, calls: list[RecordedCall]) -> Any:
    """The call on black pictures in place of those that it had; what an earlier call made comes from that one, on
    black.
    """
    if not find_leaves((call.args, call.kwargs)):  # a loader of files
        return _map_leaves(call.output, _blacken)
    made: dict[int, Any] = {}
    for earlier in calls[: calls.index(call)]:
        for place, leaf in enumerate(find_leaves(earlier.output)):
            made[id(leaf)] = (earlier, place)

    def black(leaf: Any) -> Any:
        if id(leaf) not in made or any(leaf is given for given in find_leaves((made[id(leaf)][0].args,))):
            return _blacken(leaf)
        earlier, place = made[id(leaf)]
        return find_leaves(replay_black(earlier, calls))[place]

    args, kwargs = _map_leaves((call.args, call.kwargs), black)
    return call.function(*args, **kwargs)


def _blacken(leaf: Any) -> Any:
    """A black picture of the same kind: 0, in pictures and integers, and in floats that are nowhere negative.

    Raises:
        UnknownBlackError: negative values, so that black need not be 0.
    """
    if is_pillow(leaf):
        black = leaf.copy() if leaf.mode in ("1", "L", "RGB", "RGBA", "LA", "I", "F", "I;16") else leaf.convert("RGB")
        bands = len(black.getbands())
        ink = 0 if bands == 1 else (0,) * (bands - 1) + (255 if black.mode in ("RGBA", "LA") else 0,)
        black.paste(ink, (0, 0, *black.size))
        return black
    if bool((leaf < 0).any()):
        raise UnknownBlackError
    if isinstance(leaf, Tensor):
        return leaf.detach().clone().zero_()  # clone keeps torchvision's types of tensors
    black = leaf.copy()
    black[...] = 0
    return black


def is_pillow(value: Any) -> bool:
    """Whether a value is a picture of Pillow, which core does not import."""
    return all(hasattr(value, name) for name in ("getbands", "paste", "convert", "size"))


def _is_leaf(value: Any) -> bool:
    """Whether a value is a picture: Pillow's, or an array or tensor of two or more axes."""
    if isinstance(value, Tensor):
        return value.dim() >= 2
    return is_pillow(value) or (hasattr(value, "__array_interface__") and getattr(value, "ndim", 0) >= 2)


def _map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if _is_leaf(value):
        return change(value)
    if isinstance(value, (list, tuple)):
        parts = [_map_leaves(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, Mapping):
        return {key: _map_leaves(part, change) for key, part in value.items()}
    return value


def find_leaves(value: Any) -> list[Any]:
    """The pictures in what a transform takes or returns: alone, or in lists, tuples and dictionaries, in their
    order.
    """
    found: list[Any] = []
    _map_leaves(value, found.append)
    return found

"""What the entries of an input are: columns of a table, tokens of a text, samples of a signal, voxels of a volume.

The mathematics of a map is the same for all of them. What differs is which entries are one thing that a person can
name, and when that thing counts as missing; a :class:`Kind` says both. Figures, pages, references and scores ask it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from absence_plugins.core.columns import Column
from absence_plugins.core.maps import absence_part, split_by_mask


@dataclass(frozen=True, eq=False)
class Kind(ABC):
    """A kind of data. Inputs are [B, ...] without the meaning of the axes that a kind adds.

    Attributes:
        name: "table", "text", "signal" or "volume".
        thing: what one piece of evidence is: "column", "token", "span", "region".
    """

    name: ClassVar[str]
    thing: ClassVar[str]

    @abstractmethod
    def check(self, inputs: Tensor) -> None:
        """Raise ValueError where a batch of inputs [B, ...] is not of this kind; the message names the shape."""

    @abstractmethod
    def things(self, maps: Tensor) -> Tensor:
        """Sum maps ``[..., *entries]`` over the entries of one thing, signs kept; the total stays the same."""

    def lacks(self, x: Tensor, reference: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Where the reference has content that x has not, boolean, shaped like both. ``empty`` broadcasts to them."""
        return absence_part(x, reference, empty)

    def positive(self, maps: Tensor) -> Tensor:
        """Positive evidence >= 0, shaped like the maps: max(sum, 0) of a thing, divided among its entries."""
        return maps.clamp(min=0)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which :func:`kind_from_dict` makes the kind again."""


@dataclass(frozen=True, eq=False)
class TableKind(Kind):
    """Rows of a table [B, E]: every column has a name, and takes one entry, or one per category.

    Missing is what stands *below* the reference: a smaller number, a category that only the reference has. What stands
    above it is present.

    >>> kind = TableKind((Column("age"), Column("color", ("red", "blue"))))
    >>> kind.things(torch.tensor([[1.0, 0.5, -2.0]]))
    tensor([[ 1.0000, -1.5000]])
    """

    columns: tuple[Column, ...]
    name: ClassVar[str] = "table"
    thing: ClassVar[str] = "column"

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a table needs columns")
        names = [column.name for column in self.columns]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two columns are called {doubled[0]!r}; give every column its own name")

    def __repr__(self) -> str:
        names = [repr(column.name) for column in self.columns]
        shown = names if len(names) <= 6 else [*names[:3], "...", names[-1]]
        return f"TableKind({len(names)} column{'s' * (len(names) != 1)}: {', '.join(shown)})"

    @property
    def places(self) -> list[slice]:
        """Every column's entries."""
        found, start = [], 0
        for column in self.columns:
            found.append(slice(start, start + column.entries))
            start += column.entries
        return found

    @property
    def entries(self) -> int:
        """The length of a row."""
        return sum(column.entries for column in self.columns)

    def check(self, inputs: Tensor) -> None:
        """Raises ValueError for another shape than [B, E]."""
        if inputs.dim() != 2 or inputs.shape[1] != self.entries:
            raise ValueError(
                f"rows have shape {tuple(inputs.shape)}, and the {len(self.columns)} columns take {self.entries} entries: "
                f"pass [B, {self.entries}], or name the columns that there are"
            )

    def things(self, maps: Tensor) -> Tensor:
        """[..., E] -> [..., columns]."""
        if maps.shape[-1:] != (self.entries,):
            raise ValueError(
                f"a map of shape {tuple(maps.shape)} has not the {self.entries} entries of the table's rows"
            )
        return torch.stack([maps[..., place].sum(-1) for place in self.places], -1)

    def positive(self, maps: Tensor) -> Tensor:
        """max(sum over a column's entries, 0), divided among them in proportion to their positive parts."""
        found = maps.clamp(min=0)
        for place in self.places:
            if place.stop - place.start > 1:
                found[..., place] = _share_out(maps[..., place])
        return found

    def lacks(self, x: Tensor, reference: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Where x stands below the reference; of a categorical column all its entries, where the category differs."""
        del empty
        below = x < reference
        for column, place in zip(self.columns, self.places, strict=True):
            if column.categories:
                below[..., place] = (x[..., place] != reference[..., place]).any(-1, keepdim=True)
        return below

    def to_dict(self) -> dict[str, Any]:
        """The columns."""
        return {
            "kind": self.name,
            "columns": [vars(column) | {"categories": list(column.categories)} for column in self.columns],
        }


@dataclass(frozen=True, eq=False)
class TextKind(Kind):
    """Token ids [B, T]; maps at their embedding [B, T, D], or [B, T].

    Missing is a token that the reference has at its place and the text has not. Padding and special tokens are never
    evidence.

    Attributes:
        words: the token that every id stands for, as it is shown; an id that is not named is shown as its number.
        special: ids of padding, class, separator and mask tokens.

    >>> kind = TextKind({0: "", 1: "not", 2: "good"}, special=(0,))
    >>> kind.lacks(torch.tensor([[0, 2]]), torch.tensor([[1, 2]]))
    tensor([[ True, False]])
    """

    words: Mapping[int, str]
    special: tuple[int, ...] = ()
    name: ClassVar[str] = "text"
    thing: ClassVar[str] = "token"

    def check(self, inputs: Tensor) -> None:
        """Raises ValueError for another shape than [B, T], or values that are no ids."""
        if inputs.dim() != 2 or inputs.is_floating_point():
            raise ValueError(f"texts are token ids [B, T] of an integer type, got {inputs.dtype} {tuple(inputs.shape)}")

    def is_special(self, ids: Tensor) -> Tensor:
        """Which ids are padding or special tokens, boolean, shaped like them."""
        return torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype, device=ids.device))

    def tokens(self, ids: Tensor) -> list[str]:
        """The tokens of one text [T]. A character of several bytes, each "<0xE4>", stands at the first of them.

        >>> TextKind({0: "<0xE6><0x9C>", 1: "<0xAC>"}).tokens(torch.tensor([0, 1, 1]))
        ['本', '‥', '\ufffd']
        """
        return join_bytes([self.words.get(number, f"[{number}]") for number in ids.tolist()])

    def things(self, maps: Tensor) -> Tensor:
        """[B, T, D] -> [B, T]; [B, T] stays."""
        return maps if maps.dim() == 2 else maps.sum(-1)

    def positive(self, maps: Tensor) -> Tensor:
        """max(sum over a token's embedding, 0), divided among its entries in proportion to their positive parts."""
        return maps.clamp(min=0) if maps.dim() == 2 else _share_out(maps)

    def lacks(self, x: Tensor, reference: Tensor, empty: Tensor | float = 0.0) -> Tensor:
        """Where the reference has another token than x, one that is not special."""
        del empty
        return (x != reference) & ~self.is_special(reference)

    def to_dict(self) -> dict[str, Any]:
        """The words and the special ids."""
        return {"kind": self.name, "words": {str(k): v for k, v in self.words.items()}, "special": list(self.special)}


@dataclass(frozen=True, eq=False)
class SignalKind(Kind):
    """Signals [B, C, T] or [B, T]: an event at a time is missing where the reference is further from ``empty``.

    Attributes:
        rate: samples per second; None: time is counted in samples.
        channels: a name each; (): numbers.
        unit: of the values.

    >>> SignalKind(rate=100.0).times(3)
    tensor([0.0000, 0.0100, 0.0200], dtype=torch.float64)
    """

    rate: float | None = None
    channels: tuple[str, ...] = ()
    unit: str = ""
    name: ClassVar[str] = "signal"
    thing: ClassVar[str] = "span"

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"rate={self.rate} must be a positive number of samples per second")

    def times(self, length: int) -> Tensor:
        """The time of every sample in seconds (without a rate: its number), float64 [T]."""
        return torch.arange(length, dtype=torch.float64) / (self.rate or 1.0)

    def check(self, inputs: Tensor) -> None:
        """Raises ValueError for another shape than [B, C, T] or [B, T], or another number of channels than names."""
        if inputs.dim() not in (2, 3):
            raise ValueError(f"signals have shape {tuple(inputs.shape)}; they must be [B, C, T] or [B, T]")
        count = inputs.shape[1] if inputs.dim() == 3 else 1
        if self.channels and len(self.channels) != count:
            raise ValueError(
                f"{len(self.channels)} names for {count} channels: {', '.join(self.channels)}; pass one each"
            )

    def things(self, maps: Tensor) -> Tensor:
        """[B, C, T] -> [B, T], the sum over channels; [B, T] stays."""
        return maps.sum(-2) if maps.dim() == 3 else maps

    def to_dict(self) -> dict[str, Any]:
        """All attributes."""
        return {"kind": self.name, "rate": self.rate, "channels": list(self.channels), "unit": self.unit}


@dataclass(frozen=True, eq=False)
class VolumeKind(Kind):
    """Volumes [B, C, D, H, W] or [B, D, H, W]: a region is missing where the reference is further from ``empty``.

    Attributes:
        spacing: the size of a voxel along depth, height and width; None: counted in voxels.
        axes: what the three axes are called.
        unit: of ``spacing``.

    >>> VolumeKind().things(torch.ones(1, 2, 1, 1, 1))
    tensor([[[[2.]]]])
    """

    spacing: tuple[float, float, float] | None = None
    axes: tuple[str, str, str] = ("depth", "height", "width")
    unit: str = "mm"
    name: ClassVar[str] = "volume"
    thing: ClassVar[str] = "region"

    def __post_init__(self) -> None:
        if self.spacing is not None and (
            len(self.spacing) != 3 or not all(0 < size < float("inf") for size in self.spacing)
        ):
            raise ValueError(f"spacing={self.spacing} must be three positive sizes of a voxel")

    def check(self, inputs: Tensor) -> None:
        """Raises ValueError for another shape than [B, C, D, H, W] or [B, D, H, W]."""
        if inputs.dim() not in (4, 5):
            raise ValueError(f"volumes have shape {tuple(inputs.shape)}; they must be [B, C, D, H, W] or [B, D, H, W]")

    def things(self, maps: Tensor) -> Tensor:
        """[B, C, D, H, W] -> [B, D, H, W], the sum over channels; [B, D, H, W] stays."""
        return maps.sum(-4) if maps.dim() == 5 else maps

    def to_dict(self) -> dict[str, Any]:
        """All attributes."""
        spacing = None if self.spacing is None else list(self.spacing)
        return {"kind": self.name, "spacing": spacing, "axes": list(self.axes), "unit": self.unit}


def split_evidence(
    signed: Tensor, x: Tensor, reference: Tensor, empty: Tensor | float, kind: Kind | None
) -> tuple[Tensor, Tensor]:
    """The map where x has what the reference has, and where it lacks it, by the kind's own measure; None: pixels.

    >>> split_evidence(torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1, 1), 0.0, TableKind((Column("age"),)))[1]
    tensor([[1.]])
    """
    absent = absence_part(x, reference, empty) if kind is None else kind.lacks(x, reference, empty)
    return split_by_mask(signed, absent)


def sum_positive(signed: Tensor, kind: Kind | None) -> Tensor:
    """Positive evidence >= 0 by :meth:`Kind.positive`; None: of every entry."""
    return signed.clamp(min=0) if kind is None else kind.positive(signed)


def keep_compared(references: Any, x: Tensor, drawn: Tensor | None) -> dict[str, Any]:
    """What an :class:`~absence_plugins.Explanation` keeps, as its map cannot be read without: the ``kind`` of a
    ReferenceSet, the ``inputs`` [B, ...] and their ``references`` [B, k, ...]; nothing of pixels.
    """
    kind = getattr(references, "kind", None)
    return {} if kind is None else {"kind": kind, "inputs": x, "references": drawn}


def kind_from_dict(saved: Mapping[str, Any]) -> Kind:
    """The kind that :meth:`Kind.to_dict` wrote.

    Raises:
        ValueError: no such kind.

    >>> kind_from_dict(SignalKind(rate=2.0).to_dict())
    SignalKind(rate=2.0, channels=(), unit='')
    """
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for name, v in saved.items()
    }
    name = values.pop("kind", None)
    if name == "table":
        return TableKind(tuple(Column(**{**one, "categories": tuple(one["categories"])}) for one in saved["columns"]))
    if name == "text":
        return TextKind({int(k): v for k, v in saved["words"].items()}, tuple(saved["special"]))
    if name == "signal":
        return SignalKind(**values)
    if name == "volume":
        return VolumeKind(**values)
    raise ValueError(f"{name!r} is no kind of data; there are table, text, signal, volume")


_BYTE = re.compile(r"<0x([89A-Fa-f][0-9A-Fa-f])>")  # above ASCII: part of a character


def join_bytes(words: Sequence[str]) -> list[str]:
    """Words in which bytes "<0xE4>" that form a character together are that character, at the first one's word.

    What is left of the other words is "‥"; bytes that form none are the replacement character.
    """
    pieces = [
        (at, piece) for at, word in enumerate(words) for piece in re.split(r"(<0x[0-9A-Fa-f]{2}>)", word) if piece
    ]
    found, place = [""] * len(words), 0
    while place < len(pieces):
        at, piece = pieces[place]
        run = []
        for _, other in pieces[place : place + 4]:
            if not _BYTE.fullmatch(other):
                break
            run.append(int(other[3:5], 16))
        length, letter = _first_letter(bytes(run)) if run else (1, piece)
        found[at] += letter
        place += length
    return [text or ("‥" if word else word) for text, word in zip(found, words, strict=True)]


def _first_letter(coded: bytes) -> tuple[int, str]:
    """How many bytes the first character takes, and which it is."""
    for length in range(2, len(coded) + 1):
        try:
            return length, coded[:length].decode()
        except UnicodeDecodeError:
            continue
    return 1, "\ufffd"


def _share_out(maps: Tensor) -> Tensor:
    """max(sum over the last axis, 0), divided in proportion to the positive parts."""
    positive = maps.clamp(min=0)
    gross = positive.sum(-1, keepdim=True)
    return positive * (maps.sum(-1, keepdim=True).clamp(min=0) / torch.where(gross > 0, gross, 1))

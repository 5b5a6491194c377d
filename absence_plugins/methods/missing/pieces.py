"""What is inserted at once: pixels, cells, regions, columns, tokens, spans; and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from absence_plugins.core.checks import check_integer
from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind
from absence_plugins.core.maps import absence_part

MOST = 4096  # pieces; more are no question that forwards can answer
Paste = Literal["content", "all"]
PASTES: tuple[Paste, ...] = ("content", "all")


@dataclass(frozen=True, eq=False)
class Pieces:
    """An input's places, cut into pieces.

    Attributes:
        labels: the piece of every place, int64, of the input's shape without its channels: [H, W] of an image, [E] of a
            row, [T] of a text or a signal, [D, H, W] of a volume.
        thing: what one is called.
        kind: of data; None: pixels, or plain features.
    """

    labels: Tensor
    thing: str
    kind: Kind | None = None

    def expand(self, x: Tensor) -> Tensor:
        """The piece of every entry of x [1, ...]: [...]."""
        return self.labels.expand(x.shape[1:])

    def name(self, label: int, x: Tensor, reference: Tensor) -> str:
        """What a piece is called; of tables and texts, what stands there and in the reference. Both [1, ...]."""
        if isinstance(self.kind, TableKind) and self.thing == self.kind.thing:
            column, place = self.kind.columns[label], self.kind.places[label]
            return f"{column.name} ({column.says(x[0, place])}, there {column.says(reference[0, place])})"
        where = (self.labels == label).nonzero()
        first = where[0].tolist()
        if isinstance(self.kind, TextKind) and self.thing == self.kind.thing:
            here, there = (self.kind.tokens(one[0, first[0]][None])[0] for one in (x, reference))
            return f"{there!r} in place of {here!r} at {first[0]}"
        if isinstance(self.kind, SignalKind):
            times = self.kind.times(len(self.labels) + 1)
            unit = " s" if self.kind.rate else ""
            return f"{float(times[first[0]]):.4g} to {float(times[int(where[-1]) + 1]):.4g}{unit}"
        if self.thing in ("region", "entry", "place"):
            return f"{self.thing} {label}"
        return f"{self.thing} at ({', '.join(map(str, first))})"


def cut_pieces(x: Tensor, pieces: int | Tensor | Kind | None = None, kind: Kind | None = None) -> Pieces:
    """Cut an input x [1, ...] into pieces.

    Args:
        x: one input with its batch axis.
        pieces: None: columns of a table, tokens of a text, samples of a signal, voxels, pixels, features, each on its
            own. A number: cells of that side (spans of that length in a signal). Integer labels of every place, such as
            :func:`~absence_plugins.methods.regions.segment` gives. Or a kind of data.
        kind: of data.

    Raises:
        TypeError, ValueError: what is none of these; labels of another shape; more pieces than 4096.

    >>> cut_pieces(torch.zeros(1, 3, 4, 4), 2).labels.tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    if isinstance(pieces, Kind):
        kind, pieces = pieces, None
    if kind is not None:
        kind.check(x)
    shape = _places(x, kind)
    if isinstance(pieces, Tensor):
        labels, thing = _checked(pieces, shape), "region"
    elif pieces is not None:
        side = check_integer("pieces", pieces)
        if len(shape) == 1 and not isinstance(kind, SignalKind) and x.dim() == 2:
            raise ValueError(
                f"pieces={pieces!r} is the side of cells of an image, a volume or a signal; of vectors leave it out, or "
                "pass the piece of every entry as integers"
            )
        labels, thing = _cells(shape, side), "span" if len(shape) == 1 else "cell"
    elif isinstance(kind, TableKind):
        counts = torch.tensor([column.entries for column in kind.columns])
        labels, thing = torch.arange(len(counts)).repeat_interleave(counts), kind.thing
    else:
        labels, thing = torch.arange(int(torch.tensor(shape).prod())).view(shape), _single(x, shape, kind)
    count = len(torch.unique(labels))
    if count > MOST:
        raise ValueError(
            f"the input has {count} {plural(thing)}, more than {MOST}; pass larger pieces: the side of cells "
            "(pieces=16), or labels of regions (pieces=segment(image) of absence_plugins.methods.regions)"
        )
    return Pieces(labels.to(x.device), thing, kind)


def find_allowed(
    base: Tensor, source: Tensor, paste: Paste, kind: Kind | None, empty: Tensor | float, pieces: Pieces
) -> Tensor:
    """Which entries of ``base`` [1, ...] are replaced by those of ``source`` once their piece is in: boolean [...].

    "content": where the source has content that the base lacks, by the kind's own measure (a pixel changes in all its
    channels); "all": wherever they differ.

    >>> one, other = torch.tensor([[0.0, 5.0, 2.0]]), torch.tensor([[1.0, 0.0, 2.0]])
    >>> find_allowed(one, other, "content", None, 0.0, cut_pieces(one))
    tensor([ True, False, False])
    """
    differs = (base != source)[0]
    if paste == "all":
        return differs
    if kind is None and not base.is_floating_point():
        raise ValueError(
            f"inputs of type {base.dtype} have no content that can be measured; pass a ReferenceSet with kind= (a "
            "TextKind of token ids), or paste='all'"
        )
    lacking = absence_part(base, source, empty)[0] if kind is None else kind.lacks(base, source, empty)[0]
    channels = lacking.dim() - pieces.labels.dim()
    if channels:
        lacking = lacking.any(0, keepdim=True).expand_as(lacking)
    return lacking & differs


def plural(thing: str, count: int = 2) -> str:
    """The word for so many pieces.

    >>> plural("entry"), plural("pixel", 1)
    ('entries', 'pixel')
    """
    if count == 1:
        return thing
    return f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"


def _places(x: Tensor, kind: Kind | None) -> tuple[int, ...]:
    """The shape of the places: without the batch and the channels."""
    if isinstance(kind, (TableKind, TextKind)) or x.dim() == 2:
        return tuple(x.shape[1:])
    if kind is not None and kind.name == "volume" and x.dim() == 4:
        return tuple(x.shape[1:])
    return tuple(x.shape[2:])


def _single(x: Tensor, shape: tuple[int, ...], kind: Kind | None) -> str:
    if kind is not None:
        return "voxel" if kind.name == "volume" else kind.thing
    if not x.is_floating_point():
        return "place"
    return {1: "entry", 2: "pixel"}.get(len(shape), "voxel") if x.dim() != 3 else "sample"


def _checked(labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"pieces are labels of type {labels.dtype}; they must be integers, one per place")
    if tuple(labels.shape) != shape:
        raise ValueError(
            f"pieces have shape {tuple(labels.shape)}, the places of the input {shape}; pass one label each"
        )
    return labels.detach().long()


def _cells(shape: tuple[int, ...], side: int) -> Tensor:
    """Row-major numbers of cells."""
    labels = torch.zeros(shape, dtype=torch.long)
    for axis, size in enumerate(shape):
        number = torch.arange(size) // side
        labels = labels * (-(-size // side)) + number.view(-1, *[1] * (len(shape) - axis - 1))
    return labels

"""What a set of columns, tokens, samples or voxels is called."""

from __future__ import annotations

import torch  # noqa: F401  (examples)
from torch import Tensor

from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.core.printable import make_printable

FEW = 4  # columns or tokens that a name lists


def name_thing(kind: Kind, where: Tensor, x: Tensor, reference: Tensor) -> tuple[str, str]:
    """What the things ``where`` of a sample are called, and what is replaced by what ("" of signals and volumes).

    >>> kind = TextKind({0: "not", 1: "very", 2: "good"})
    >>> name_thing(kind, torch.tensor([True, False]), torch.tensor([1, 2]), torch.tensor([0, 2]))
    ("'not'", "'very' -> 'not'")
    >>> name_thing(SignalKind(rate=100.0), torch.arange(8) > 5, torch.zeros(8), torch.ones(8))
    ('0.06 to 0.08 s', '')
    """
    chosen = where.nonzero()
    if not len(chosen):
        return f"no {kind.thing}", ""
    if isinstance(kind, TableKind):
        return _name_columns(kind, chosen.flatten().tolist(), x, reference)
    if isinstance(kind, TextKind):
        places = chosen.flatten()
        texts = [_quote(kind.tokens(ids[places])) for ids in (x, reference)]
        return texts[1], " -> ".join(texts)
    if isinstance(kind, SignalKind):
        return _name_span(kind, chosen.flatten()), ""
    low, high = chosen.amin(0).tolist(), chosen.amax(0).tolist()
    axes = kind.axes if isinstance(kind, VolumeKind) else ("depth", "height", "width")
    return ", ".join(f"{a} {_range(i, j)}" for a, i, j in zip(axes, low, high, strict=True)), ""


def _name_columns(kind: TableKind, numbers: list[int], x: Tensor, reference: Tensor) -> tuple[str, str]:
    columns = [(kind.columns[number], kind.places[number]) for number in numbers]
    name = _list([make_printable(column.name, "") for column, _ in columns])
    replaced = [f"{column.says(x[place])} -> {column.says(reference[place])}" for column, place in columns]
    return name, make_printable(_list(replaced), "")


def _name_span(kind: SignalKind, places: Tensor) -> str:
    """From the first sample to the end of the last one."""
    start, end = int(places[0]), int(places[-1])
    if kind.rate is None:
        return f"samples {_range(start, end)}"
    return f"{start / kind.rate:.4g} to {(end + 1) / kind.rate:.4g} s"


def _quote(tokens: list[str]) -> str:
    return _list([f"'{make_printable(token, '')}'" for token in tokens], " ")


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _list(words: list[str], between: str = ", ") -> str:
    if len(words) <= FEW:
        return between.join(words)
    return f"{between.join(words[: FEW - 1])}{between}... ({len(words)})"

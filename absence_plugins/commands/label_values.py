"""``absence-plugins label --values FILE``: names for units whose values lie in a file; no images, no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.commands.kinds.read_rows import Rows, is_missing, is_number, read_number_cells, read_rows
from absence_plugins.commands.label import LayerLabels, write_labels
from absence_plugins.commands.label_samples import Samples
from absence_plugins.core.files import require_folder
from absence_plugins.core.names import spell_name
from absence_plugins.core.units import LayerShape
from absence_plugins.data.folders import list_names
from absence_plugins.data.tables import FALSE, MINUS, TRUE
from absence_plugins.methods.batches import Batches

MOST_VALUES = 50  # of a column of text, each of which becomes a concept
ABSENT, UNKNOWN = "absent", "unknown"  # what -1 may mean
LISTED = 12


@dataclass(frozen=True, eq=False)
class Matrix:
    """A file of numbers with a row per sample.

    Attributes:
        values: [N, columns], NaN where a cell is empty.
        names: of the columns.
        keys: of the rows, where the file has some; else ().
        source: the file's name.
    """

    values: Tensor
    names: tuple[str, ...]
    keys: tuple[str, ...]
    source: str


def run_label_values(
    values: Path,
    labels: Path,
    out: Path,
    *,
    minus: str = "auto",
    seed: int = 0,
    command: str = "",
    progress: bool = True,
    **options: Any,
) -> LayerLabels:
    """Name every column of a file of values by the concepts of a table of labels; writes what ``label`` writes.

    Args:
        values: ``.npy`` [N, units] (or [N]), or a table with a header and a column per unit.
        labels: a table with a header and a column per concept, with 1 and 0 (blank is unknown), or text whose values
            become a concept each; or ``.npy`` [N, K]. Rows are those of ``values``: by the keys of a first column of
            text that both have, else in order.
        out: the folder.
        minus: what -1 means among labels, "absent" or "unknown"; "auto" rejects it.
        seed: of the split.
        command: for the page's foot.
        progress: show a bar.
        options: of ``label_units``.

    Raises:
        ValueError: files that do not fit each other, cells that are no numbers or no truths, no concept that varies.
    """
    out = require_folder(out)
    read = _read_values(values)
    concepts = _read_concepts(labels, minus, has_keys=bool(read.keys))
    order, how = _align(read, concepts)
    truth = concepts.values[order]
    filled = [column[~column.isnan()] for column in truth.T]
    kept = [k for k, column in enumerate(filled) if len(column) and bool((column != column[0]).any())]
    if not kept:
        raise ValueError(
            f"no concept of {concepts.source} is present on some of the {len(order)} samples and absent on others"
        )
    left_out = [spell_name(name) for k, name in enumerate(concepts.names) if k not in kept]
    note = f"; left out, as the same for all: {list_names(left_out, LISTED)}" if left_out else ""
    samples = Samples(
        Batches(len(order), 1, _no_batches),
        None,
        truth[:, kept],
        tuple(concepts.names[k] for k in kept),
        f"{len(order):,} rows of {read.source}, {len(kept)} concepts of {concepts.source}, {how}{note}",
        noun="samples",
        unit_names=read.names,
    )
    shape = LayerShape(read.source, read.values.shape[1], (), "output", "mean")
    found = write_labels(read.values, samples, shape, (), out, seed=seed, command=command, progress=progress, **options)
    return replace(found, page=found.page.resolve())


def _no_batches(wanted: Sequence[range]) -> Iterator[Tensor]:
    raise ValueError("values that lie in a file have no batches of images")


def _load(path: Path, option: str) -> Tensor:
    shown = spell_name(path)
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{option} {shown} is no array that numpy.save wrote: {str(error).splitlines()[0]}") from None
    if (
        not isinstance(found, np.ndarray)
        or found.dtype.kind not in "fiub"
        or found.ndim not in (1, 2)
        or not found.size
    ):
        got = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
        raise ValueError(f"{option} {shown} holds {got}; it must be an array of numbers [N, columns], or [N]")
    array = torch.from_numpy(found.astype(np.float64))
    return array[:, None] if array.dim() == 1 else array


def _read_values(path: Path) -> Matrix:
    shown = spell_name(path)
    if path.suffix.lower() == ".npy":
        values = _load(path, "--values")
        names: tuple[str, ...] = ()
        keys: tuple[str, ...] = ()
    else:
        rows = read_rows(path)
        keys, names = _split_keys(rows)
        if not names:
            raise ValueError(f"--values {shown} has no column of numbers")
        values = torch.tensor(
            [[float("nan") if one is None else one for one in read_number_cells(rows, name)] for name in names],
            dtype=torch.float64,
        ).T
    wrong = (~torch.isfinite(values)).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        where = spell_name(names[column]) if names else str(column)
        raise ValueError(
            f"--values {shown}: row {row} of column {where} is empty, NaN or infinite; fill it in, or leave the row out"
        )
    return Matrix(values, tuple(names), tuple(keys), shown)


def _split_keys(rows: Rows) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of a first column of text, all different; and the names of the other columns."""
    first = rows.column(rows.names[0])
    is_key = (
        len(rows.names) > 1
        and len(set(first)) == len(first)
        and not all(is_number(cell) or is_missing(cell) for cell in first)
    )
    return (tuple(first), rows.names[1:]) if is_key else ((), rows.names)


def _read_concepts(path: Path, minus: str, *, has_keys: bool) -> Matrix:
    shown = spell_name(path)
    if path.suffix.lower() == ".npy":
        values = _load(path, "--labels")
        if not bool(((values == 0) | (values == 1) | values.isnan()).all()):
            wrong = values[~((values == 0) | (values == 1) | values.isnan())][0]
            raise ValueError(f"--labels {shown} holds {float(wrong):g}; labels are 0, 1, or NaN where unknown")
        return Matrix(values, tuple(f"concept {k}" for k in range(values.shape[1])), (), shown)
    rows = read_rows(path)
    keys, names = _split_keys(rows) if has_keys else ((), rows.names)
    columns: dict[str, list[float]] = {}
    for name in names:
        columns.update(_read_concept(rows, name, minus))
    return Matrix(torch.tensor(list(columns.values()), dtype=torch.float64).T, tuple(columns), keys, shown)


def _read_concept(rows: Rows, name: str, minus: str) -> dict[str, list[float]]:
    """A column of truths as one concept; one of text as a concept per value."""
    cells = rows.column(name)
    truths: list[float] = []
    for row, cell in enumerate(cells):
        word = cell.lower()
        if word in MINUS and minus == "auto":
            raise ValueError(f"{rows.place(row, name)}: -1 may mean absent or unknown; say --labels-minus")
        if word in TRUE:
            truths.append(1.0)
        elif word in FALSE or (word in MINUS and minus == ABSENT):
            truths.append(0.0)
        elif is_missing(cell) or word in MINUS or word == UNKNOWN:
            truths.append(float("nan"))
        elif is_number(cell):
            raise ValueError(f"{rows.place(row, name)}: {cell} is no truth; labels are 0 and 1, or text")
        else:
            break
    if len(truths) == len(cells):
        return {name: truths}
    values = sorted({cell for cell in cells if not is_missing(cell)})
    if len(values) > MOST_VALUES:
        raise ValueError(
            f"{spell_name(rows.path)}: the column {spell_name(name)!r} has {len(values)} different texts, too many "
            "for concepts; leave "
            "it out (keys of the rows must stand in the first column of both files)"
        )
    nan = float("nan")
    return {
        f"{name} {value}": [nan if is_missing(cell) else float(cell == value) for cell in cells] for value in values
    }


def _align(values: Matrix, concepts: Matrix) -> tuple[list[int], str]:
    """Which row of the labels belongs to every row of the values, and how that was told."""
    count, other = len(values.values), len(concepts.values)
    if values.keys and concepts.keys:
        places = {key: place for place, key in enumerate(concepts.keys)}
        lacking = [spell_name(key) for key in values.keys if key not in places]
        if lacking:
            raise ValueError(
                f"{concepts.source} has no row of {list_names(lacking)}, which {values.source} has in its first column"
            )
        return [places[key] for key in values.keys], "matched by the first column"
    if count != other:
        raise ValueError(
            f"{values.source} has {count} rows and {concepts.source} {other}; they must be the same samples in the "
            "same order, or "
            "have their names in a first column"
        )
    return list(range(count)), "in the order of the rows"

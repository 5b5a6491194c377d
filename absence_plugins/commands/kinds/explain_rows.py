"""``absence-plugins explain ROWS.csv --table``: rows of a table against the nearest rows of another class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from absence_plugins import TableSpace
from absence_plugins.commands.kinds.asked import Asked
from absence_plugins.commands.kinds.finding import Finding
from absence_plugins.commands.kinds.models import KindModel, load_kind_model
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.pool import Pool, make_pool
from absence_plugins.commands.kinds.read_rows import SHOWN, Rows, is_missing, read_rows, require_columns
from absence_plugins.commands.kinds.row_inputs import DROP, RowInputs, drop_gaps, make_inputs
from absence_plugins.commands.kinds.tensor_samples import TensorSamples
from absence_plugins.commands.kinds.walk import ExplainedSamples, explain_samples
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.column_words import read_columns
from absence_plugins.core.names import spell_name
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.core.places import describe_place
from absence_plugins.data.folders import list_names

K = 8  # references per row
SAID = 3  # columns in sentences
TITLE = "What a row has, and what it lacks"
FEW = 0.6  # the model should give so many references their label, where they have one


def explain_rows(options: KindOptions) -> ExplainedSamples:
    """Explain rows of a table.

    Raises:
        ValueError: a file that is no table with a header, columns that the references or the model's preprocessing
            lack, cells that are empty or no numbers, a model of another number of inputs, classes that do not exist.
    """
    rows, references = read_rows(options.file), None
    if options.references is not None:
        references = read_rows(options.references)
    names = _input_columns(rows, references, options.label)
    loaded = load_kind_model(options.model, options.weights, "table", options.classes)
    if options.missing == DROP:
        taken = [name for name in names if name in rows.names]
        rows = drop_gaps(rows, taken)
        references = None if references is None else drop_gaps(references, [n for n in taken if n in references.names])
    made = make_inputs(
        rows,
        references,
        names,
        preprocessing=loaded.preprocessing,
        categories=options.categories,
        missing=options.missing,
    )
    chosen, said = options.choose(rows.numbers, "row")
    compared = rows if references is None else references
    inputs, others = loaded.fit(made.encode(rows.take(chosen))).cpu(), loaded.fit(made.encode(compared)).cpu()
    check_width(loaded, inputs[:1], made)
    outputs = loaded.read(others)
    pool = _make_pool(compared, outputs, loaded, options, is_own=references is None)
    asked = Asked.read(loaded, outputs.shape[1], options, K)
    samples = TensorSamples(
        loaded,
        made.kind,
        "row",
        inputs,
        tuple(f"Row {number}" for number in rows.take(chosen).numbers),
        pool,
        others,
        asked,
        space=TableSpace(made.kind, others),
        own=tuple(chosen) if references is None else (),
        describe=describe_row,
    )
    notes = [*loaded.notes, *made.notes, *pool.notes, *said]
    files = [*rows.notes, *(references.notes if references is not None else ())]
    for note in files:
        warnings.warn(note, AbsenceWarning, stacklevel=2)
    return explain_samples(samples, options, title=TITLE, notes=[*notes, *(f"{note}." for note in files)])


def _input_columns(rows: Rows, references: Rows | None, label: str | None) -> tuple[str, ...]:
    """The columns that are inputs, in the order of the references.

    Raises:
        ValueError: the label is in no file; columns that one of the files lacks.
    """
    known = rows if references is None else references
    if label is not None and label not in known.names:
        raise ValueError(
            f"--label {spell_name(label)!r}: {spell_name(known.path)} has no such column; it has: "
            f"{describe_nearest(label, map(spell_name, known.names))}"
        )
    names = tuple(name for name in known.names if name != label)
    if references is not None:
        require_columns(
            references, [name for name in rows.names if name != label], f"columns of {spell_name(rows.path)}"
        )
        extra = [name for name in names if name not in rows.names]
        if extra:
            hint = "; if it holds the class, say --label" if label is None and len(extra) == 1 else ""
            raise ValueError(
                f"{spell_name(rows.path)} lacks {len(extra)} of the columns of {spell_name(references.path)}: "
                f"{list_names(list(map(spell_name, extra)), SHOWN)}{hint}"
            )
    if not names:
        raise ValueError(f"{spell_name(known.path)} has no column beside the label")
    return names


def check_width(loaded: KindModel, row: Tensor, made: RowInputs) -> None:
    """Raise ValueError where the model does not take rows of so many entries, naming the columns.

    row: [1, E].
    """
    try:
        loaded.read(row)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if describe_place(error) and not isinstance(error, RuntimeError):
            raise
        columns = made.kind.columns
        wide = [f"{spell_name(column.name)} ({column.entries})" for column in columns if column.entries > 1]
        of = f", of which these take several: {list_names(wide, SHOWN)}" if wide else ""
        first = next((one for one in loaded.model.modules() if isinstance(one, nn.Linear)), None)
        takes = (
            f"; its first layer takes {first.in_features}"
            if first is not None and first.in_features != row.shape[1]
            else ""
        )
        why = str(error).strip().splitlines()[0]
        listed = list_names([spell_name(column.name) for column in columns], SHOWN)
        raise ValueError(
            f"the model cannot take rows of {row.shape[1]} entries, from {len(columns)} columns "
            f"({listed})"
            f"{of}{takes}: {why}. A column that is no input must not be in the file (--label names that of the class); "
            "a factory may return (model, columns)"
        ) from None


def _make_pool(compared: Rows, outputs: Tensor, loaded: KindModel, options: KindOptions, *, is_own: bool) -> Pool:
    labels = None
    if options.label is not None:
        labels = ["" if is_missing(cell) else cell for cell in compared.column(options.label)]
    shown = spell_name(compared.path)
    names = [f"row {number} of {shown}" for number in compared.numbers]
    source = f"{len(compared)} rows of {shown}"
    pool = make_pool(loaded, outputs, names, labels, source, is_own=is_own)
    agree = float((pool.labels == pool.predicted)[pool.is_named].double().mean()) if bool(pool.is_named.any()) else 1.0
    if agree < FEW:
        said = (
            f"the model gives only {agree:.0%} of the references their label; were its inputs scaled? A factory may "
            "return "
            "(model, scaler), see docs/how-to/rows-texts-signals.md"
        )
        warnings.warn(said, AbsenceWarning, stacklevel=3)
        pool = replace(pool, notes=(*pool.notes, f"{said[0].upper()}{said[1:]}."))
    if options.references is None:
        said = f"No --references: each row is compared with the other rows of {shown}."
        pool = replace(pool, notes=(said, *pool.notes))
    return pool


def describe_row(found: Finding) -> Sequence[str]:
    """Sentences on the strongest columns of a row."""
    columns = read_columns(found.kind, found.signed, found.x, found.references, found.legend)  # type: ignore[arg-type]
    return [f"{spell_name(str(one))}." for one in columns[:SAID] if one.effect]

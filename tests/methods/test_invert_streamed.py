"""Activations and labels that are read in parts: the same results as in memory, and never a copy of everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.invert import PackedConcepts, label_units
from absence_plugins.methods.invert import digits as digits_module
from absence_plugins.methods.invert import reading as reading_module
from absence_plugins.methods.invert import units as units_module
from absence_plugins.methods.invert.bits import Bits, merge_words
from absence_plugins.methods.invert.digits import multiply_digits, split_digits
from absence_plugins.methods.invert.reading import read_labels

NAMES = [f"c{k}" for k in range(11)]
QUICK: dict[str, Any] = {"length": 2, "search": "beam", "progress": False}


def draw(seed: int = 0, samples: int = 203) -> tuple[np.ndarray, np.ndarray]:
    """Activations [N, 7] with ties, labels [N, 11] bool."""
    rng = np.random.default_rng(seed)
    labels = rng.random((samples, len(NAMES))) < rng.uniform(0.2, 0.7, len(NAMES))
    labels[:, 5] = ~labels[:, 4]
    values = labels @ rng.normal(size=(len(NAMES), 7)) + rng.normal(size=(samples, 7))
    return np.round(values, 2).astype(np.float32), labels


def on_disk(folder: Path, array: np.ndarray, mode: str = "r") -> np.ndarray:
    np.save(folder / "array.npy", array)
    return np.load(folder / "array.npy", mmap_mode=mode)  # type: ignore[arg-type]


class Counting:
    """An array with shape, dtype and slices, as h5py has; it counts what is read at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read: list[int] = []

    def __getitem__(self, index: Any) -> np.ndarray:
        found = self.array[index]
        self.read.append(found.size)
        return found


def sparse(labels: np.ndarray, _: Path) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix(labels)


FORMS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "mapped": lambda labels, folder: on_disk(folder, labels),
    "mapped uint8": lambda labels, folder: on_disk(folder, labels.astype(np.uint8)),
    "tensor": lambda labels, _: torch.from_numpy(labels.astype(np.int64)),
    "packed": lambda labels, _: PackedConcepts(np.packbits(labels, axis=1), labels.shape[1]),
    "packed, mapped": lambda labels, folder: PackedConcepts(
        on_disk(folder, np.packbits(labels, axis=1)), labels.shape[1]
    ),
    "function": lambda labels, _: lambda first, last: labels[first:last],
    "iterator": lambda labels, _: iter(np.array_split(labels, 6)),
    "dataset": lambda labels, _: Counting(labels),
    "sparse": sparse,
}


@pytest.mark.parametrize(("form", "mode"), [*((form, "positive") for form in FORMS), ("mapped", "negative")])
def test_labels_read_in_parts_give_the_same(
    form: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, labels = draw()
    options = QUICK | {"mode": mode}
    wanted = label_units(values, labels, NAMES, **options)
    monkeypatch.setattr(reading_module, "ENTRIES", 500)
    given = FORMS[form](labels, tmp_path)
    assert label_units(values, given, NAMES, **options).to_dict() == wanted.to_dict()
    if isinstance(given, Counting):
        assert max(given.read) <= 500
        assert sum(given.read) == labels.size  # each label is read once


@pytest.mark.parametrize(("score", "groups"), [("auc", None), ("f1", np.arange(203) // 3), ("correlation", None)])
def test_unknown_labels_and_groups_are_read_in_parts(
    groups: np.ndarray | None, score: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, labels = draw(1)
    unknown = labels.astype(np.float32)
    unknown[100:][np.random.default_rng(2).random((103, len(NAMES))) < 0.1] = np.nan  # the first parts know everything
    options = QUICK | {"groups": groups, "score": score}
    wanted = label_units(values[:, :2], unknown, NAMES, **options)
    monkeypatch.setattr(reading_module, "ENTRIES", 500)
    found = label_units(values[:, :2], on_disk(tmp_path, unknown), NAMES, **options)
    assert found.to_dict() == wanted.to_dict()
    unknown[150, 4] = 2
    with pytest.raises(ValueError, match=r"concepts\[150, 4\] is 2"):
        label_units(values, on_disk(tmp_path, unknown), NAMES, **QUICK)


@pytest.mark.parametrize(
    ("kind", "groups"),
    [("mapped", None), ("Fortran", None), ("dataset", None), ("copy on write", None), ("dataset", np.arange(203) // 2)],
)
def test_activations_read_in_parts_give_the_same(
    kind: str, groups: np.ndarray | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, labels = draw(3)
    wanted = label_units(values, labels, NAMES, groups=groups, **QUICK)
    for name, size in (("SEEN", 300), ("AHEAD", 450)):
        monkeypatch.setattr(units_module, name, size)
    monkeypatch.setattr("absence_plugins.methods.invert.labels.CHUNK", 250)
    monkeypatch.setattr("absence_plugins.methods.invert.labels.TOGETHER", 1)
    given: Any = values
    if kind == "dataset":
        given = Counting(values)
    elif kind == "copy on write":
        given = on_disk(tmp_path, np.zeros_like(values), "c")
        given[:] = values  # nowhere but in memory
    else:
        given = on_disk(tmp_path, np.asfortranarray(values) if kind == "Fortran" else values)
    assert label_units(given, labels, NAMES, groups=groups, **QUICK).to_dict() == wanted.to_dict()
    if isinstance(given, Counting):
        assert max(given.read) <= 450 < values.size
        passes = sum(given.read) / values.size
        assert passes <= (2 if groups is not None else 4)  # a look, the blocks; the units asked to find copies, twice
    assert np.array_equal(np.asarray(given[:]), values)


def test_one_unit_and_copies_in_a_file(tmp_path: Path) -> None:
    values, labels = draw(4)
    alone = label_units(on_disk(tmp_path, values[:, 0]), labels, NAMES, **QUICK)
    assert alone.to_dict() == label_units(values[:, 0], labels, NAMES, **QUICK).to_dict()
    rng = np.random.default_rng(5)
    twice, both = rng.normal(size=(203, 4)), np.concatenate([labels, labels])
    with pytest.warns(AbsenceWarning, match="203 of 406 samples are exact copies"):
        found = label_units(on_disk(tmp_path, np.concatenate([twice, twice])), both, NAMES, **QUICK)
    told = label_units(np.concatenate([twice, twice]), both, NAMES, groups=np.tile(np.arange(203), 2), **QUICK)
    assert found.to_dict() == told.to_dict()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    values, labels = draw()
    values[17, 3] = np.nan
    with pytest.raises(ValueError, match=r"activations hold NaN, first at \[17, 3\]"):
        label_units(on_disk(tmp_path, values), labels, NAMES, **QUICK)
    values[17, 3] = 0
    with pytest.raises(ValueError, match="activations have shape"):
        label_units(on_disk(tmp_path, values[None]), labels, NAMES, **QUICK)
    with pytest.raises(ValueError, match="203 activations but 200 rows of concepts"):
        label_units(values, iter([labels[:100], labels[100:200]]), NAMES, **QUICK)
    with pytest.raises(ValueError, match="203 activations but 303 rows of concepts"):
        label_units(values, iter([labels[:100], labels]), NAMES, **QUICK)
    with pytest.raises(ValueError, match="11 concepts of the first samples, but 10 from sample 100 on"):
        label_units(values, iter([labels[:100], labels[100:, 1:]]), NAMES, **QUICK)
    with pytest.raises(ValueError, match="203 activations but 202 rows of concepts"):
        label_units(values, lambda first, last: labels[first : last - 1], NAMES, **QUICK)
    with pytest.raises(ValueError, match="packed labels are bool"):
        PackedConcepts(labels, 11)
    with pytest.raises(ValueError, match="concepts have shape"):
        label_units(values, on_disk(tmp_path, labels[:, 0]), NAMES, **QUICK)
    with pytest.raises(ValueError, match="11 names for 9 concepts"):
        label_units(values, PackedConcepts(np.packbits(labels[:, :9], axis=1), 9), NAMES, **QUICK)
    with pytest.raises(ValueError, match="'c2' \\(column 2\\) holds on no sample"):
        label_units(values, lambda first, last: labels[first:last] & (np.arange(11) != 2), NAMES, **QUICK)


def test_digits_multiply_as_whole_numbers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    for most in (100, 127, 128, 10**6, 8_355_711, 8_355_712, 10**12, 2**50):
        numbers = torch.randint(-most, most + 1, (3, 77), generator=generator).double()
        numbers[0, :2] = torch.tensor([most, -most])
        truths = torch.randint(0, 2, (5, 77), dtype=torch.int8, generator=generator)
        wanted = (numbers.long()[:, None] * truths.long()).sum(2)
        monkeypatch.setattr(digits_module, "WIDEST", 64 if most == 127 else 2**23)
        assert torch.equal(multiply_digits(split_digits(numbers), truths).long(), wanted), most


@pytest.mark.parametrize("samples", [203, 1000])
def test_float64_gives_what_digits_give(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = draw(6, samples)
    found = []
    for is_split in (True, False):
        monkeypatch.setattr(digits_module, "multiplies_digits", lambda _, is_split=is_split: is_split)
        found.append(label_units(values, labels, NAMES, **QUICK).to_dict())
    assert found[0] == found[1]


def test_bits_are_rows_and_samples() -> None:
    labels = np.random.default_rng(0).random((300, 70)) < 0.5
    rows, row_of = merge_words(read_labels(labels, 300, 70))
    assert len(rows) == 300  # where all samples differ, they are the rows
    assert np.array_equal(row_of, np.arange(300))
    assert np.array_equal(rows.true, Bits.of(labels).true)
    assert np.array_equal(rows.failing, Bits.of(~labels).true)
    assert np.array_equal(rows.take(labels[:, 0]).true, Bits.of(labels[labels[:, 0]]).true)
    assert np.array_equal(rows.counts(), labels.sum(0))

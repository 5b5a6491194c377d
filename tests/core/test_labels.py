"""Labels of every form that data sets have: read, or rejected with the sample and the remedy (F36)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from absence_plugins import ReferenceSet
from absence_plugins.core.labels import check_classes, check_labels, read_label
from absence_plugins.relevance import relevance

IMAGES = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 2, 2).contiguous()


def pairs(labels: Any) -> list[Any]:
    return [(image, label) for image, label in zip(IMAGES, labels, strict=True)]


def read(source: Any) -> list[Any]:
    found = ReferenceSet.from_dataset(source, k=1).labels
    assert found is not None
    return found.tolist()  # type: ignore[no-any-return]


FORMS: dict[str, Callable[[list[int]], Any]] = {
    "integers": lambda labels: labels,
    "numpy integers": lambda labels: list(np.array(labels, np.uint8)),
    "tensors": lambda labels: list(torch.tensor(labels)),
    "tensors [1]": lambda labels: list(torch.tensor(labels)[:, None]),
    "arrays [1]": lambda labels: list(np.array(labels)[:, None]),
    "whole floats": lambda labels: [float(label) for label in labels],
    "whole halves": lambda labels: list(torch.tensor(labels).half()),
    "one-hot": lambda labels: list(torch.eye(3)[labels]),
    "one-hot arrays": lambda labels: list(np.eye(3, dtype=int)[labels]),
    "one-hot lists": lambda labels: np.eye(3, dtype=bool)[labels].tolist(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["pairs", "dictionaries", "loader"])
def test_forms_that_can_be_only_classes_are_read(form: str, source: str) -> None:
    labels = FORMS[form]([0, 1, 2, 0, 1, 2])
    rows: Any = pairs(labels)
    if source == "dictionaries":
        rows = [{"pixel_values": image, "labels": label} for image, label in rows]
    if source == "loader":
        rows = DataLoader(rows, batch_size=4)
    assert read(rows) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("form", "kind"), [(bool, "bool"), (np.bool_, "numpy"), (torch.tensor, "tensor")])
def test_true_and_false_are_classes_1_and_0(form: Any, kind: str) -> None:
    assert read(pairs([form(label) for label in (True, False, True, True, False, False)])) == [1, 0, 1, 1, 0, 0]


def test_several_labels_stay_several() -> None:
    rows = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])
    for form in (list(rows), list(rows.astype(float)), rows.tolist(), list(torch.tensor(rows))):
        assert read(pairs(form)) == rows.tolist()


REFUSED: list[tuple[Any, str]] = [
    (
        [0.1, 0.4, 0.7, 0.9, 1.2, 1.9],
        r"labels must be class indices, got 0\.1 for sample 0; for quantities pass the images",
    ),
    ([0, 1, 0, 1.5, 1, 0], r"got 1\.5 for sample 3"),
    (list(torch.tensor([2.0, 1.0, float("nan"), 0.0, 1.0, 1.0])), "got nan for sample 2"),
    ([0, float("inf"), 0, 1, 1, 0], "got inf for sample 1"),
    ([1, -1, 1, -1, 1, -1], r"got -1 for sample 1; classes count from 0, so renumber them"),
    (["cat", "dog"] * 3, r"got the text 'cat' for sample 0; number the classes.*names\.index\(label\)"),
    (["3", "1"] * 3, "got the text '3'"),
    ([b"cat"] * 6, "got the text b'cat'"),
    ([{"boxes": 1, "labels": 2}] * 6, "got a dictionary with the keys 'boxes', 'labels' for sample 0"),
    ([0, 1, None, 0, 1, 1], "sample 2 has no label and others have one"),
    ([["cat", "dog"]] * 6, "got a list: 'cat', 'dog' for sample 0"),
    ([object()] * 6, "got a object for sample 0"),
    ([1 + 2j] * 6, "got a complex for sample 0"),
    ([[]] * 6, "got an empty list for sample 0"),
    (list(torch.softmax(torch.arange(18.0).reshape(6, 3), 1)), r"must be 0 or 1, got 0\.09.*labels\.argmax\(1\)"),
    (list(torch.zeros(6, 4, 4)), r"labels of shape \(6, 4, 4\); pass one class index per image"),
]


@pytest.mark.parametrize(("labels", "message"), REFUSED)
def test_what_is_no_class_is_refused_with_the_sample(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ReferenceSet.from_dataset(pairs(labels), k=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"), [one for one in REFUSED if "no label" not in one[1] and "got a object" not in one[1]]
)
def test_labels_passed_directly_are_refused_alike(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceSet(IMAGES, labels, k=1)
    if isinstance(labels[0], torch.Tensor):
        with pytest.raises(ValueError, match=message):
            ReferenceSet(IMAGES, torch.stack(labels), k=1)


def test_the_sample_is_that_of_the_data_set() -> None:
    labels = [0] * 40 + [0.5] + [1] * 9
    rows = [(torch.zeros(1), label) for label in labels]
    with pytest.raises(ValueError, match=r"got 0\.5 for sample 40"):
        ReferenceSet.from_dataset(rows, max_samples=49, k=1)
    with pytest.raises(ValueError, match=r"got 0\.5 for sample 40"):
        ReferenceSet.from_dataset(DataLoader(rows, batch_size=8), max_samples=50, k=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 0\.5 for sample 3"):
        ReferenceSet.from_dataset(TensorDataset(IMAGES, torch.tensor([0, 1, 2, 0.5, 1, 1])), k=1)


def test_dictionaries_are_read_by_their_keys() -> None:
    for image, label in (
        ("image", "label"),
        ("img", "fine_label"),
        ("x", "y"),
        ("scan", "target"),
        ("data", "class_id"),
    ):
        rows = [{image: one, label: place % 3, "id": place} for place, one in enumerate(IMAGES)]
        assert read(rows) == [0, 1, 2, 0, 1, 2]
        assert read(DataLoader(rows, batch_size=4)) == [0, 1, 2, 0, 1, 2]  # type: ignore[arg-type]
    both = [{"image": "a picture of Pillow", "pixel_values": one, "label": 0} for one in IMAGES]
    assert read(both) == [0] * 6
    assert ReferenceSet.from_dataset([{"image": one} for one in IMAGES], k=1).labels is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"img": IMAGES[0], "fine_label": 1, "coarse_label": 2},
            "sample 0 is a dictionary in which 'fine_label' and 'coarse_label'",
        ),
        (
            {"left": IMAGES[0], "right": IMAGES[1], "label": 2},
            r"keys 'left', 'right', 'label', of which none is known to be",
        ),
        ({"image": "a picture of Pillow", "label": 2}, "must be a tensor, got str; add ToTensor"),
    ],
)
def test_dictionaries_that_can_be_read_in_two_ways_are_refused(row: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ReferenceSet.from_dataset([row] * 3, k=1)


def test_readers() -> None:
    assert read_label(np.float32(3.0)) == 3
    assert check_labels((2, 0, 1), 3).tolist() == [2, 0, 1]
    assert check_labels([torch.tensor([1, 0]), torch.tensor([0, 1])], 2).tolist() == [0, 1]
    assert check_labels(np.array([True, False]), 2).tolist() == [1, 0]
    with pytest.raises(ValueError, match="got str"):
        check_labels("abc", 3)
    assert check_classes(torch.eye(3)).tolist() == [0, 1, 2]
    for labels, message in (([0.7, 1.0], r"got 0\.7 for sample 0"), ([[1, 1], [0, 1]], "got 2 labels for each")):
        with pytest.raises(ValueError, match=message):
            check_classes(labels)


@pytest.mark.parametrize("value", [0.7, -1, "cat", torch.tensor([0.5, 1.0]), [1, -2], np.array([float("nan"), 1])])
@pytest.mark.parametrize("name", ["target", "label"])
def test_classes_that_are_asked_for_are_read_alike(value: Any, name: str) -> None:
    references = ReferenceSet(IMAGES, [0, 1, 2, 0, 1, 2], k=1)
    for draw in (references.nearest, references.nearest_indices, references.random):
        with pytest.raises(ValueError, match=rf"{name}( must be a class index, got|='cat' must be a class index)"):
            draw(IMAGES[:2], **{name: value})
        assert draw(IMAGES[:2], **{name: np.int64(1)}) is not None


@pytest.mark.parametrize("output", [0.7, [0.2, 1.9], "cat", True, [True, False], np.array([0.5, 1.0]), (1.5,)])
def test_outputs_that_are_no_indices_are_refused(output: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    with pytest.raises(TypeError, match="output must be an index, a tuple of indices or one per sample, got"):
        relevance(net, IMAGES[:2], torch.zeros_like(IMAGES[:2]), output=output)
    for index in (1, np.int64(1), np.array([1, 1]), torch.tensor([1, 1]), [1, 1], (1,), (np.int64(1),)):
        found = relevance(net, IMAGES[:2], torch.zeros_like(IMAGES[:2]), output=index)
        assert torch.allclose(found.output, net(IMAGES[:2])[:, 1])

"""References against brute force, and what a data set may look like."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from absence_plugins import ReferenceSet, TextKind
from absence_plugins.core import spaces
from absence_plugins.core.references import blank_value


def brute_force(x: list[Tensor], pool: list[Tensor], allowed: list[list[int]], k: int) -> list[list[int]]:
    """The k nearest by plain Python, the lower index first where distances tie."""
    rows = []
    for sample in range(len(x[0])):
        distance = {
            index: sum(
                float((a[sample].double() - b[index].double()).square().sum()) for a, b in zip(x, pool, strict=True)
            )
            for index in allowed[sample]
        }
        rows.append(sorted(distance, key=lambda index: (distance[index], index))[:k])
    return rows


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 7, 2**24]), st.booleans())
def test_nearest_equals_brute_force_with_ties_and_any_chunk_size(seed: int, chunk: int, joint: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 2), (3,)] if joint else [(2, 2)]
    # few integer values: many ties
    pool = [torch.randint(0, 2, (12, *shape), generator=generator).double() for shape in shapes]
    x = [torch.randint(0, 2, (4, *shape), generator=generator).double() for shape in shapes]
    labels = torch.arange(12) % 3
    target = torch.randint(0, 3, (4,), generator=generator)
    references = ReferenceSet(tuple(pool) if joint else pool[0], labels, k=3)
    inputs = tuple(x) if joint else x[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "CHUNK_ELEMENTS", chunk)
        found = references.nearest_indices(inputs, target)
        asked = references.nearest_indices(inputs, label=target)
        drawn = references.nearest(inputs, target)
    others = [[i for i in range(12) if labels[i] != t] for t in target]
    own = [[i for i in range(12) if labels[i] == t] for t in target]
    assert found.tolist() == brute_force(x, pool, others, 3)
    assert asked.tolist() == brute_force(x, pool, own, 3)
    for part, images in zip(drawn if joint else (drawn,), pool, strict=True):
        assert torch.equal(part, images[found])


def test_a_batch_draws_what_its_samples_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    references = ReferenceSet(torch.randn(50, 3, 4, 4, generator=generator), torch.arange(50) % 5, k=4)
    x, target = torch.randn(6, 3, 4, 4, generator=generator), torch.tensor([0, 1, 2, 3, 4, 0])
    alone = [references.nearest_indices(x[i : i + 1], int(target[i])) for i in range(6)]
    assert torch.equal(references.nearest_indices(x, target), torch.cat(alone))


def test_bytes_do_not_wrap_around() -> None:
    references = ReferenceSet(torch.tensor([[0], [200]], dtype=torch.uint8), k=1)
    assert references.nearest_indices(torch.tensor([[210]], dtype=torch.uint8)).tolist() == [[1]]
    assert references.nearest_indices(torch.tensor([[1.75]])).tolist() == [[0]]
    halves = ReferenceSet(torch.tensor([[0.0], [300.0]], dtype=torch.float16), k=1)
    assert halves.nearest_indices(torch.tensor([[600.0]], dtype=torch.float16)).tolist() == [[1]]


IMAGES, LABELS = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("contrast", "target", "expected"),
    [
        (None, None, [0]),
        (None, 0, [1]),
        (None, torch.tensor([0]), [1]),
        (2, 0, [2]),
        (2, None, [2]),
        ({0: 2, 1: 0}, 0, [2]),
        ({0: 2, 1: 0}, 1, [0]),
    ],
)
def test_which_class_is_compared_with(contrast: Any, target: Any, expected: list[int]) -> None:
    references = ReferenceSet(IMAGES, LABELS, k=1, contrast=contrast)
    assert references.nearest_indices(torch.tensor([[-1.0]]), target).tolist() == [expected]


def test_label_asks_for_that_class_whatever_the_contrast() -> None:
    references = ReferenceSet(IMAGES, LABELS, k=1, contrast=2)
    assert references.nearest_indices(torch.zeros(2, 1), torch.tensor([0, 1]), label=torch.tensor([1, 0])).tolist() == [
        [1],
        [0],
    ]


def test_without_labels_every_sample_counts() -> None:
    assert ReferenceSet(IMAGES, k=2).nearest_indices(torch.tensor([[2.9]]), target=1).tolist() == [[3, 2]]


def test_references_come_in_the_inputs_dtype() -> None:
    assert ReferenceSet(IMAGES, k=1).nearest(torch.zeros(1, 1, dtype=torch.float64)).dtype == torch.float64


def test_random_draws_from_the_same_pool_and_by_seed() -> None:
    images = torch.arange(40.0)[:, None]
    labels = torch.arange(40) % 2
    draw = [ReferenceSet(images, labels, k=5, seed=seed).random(torch.zeros(3, 1), target=0) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    assert bool((draw[0] % 2 == 1).all())


def test_drawing_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    references = ReferenceSet(IMAGES, LABELS, k=1)
    references.random(torch.zeros(1, 1))
    references.nearest(torch.zeros(1, 1))
    ReferenceSet.from_dataset(DataLoader(TensorDataset(IMAGES, LABELS), shuffle=True, batch_size=2), k=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ReferenceSet(torch.zeros(0, 2)), ValueError, "needs samples"),
        (lambda: ReferenceSet((torch.zeros(2, 1), torch.zeros(3, 1))), ValueError, "same number for every input"),
        (lambda: ReferenceSet([torch.zeros(2)]), TypeError, "must be a tensor.*got list"),  # type: ignore[arg-type]
        (lambda: ReferenceSet(torch.tensor([[0.0], [torch.nan]]), k=1), ValueError, "reference image 1 holds NaN"),
        (lambda: ReferenceSet(IMAGES, [0, 1]), ValueError, r"4 reference images but labels of shape \(2,\)"),
        (lambda: ReferenceSet(IMAGES, k=0), ValueError, "k=0"),
        (lambda: ReferenceSet(IMAGES, k=1.5), ValueError, "k=1.5"),  # type: ignore[arg-type]
        (lambda: ReferenceSet(IMAGES, k=True), ValueError, "k=True"),
        (
            lambda: ReferenceSet(IMAGES, k=1, contrast=2),
            ValueError,
            "class 2 is named, but the references have no labels",
        ),
        (lambda: ReferenceSet(IMAGES, LABELS, k=1, contrast=7), ValueError, "0 reference samples of class 7.*lower k"),
        (
            lambda: ReferenceSet(IMAGES, LABELS, k=2, contrast={0: 1}),
            ValueError,
            "1 reference samples of class 1, but k=2",
        ),
        (lambda: ReferenceSet(IMAGES, k=1, empty=(0.0, 1.0)), ValueError, "empty of shape"),
        (lambda: ReferenceSet(IMAGES, k=1, empty=torch.zeros(3)), ValueError, r"empty of shape \(3,\) does not fit"),
    ],
)
def test_a_bad_set_is_refused(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("references", "x", "target", "label", "message"),
    [
        (ReferenceSet(IMAGES, LABELS, k=1), torch.zeros(1, 2), 0, None, r"inputs have shape \(2,\), references \(1,\)"),
        (ReferenceSet(IMAGES, LABELS, k=1), (torch.zeros(1, 1),) * 2, 0, None, "takes 2 inputs, the references have 1"),
        (ReferenceSet(IMAGES, LABELS, k=1), torch.zeros(0, 1), 0, None, "the batch is empty"),
        (ReferenceSet(IMAGES, LABELS, k=3), torch.zeros(1, 1), 0, None, "2 reference samples outside class 0, but k=3"),
        (ReferenceSet(IMAGES, k=5), torch.zeros(1, 1), None, None, "4 reference samples, but k=5"),
        (ReferenceSet(IMAGES, k=1), torch.zeros(1, 1), None, 1, "class 1 is named, but the references have no labels"),
        (ReferenceSet(IMAGES, LABELS, k=1), torch.zeros(3, 1), [0, 1], None, "2 classes for 3 samples"),
        (ReferenceSet(IMAGES, LABELS, k=1, contrast={0: 1}), torch.zeros(1, 1), 2, None, "names no class.*target 2"),
    ],
)
def test_a_bad_draw_is_refused(references: ReferenceSet, x: Any, target: Any, label: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        references.nearest(x, target, label=label)


class Plain(Dataset[Any]):
    """Items of any form."""

    def __init__(self, items: list[Any], transform: Any = None) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    """A data set without a length."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


PAIRS = [(torch.tensor([float(i)]), i % 3) for i in range(30)]


@pytest.mark.parametrize(
    "source",
    [
        Plain(PAIRS),
        Stream(PAIRS),
        DataLoader(Plain(PAIRS), batch_size=7),
        DataLoader(Plain(PAIRS), batch_size=7, shuffle=True),
        DataLoader(Stream(PAIRS), batch_size=7),
        DataLoader(Plain(PAIRS), batch_size=None),
        iter(PAIRS),
    ],
    ids=["dataset", "stream", "loader", "shuffled", "stream loader", "unbatched loader", "iterator"],
)
def test_every_source_gives_whole_pairs(source: Any) -> None:
    references = ReferenceSet.from_dataset(source, max_samples=1000, k=1)
    assert references.labels is not None
    assert sorted(references.images[0].flatten().tolist()) == [float(i) for i in range(30)]
    assert references.labels.tolist() == [int(value) % 3 for value in references.images[0].flatten()]


@pytest.mark.parametrize("stream", [False, True])
def test_a_sample_is_seeded_without_repeats_and_uniform(stream: bool) -> None:
    def draw(seed: int) -> list[float]:
        source = Stream(PAIRS) if stream else Plain(PAIRS)
        references = ReferenceSet.from_dataset(source, max_samples=10, seed=seed, k=1)
        return references.images[0].flatten().tolist()

    assert draw(3) == draw(3)
    counts = np.zeros(30)
    for seed in range(300):
        drawn = draw(seed)
        assert len(set(drawn)) == 10
        counts[np.array(drawn, dtype=int)] += 1
    assert counts.min() > 60  # 100 expected, standard deviation 8
    assert counts.max() < 140


def test_a_shuffled_loader_gives_the_same_sample_for_the_same_seed() -> None:
    loader = DataLoader(Plain(PAIRS), batch_size=4, shuffle=True)
    torch.manual_seed(1)
    one = ReferenceSet.from_dataset(loader, max_samples=5, seed=2, k=1)
    torch.manual_seed(7)
    other = ReferenceSet.from_dataset(loader, max_samples=5, seed=2, k=1)
    assert torch.equal(one.images[0], other.images[0])


@pytest.mark.parametrize("loader", [False, True])
def test_several_inputs_and_missing_labels(loader: bool) -> None:
    items = [((torch.tensor([float(i)]), torch.tensor([[float(-i)]])), i) for i in range(4)]
    source: Any = DataLoader(Plain(items), batch_size=3) if loader else Plain(items)
    references = ReferenceSet.from_dataset(source, k=1)
    assert references.is_tuple
    assert references.images[1].flatten().tolist() == [0.0, -1.0, -2.0, -3.0]
    bare = ReferenceSet.from_dataset(Plain([torch.zeros(2)] * 3), k=1)
    assert bare.labels is None
    assert not bare.is_tuple


def normalize(mean: Any, std: Any) -> SimpleNamespace:
    return SimpleNamespace(mean=mean, std=std)


@pytest.mark.parametrize("depth", ["compose", "nested", "bare", "subset", "loader", "concat"])
def test_the_blank_value_is_black_after_the_transforms_normalize(depth: str) -> None:
    step = normalize([0.5, 0.25], [0.5, 0.5])
    compose = SimpleNamespace(transforms=[SimpleNamespace(size=3), step])
    transform = {"bare": step, "nested": SimpleNamespace(transforms=[compose])}.get(depth, compose)
    source: Any = Plain([(torch.zeros(2, 3, 3), 0)] * 4, transform)
    if depth == "subset":
        source = Subset(Subset(source, [0, 1, 2]), [0, 1])
    if depth == "loader":
        source = DataLoader(source, batch_size=2)
    if depth == "concat":
        source = ConcatDataset([source, source])
    assert ReferenceSet.from_dataset(source, k=1).empty[0].flatten().tolist() == [-1.0, -0.5]
    assert ReferenceSet.from_dataset(source, k=1, empty=0.25).empty[0].tolist() == 0.25


def test_an_image_folder_with_torchvision_transforms(tmp_path: Any) -> None:
    pytest.importorskip("torchvision")
    from PIL import Image
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    for name, level in (("dark", 0), ("light", 255)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.full((4, 4, 3), level, dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)])
    references = ReferenceSet.from_dataset(ImageFolder(str(tmp_path), steps), k=2)
    assert references.empty[0].flatten().tolist() == [-2.0] * 3
    light = references.nearest(torch.zeros(1, 3, 4, 4), target=0)
    assert bool((light == 2.0).all())
    with pytest.raises(TypeError, match="got Image; add ToTensor"):
        ReferenceSet.from_dataset(ImageFolder(str(tmp_path)), k=2)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="the dataset is empty"):
        ReferenceSet.from_dataset(Plain([]))
    with pytest.raises(ValueError, match="max_samples=0"):
        ReferenceSet.from_dataset(Plain(PAIRS), max_samples=0)


@pytest.mark.parametrize(
    ("empty", "expected"),
    [
        (0.5, [0.5]),
        ([0.0, -1.0], [0.0, -1.0]),
        (np.array([0.0, -1.0]), [0.0, -1.0]),
        (torch.tensor([0.0, -1.0]), [0.0, -1.0]),
        (normalize((0.5, 0.1), (0.5, 0.1)), [-1.0, -1.0]),
    ],
)
def test_every_form_of_a_blank_value(empty: Any, expected: list[float]) -> None:
    value = blank_value(empty, torch.zeros(1, 2, 3, 3))
    assert value.flatten().tolist() == expected
    assert torch.broadcast_shapes(value.shape, (2, 3, 3)) == (2, 3, 3)


def test_a_set_survives_pickle() -> None:
    references = ReferenceSet(IMAGES, LABELS, k=1, contrast={0: 2}, empty=-1.0)
    again = pickle.loads(pickle.dumps(references))
    assert torch.equal(again.nearest(torch.zeros(1, 1), 0), references.nearest(torch.zeros(1, 1), 0))
    assert again.empty == references.empty


SEVERAL = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]])  # several labels, or none, per sample
LINE = torch.arange(5.0)[:, None]


@pytest.mark.parametrize("kind", [torch.long, torch.bool, torch.float32])
def test_several_labels_per_sample(kind: torch.dtype) -> None:
    pool = ReferenceSet(LINE, SEVERAL.to(kind), k=2)
    assert pool.is_multi_label
    assert "3 independent labels" in repr(pool)
    x = torch.tensor([[0.0], [4.0]])
    assert pool.nearest_indices(x, 0).tolist() == [[2, 3], [4, 3]]  # without label 0
    assert pool.nearest_indices(x, torch.tensor([0, 2])).tolist() == [[2, 3], [3, 1]]
    assert pool.nearest_indices(x, 0, label=1).tolist() == [[1, 2], [2, 1]]  # with label 1, whatever else
    contrast = ReferenceSet(LINE, SEVERAL.to(kind), k=1, contrast=1)
    assert contrast.nearest_indices(x, 0).tolist() == [[2], [2]]  # with label 1 and without label 0
    with pytest.raises(ValueError, match="compared with itself"):
        ReferenceSet(LINE, SEVERAL, k=1, contrast=2).nearest(x, 2)
    with pytest.raises(ValueError, match="have 3 labels, 0 to 2, and no 5"):
        pool.nearest(x, 5)


def test_several_labels_come_from_data_sets() -> None:
    rows = [(LINE[i], SEVERAL[i]) for i in range(5)]
    for data in (rows, TensorDataset(LINE, SEVERAL), DataLoader(TensorDataset(LINE, SEVERAL), batch_size=2)):
        pool = ReferenceSet.from_dataset(data, k=1)
        assert torch.equal(pool.labels[pool.images[0][:, 0].long().argsort()], SEVERAL)  # type: ignore[index]


def test_lists_of_classes_are_no_labels() -> None:
    rows = [(LINE[0], [3, 5]), (LINE[1], [3, 4, 1])]
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\); give every sample one class index, or 0 or 1"):
        ReferenceSet.from_dataset(rows)


def test_one_hot_labels_are_class_indices() -> None:
    pool = ReferenceSet(LINE, torch.eye(3)[[0, 1, 2, 2, 0]], k=1)
    assert not pool.is_multi_label
    assert pool.labels is not None
    assert pool.labels.tolist() == [0, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([[0, 2]] * 5), "must be 0 or 1, got 2 for label 1 of reference image 0"),
        (torch.rand(5, 3) + 1, "must be 0 or 1, got 1"),
        (torch.zeros(5, 1), r"labels of shape \(5, 1\); pass one class index per image, or 0 or 1 for each of K"),
        (torch.zeros(4, 3), r"labels of shape \(4, 3\)"),
    ],
)
def test_labels_that_are_neither_classes_nor_several(labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceSet(LINE, labels)


def test_texts_are_nearest_by_tokens_that_differ_not_by_their_numbers() -> None:
    kind = TextKind({number: f"w{number}" for number in range(30)})
    references = ReferenceSet(torch.tensor([[6, 7, 8], [5, 6, 29]]), kind=kind, k=2)
    assert references.nearest_indices(torch.tensor([[5, 6, 7]])).tolist() == [[1, 0]]

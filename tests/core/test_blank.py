"""The value of a blank pixel, found wherever a data set normalizes its pictures (F35)."""

from __future__ import annotations

import warnings
from collections import UserDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning

transforms = pytest.importorskip("torchvision.transforms")
v2 = pytest.importorskip("torchvision.transforms.v2")
Image = pytest.importorskip("PIL.Image")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLACK = [-m / s for m, s in zip(MEAN, STD, strict=True)]
HALF = [2 * value - 1 for value in BLACK]  # after (x - 0.5) / 0.5 as well
NORMALIZE, CENTER = transforms.Normalize(MEAN, STD), transforms.Normalize((0.5,) * 3, (0.5,) * 3)
TENSOR = transforms.ToTensor()


def picture(index: int, mode: str = "RGB") -> Any:
    """Pixels of all values; none of the pictures is black anywhere in the middle."""
    pixels = np.random.default_rng(index).integers(40, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


class Pictures(Dataset[Any]):
    def __init__(self, transform: Any = None, mode: str = "RGB", **others: Any) -> None:
        self.transform, self.mode = transform, mode
        self.__dict__.update(others)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return self.transform(picture(index, self.mode)), index % 2


def empty_of(dataset: Any, **options: Any) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [
            round(value, 4) for value in ReferenceSet.from_dataset(dataset, k=1, **options).empty[0].flatten().tolist()
        ]


def wrap(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda image: inner(image)


class Callable_:  # as people write their own
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, image: Any) -> Any:
        return self.inner(image)


def by_hand(image: Any, mean: Any = MEAN, std: Any = STD) -> Tensor:
    values = torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


TRANSFORMS = {
    "Compose": (transforms.Compose([TENSOR, NORMALIZE]), BLACK),
    "two Normalize": (transforms.Compose([TENSOR, NORMALIZE, CENTER]), HALF),
    "Compose in Compose": (transforms.Compose([transforms.Compose([TENSOR, NORMALIZE]), CENTER]), HALF),
    "Sequential in Compose": (transforms.Compose([TENSOR, nn.Sequential(NORMALIZE)]), BLACK),
    "Sequential after Normalize": (transforms.Compose([TENSOR, NORMALIZE, nn.Sequential(CENTER)]), HALF),
    "v2": (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]), BLACK),
    "v2 Sequential": (nn.Sequential(v2.PILToTensor(), v2.ToDtype(torch.float32, True), v2.Normalize(MEAN, STD)), BLACK),
    "Lambda": (transforms.Compose([TENSOR, transforms.Lambda(lambda x: (x - 0.5) / 0.25)]), [-2.0] * 3),
    "wrapper": (Callable_(transforms.Compose([TENSOR, NORMALIZE])), BLACK),
    "closure": (wrap(transforms.Compose([TENSOR, NORMALIZE])), BLACK),
    "partial": (partial(by_hand, mean=(0.5,) * 3), [-0.5 / s for s in STD]),
    "function": (by_hand, BLACK),
    "augmented": (
        transforms.Compose(
            [transforms.RandomResizedCrop(8), transforms.RandomHorizontalFlip(), TENSOR, NORMALIZE,
             transforms.RandomErasing(1.0, (0.05, 0.1))]
        ),
        BLACK,
    ),
    "jittered": (transforms.Compose([transforms.ColorJitter(0.4, 0.4, 0.4), TENSOR, NORMALIZE]), BLACK),
    "padded with gray": (transforms.Compose([transforms.Pad(1, fill=128), TENSOR, NORMALIZE]), BLACK),
    "times 255": (transforms.Compose([TENSOR, transforms.Lambda(lambda x: 255 * x - 127)]), [-127.0] * 3),
    "plain": (TENSOR, [0.0] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_way_to_normalize(name: str) -> None:
    transform, expected = TRANSFORMS[name]
    assert empty_of(Pictures(transform)) == [round(value, 4) for value in expected]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_of_a_picture(mode: str) -> None:
    def convert(image: Any) -> Any:
        return image.convert("RGB")

    steps = transforms.Compose([transforms.Lambda(convert), TENSOR, NORMALIZE])
    assert empty_of(Pictures(steps, mode)) == [round(value, 4) for value in BLACK]


class Inline(Pictures):
    """Normalizes in ``__getitem__`` itself, after its transform."""

    def __getitem__(self, index: int) -> Any:
        return (self.transform(picture(index)) - 0.5) / 0.25, index % 2


class ByLoader(Pictures):
    """Has a function that opens files; the rest is in ``__getitem__``."""

    def __getitem__(self, index: int) -> Any:
        return by_hand(self.loader(index)), index % 2  # type: ignore[attr-defined]


class Joint(Pictures):
    """As torchvision's detection sets: picture and target at once."""

    def __getitem__(self, index: int) -> Any:
        return self.transforms(picture(index), index % 2)  # type: ignore[attr-defined]


class TwoSteps(Pictures):
    def __getitem__(self, index: int) -> Any:
        return self.normalize(self.transform(picture(index))), index % 2  # type: ignore[attr-defined]


class Albumented(Pictures):
    """Arrays [H, W, C] in a dictionary, in and out."""

    def __getitem__(self, index: int) -> Any:
        made = self.transform(image=np.asarray(picture(index)))["image"]
        return torch.from_numpy(made.transpose(2, 0, 1)), index % 2


class Listed(Pictures):
    """A list of transforms, one after the other."""

    def __getitem__(self, index: int) -> Any:
        image = picture(index)
        for step in self.steps:  # type: ignore[attr-defined]
            image = step(image)
        return image, index % 2


class Tensors(Pictures):
    """Pictures as torchvision's read_image gives them."""

    def __getitem__(self, index: int) -> Any:
        return self.transform(torch.from_numpy(np.array(picture(index))).permute(2, 0, 1)), index % 2


def albumented(image: Any) -> dict[str, Any]:
    return {"image": ((image / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)}


STEPS = transforms.Compose([TENSOR, NORMALIZE])
DATASETS = {
    "inline": (Inline(TENSOR), [-2.0] * 3),
    "inline after Normalize": (Inline(STEPS), [4 * value - 2 for value in BLACK]),
    "loader": (ByLoader(loader=picture), BLACK),
    "joint": (Joint(transforms=lambda image, target: (STEPS(image), target)), BLACK),
    "two attributes": (TwoSteps(TENSOR, normalize=NORMALIZE), BLACK),
    "dictionaries": (Albumented(albumented), BLACK),
    "list": (Listed(steps=[TENSOR, NORMALIZE, CENTER]), HALF),
    "bytes": (Tensors(lambda image: NORMALIZE(image / 255)), BLACK),
    "Subset": (Subset(Subset(Pictures(STEPS), [4, 3, 2]), [0, 2]), BLACK),
    "ConcatDataset": (ConcatDataset([Pictures(STEPS), Pictures(STEPS)]), BLACK),
    "loader of batches": (DataLoader(Pictures(STEPS), batch_size=4), BLACK),
    "loader of samples": (DataLoader(Pictures(STEPS), batch_size=None), BLACK),
    "channels last": (Pictures(lambda image: STEPS(image).permute(1, 2, 0)), BLACK),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_kind_of_data_set(name: str) -> None:
    dataset, expected = DATASETS[name]
    assert empty_of(dataset) == [round(value, 4) for value in expected]


class Other(Dataset[Any]):
    """A wrapper of somebody's own, which changes what it wraps."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Any:
        image, label = self.base[index]
        return CENTER(image), label


def test_a_wrapper_that_normalizes_once_more() -> None:
    assert empty_of(Other(Pictures(STEPS))) == [round(value, 4) for value in HALF]


class HuggingFace:
    """The surface of ``datasets.Dataset`` that matters here."""

    def __init__(self, transform: Any = None) -> None:
        self._transform = transform

    @property
    def format(self) -> dict[str, Any]:
        kind = None if self._transform is None else "custom"
        return {
            "type": kind,
            "format_kwargs": {"transform": self._transform},
            "columns": None,
            "output_all_columns": False,
        }

    def with_transform(self, transform: Any, columns: Any = None, output_all_columns: bool = False) -> HuggingFace:
        return HuggingFace(transform)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        row = {"image": picture(index), "label": index % 2}
        if self._transform is None:
            return row
        made = self._transform({key: [value] for key, value in row.items()})
        return {key: values[0] for key, values in made.items()}


def prepare(batch: dict[str, Any]) -> dict[str, Any]:
    return {"pixel_values": [STEPS(image) for image in batch["image"]], "labels": batch["label"]}


def collate(rows: list[Any]) -> Any:
    """As with an image processor of transformers: all work is in the loader, which yields a BatchEncoding."""
    images = torch.stack([by_hand(row["image"]) for row in rows])
    return UserDict({"pixel_values": images, "labels": torch.tensor([row["label"] for row in rows])})


@pytest.mark.parametrize(
    "source",
    [HuggingFace(prepare), Subset(HuggingFace(prepare), [5, 0]), DataLoader(HuggingFace(), 4, collate_fn=collate)],  # type: ignore[arg-type]
    ids=["with_transform", "subset", "collate_fn"],
)
def test_data_sets_of_hugging_face(source: Any) -> None:
    assert empty_of(source) == [round(value, 4) for value in BLACK]
    found = ReferenceSet.from_dataset(source, k=1)
    assert found.labels is not None
    assert set(found.labels.tolist()) == {0, 1}
    assert not found.is_tuple


class Cached(Pictures):
    """Keeps what its transform made, in memory and on disk."""

    def __getitem__(self, index: int) -> Any:
        path = self.folder / f"{index}.pt"  # type: ignore[attr-defined]
        if index not in self.kept:  # type: ignore[attr-defined]
            torch.save(self.transform(picture(index)), path)
            self.kept[index] = torch.load(path, weights_only=True)  # type: ignore[attr-defined]
        return self.kept[index], index % 2  # type: ignore[attr-defined]


def test_the_data_set_and_its_caches_stay_as_they_are(tmp_path: Path) -> None:
    source = Cached(STEPS, folder=tmp_path, kept={})
    held = dict(vars(source))
    state = torch.get_rng_state()
    assert empty_of(source) == [round(value, 4) for value in BLACK]
    assert vars(source) == held
    assert source.transform is STEPS
    assert torch.equal(state, torch.get_rng_state())
    for index in range(6):
        assert torch.equal(source[index][0], STEPS(picture(index)))
        assert torch.equal(torch.load(tmp_path / f"{index}.pt", weights_only=True), STEPS(picture(index)))
    assert empty_of(source) == [round(value, 4) for value in BLACK], (
        "nothing is called any more: the Normalize is found"
    )


class Stateful(nn.Module):
    """Counts, keeps running statistics, and draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.calls, self.draws = nn.BatchNorm2d(3, affine=False), 0, np.random.default_rng(0)

    def forward(self, image: Any) -> Tensor:
        self.calls += 1
        self.norm(TENSOR(image)[None])
        return STEPS(image).roll(int(self.draws.integers(8)), 1)


def test_transforms_with_a_state_keep_it() -> None:
    used, alone = Pictures(Stateful()), Pictures(Stateful())
    with torch.random.fork_rng():
        found = ReferenceSet.from_dataset(used, k=1)
    wanted = torch.stack([alone[index][0] for index in range(6)])
    assert torch.equal(found.images[0], wanted)
    assert found.empty[0].flatten().tolist() == pytest.approx(BLACK, abs=1e-4)
    assert used.transform.calls == alone.transform.calls == 6
    assert torch.equal(used.transform.norm.running_mean, alone.transform.norm.running_mean)
    assert used.transform.draws.integers(1000) == alone.transform.draws.integers(1000)


class Stream(IterableDataset[Any]):
    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self.source = iter(range(6))

    def __iter__(self) -> Iterator[Any]:
        for index in self.source:
            yield self.transform(picture(index)), index % 2


def test_a_stream_loses_no_sample() -> None:
    nested = Callable_(transforms.Compose([TENSOR, nn.Sequential(NORMALIZE, CENTER)]))
    assert empty_of(Stream(nested)) == [round(value, 4) for value in HALF]
    assert len(ReferenceSet.from_dataset(Stream(nested), k=1)) == 6


NOISY = transforms.Compose([TENSOR, NORMALIZE, transforms.Lambda(lambda x: x + torch.randn_like(x))])
GUESSES = {
    "normalized before": TensorDataset(torch.stack([STEPS(picture(i)) for i in range(6)]), torch.arange(6)),
    "a list of pairs": [(STEPS(picture(i)), i) for i in range(6)],
    "a stream of a function": Stream(by_hand),
}


@pytest.mark.parametrize("name", GUESSES)
def test_a_guess_is_said_with_the_remedy(name: str) -> None:
    with pytest.warns(AbsenceWarning, match=r"0 is a guess; pass empty=.*-mean / std"):
        found = ReferenceSet.from_dataset(GUESSES[name], k=1)
    assert found.empty[0].tolist() == 0.0
    if not isinstance(GUESSES[name], IterableDataset):
        assert empty_of(GUESSES[name], empty=-2.0) == [-2.0]


def test_parts_that_differ_are_said() -> None:
    with pytest.warns(AbsenceWarning, match=r"black is -2\.12 in the first sample of the dataset and 0 in the last"):
        ReferenceSet.from_dataset(ConcatDataset([Pictures(STEPS), Pictures(TENSOR)]), k=1)


def test_noise_leaves_the_step_that_is_there() -> None:
    with pytest.warns(AbsenceWarning, match=r"values below -2\.12, which its transforms make of black"):
        found = ReferenceSet.from_dataset(Pictures(NOISY), k=1)
    assert found.empty[0].flatten().tolist() == pytest.approx(BLACK, abs=1e-4)


def test_no_guess_is_said_of_what_is_no_normalized_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    for images in (
        torch.randn(9, 5, generator=generator),  # a standardized table
        torch.randn(9, 64, 4, 4, generator=generator),  # features
        torch.randn(9, 2, 50, generator=generator),  # signals
        torch.rand(9, 3, 8, 8, generator=generator),
        torch.rand(9, 3, 8, 8, generator=generator) * 0.01 - 1e-5,  # dark, and barely below 0
        torch.zeros(9, 1, 8, 8),
        torch.randint(0, 256, (9, 3, 8, 8), generator=generator, dtype=torch.uint8),
    ):
        assert empty_of(TensorDataset(images, torch.arange(9))) == [0.0]


class Pairs(Pictures):
    def __getitem__(self, index: int) -> Any:
        return (self.transform(picture(index)), torch.tensor([float(index)])), index % 2


def test_of_several_inputs_each_has_its_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ReferenceSet.from_dataset(Pairs(STEPS), k=1)
    assert found.is_tuple
    assert found.empty[0].flatten().tolist() == pytest.approx(BLACK, abs=1e-4)
    assert found.empty[1].tolist() == 0.0


def test_errors_of_the_data_set_are_its_own() -> None:
    def fails(image: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ReferenceSet.from_dataset(Pictures(fails), k=1)

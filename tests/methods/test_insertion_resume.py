"""A stopped insertion test goes on to the same bits; another test's state is refused, a damaged one made again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from insertion_nets import SIZE, planted, scenes
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.insertion import InsertionResult, insertion_test, passes, progress
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves
from absence_plugins.methods.patches.result import PARTS

COUNT = 24


class Stopping(torch.utils.data.Dataset[Any]):
    """Ends with KeyboardInterrupt when ``stop`` images were read; says what it is, so that none is read to know it."""

    identity = "scenes"

    def __init__(self, images: Tensor, stop: int = -1) -> None:
        self.images, self.stop, self.read = images, stop, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Tensor:
        if self.read == self.stop:
            raise KeyboardInterrupt
        self.read += 1
        return self.images[number]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return scenes(COUNT, 0)


@pytest.fixture(scope="module")
def patches(images: Tensor) -> ExtremePatches:
    return find_extreme_patches(
        planted(), "2", images, k=4, size=SIZE, stride=4, images=halves(images)[0], progress=False
    )


def pasted_in(data: Any, patches: ExtremePatches, folder: Path | None, **options: Any) -> InsertionResult:
    chosen: dict[str, Any] = {"images_per_unit": 8, "batch_size": 5, "save_every": 0, "progress": False, **options}
    return insertion_test(planted(), "2", data, patches, checkpoint=folder, **chosen)


def same(one: InsertionResult, two: InsertionResult) -> bool:
    return (
        torch.equal(one.values, two.values) and torch.equal(one.images, two.images) and one.to_dict() == two.to_dict()
    )


@pytest.mark.parametrize("protocol", ["controlled", "paper"])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(
    protocol: str, images: Tensor, patches: ExtremePatches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "UNITS_AT_ONCE", 3)  # several parts
    monkeypatch.setattr(passes, "UNITS_AT_ONCE", 3)
    whole = Stopping(images)
    expected = pasted_in(whole, patches, None, protocol=protocol)
    assert same(pasted_in(Stopping(images), patches, tmp_path / "whole", protocol=protocol), expected)
    for stop in range(1, whole.read, 41):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            pasted_in(Stopping(images, stop), patches, folder, protocol=protocol)
        rest = Stopping(images)
        assert same(pasted_in(rest, patches, folder, protocol=protocol), expected)
        if stop > COUNT:  # patches are cut again, images are not pasted into twice
            assert rest.read < whole.read - stop / 3
        assert not list(folder.rglob("*.part"))
    again = Stopping(images)
    assert same(pasted_in(again, patches, tmp_path / "whole", protocol=protocol, alpha=0.05), expected)
    assert again.read == 1  # the first one, to know the images by


def test_with_patches_of_all_images_the_scan_inside_goes_on_too(images: Tensor, tmp_path: Path) -> None:
    every = find_extreme_patches(planted(), "2", images, k=4, size=SIZE, stride=4, progress=False)
    expected = pasted_in(images, every, None)
    with pytest.raises(KeyboardInterrupt):
        pasted_in(Stopping(images, 6), every, tmp_path)
    assert (tmp_path / "rescan" / "scan.json").is_file()
    assert same(pasted_in(images, every, tmp_path), expected)


def test_the_same_folder_serves_the_scan_and_its_test(images: Tensor, tmp_path: Path) -> None:
    options: dict[str, Any] = {"k": 4, "size": SIZE, "stride": 4, "images": halves(images)[0], "progress": False}
    patches = find_extreme_patches(planted(), "2", images, checkpoint=tmp_path, **options)
    first = pasted_in(images, patches, tmp_path)
    again = find_extreme_patches(planted(), "2", images, checkpoint=tmp_path, **options)
    assert same(pasted_in(images, again, tmp_path), first)


def other_weights() -> nn.Module:
    model = planted()
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    return model


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"images_per_unit": 7}, "images_per_unit is 8"),
        ({"batch_size": 4}, "batch_size is 5"),
        ({"protocol": "paper"}, "protocol is 'controlled'"),
        ({"blank": 0.5}, "blank is"),
    ],
)
def test_the_state_of_another_test_is_refused(
    options: dict[str, Any], named: str, images: Tensor, patches: ExtremePatches, tmp_path: Path
) -> None:
    pasted_in(images, patches, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"belongs to another insertion: {named}"):
        pasted_in(images, patches, tmp_path, **options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_weights_images_or_patches_are_refused(images: Tensor, patches: ExtremePatches, tmp_path: Path) -> None:
    pasted_in(images, patches, tmp_path)
    options: dict[str, Any] = {"images_per_unit": 8, "batch_size": 5, "checkpoint": tmp_path, "progress": False}
    with pytest.raises(ValueError, match="another insertion: the weights of the model differ"):
        insertion_test(other_weights(), "2", images, patches, **options)
    with pytest.raises(ValueError, match="another insertion: the images differ: image 0 is another one, and 23 more"):
        insertion_test(planted(), "2", images + 0.1, patches, **options)
    others = find_extreme_patches(
        planted(), "2", images, k=3, size=SIZE, stride=4, images=halves(images)[0], progress=False
    )
    with pytest.raises(ValueError, match="another insertion: the patches differ: those of unit 0"):
        insertion_test(planted(), "2", images, others, **options)


def test_patches_that_differ_by_their_scores_last_bits_are_the_same(
    images: Tensor, patches: ExtremePatches, tmp_path: Path
) -> None:
    """As of a scan with another number of threads, or on another device."""

    first, rescored, moved = pasted_in(images, patches, tmp_path), copy.deepcopy(patches), copy.deepcopy(patches)
    for part in PARTS:
        getattr(rescored, part).scores.mul_(1 + 2e-7)
    assert not torch.equal(rescored.lowest.scores, patches.lowest.scores)
    assert same(pasted_in(images, rescored, tmp_path), first)
    moved.sample.positions[-1, 0, 1] += 1
    unit = patches.units[-1]
    with pytest.raises(ValueError, match=f"the patches differ: those of unit {unit} lie at other places, or their"):
        pasted_in(images, moved, tmp_path)
    fewer = find_extreme_patches(
        planted(), "2", images, k=4, size=SIZE, stride=4, images=halves(images)[0], units=[0], progress=False
    )
    with pytest.raises(ValueError, match=r"the patches differ: unit \d+ has some only there"):
        pasted_in(images, fewer, tmp_path)


@pytest.mark.parametrize("name", ["insertion.json", "insertion-rank-00000.safetensors"])
def test_a_damaged_state_is_named_and_made_again(
    name: str, images: Tensor, patches: ExtremePatches, tmp_path: Path
) -> None:
    expected = pasted_in(images, patches, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.warns(AbsenceWarning, match=rf"{name} is damaged .*; it is kept as {name}.damaged"):
        assert same(pasted_in(images, patches, tmp_path), expected)
    assert (tmp_path / f"{name}.damaged").stat().st_size == 40
    assert same(pasted_in(images, patches, tmp_path), expected)

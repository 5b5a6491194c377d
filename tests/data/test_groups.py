"""Which samples are not independent: copies, crops and turned copies of pictures, and groups from tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import rotate

from absence_plugins.core import AbsenceWarning
from absence_plugins.data import load_digits
from absence_plugins.data.groups import (
    find_copies,
    find_equal_rows,
    find_same_pictures,
    group_files,
    number_groups,
    read_groups,
)
from absence_plugins.methods.invert import label_units


def scene(seed: int, side: int = 128) -> Tensor:
    """A gray picture with detail at every size, as photographs have: [side, side]."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.zeros(1, 1, side, side)
    for cells in (4, 8, 16, 32):
        noise = torch.rand(1, 1, cells, cells, generator=generator)
        made += F.interpolate(noise, (side, side), mode="bicubic") * (4 / cells) ** 0.7
    return made[0, 0]


def versions(picture: Tensor) -> dict[str, Tensor]:
    """The same picture, as a folder may hold it again."""
    generator = torch.Generator().manual_seed(0)
    zoomed = F.interpolate(picture[None, None, 8:104, 24:120], (128, 128), mode="bilinear")[0, 0]
    return {
        "noisier": picture + 0.02 * torch.randn(picture.shape, generator=generator),
        "darker": 0.5 * picture + 3.0,
        "smaller": F.interpolate(picture[None, None], (72, 72), mode="bilinear", antialias=True)[0, 0],
        "cropped": picture[10:96, 30:120],
        "cropped and enlarged": zoomed,
        "mirrored": picture.flip(1),
        "upside down": picture.rot90(2),
        "on its side": picture.rot90(1),
        "turned": rotate(picture[None], 12, fill=[float(picture.mean())])[0],
    }


def test_versions_of_one_picture_are_one_group() -> None:
    pictures, truth = [], []
    for number in range(4):
        picture = scene(number)
        pictures += [picture, *list(versions(picture).values())[number::4]]
        truth += [number] * (len(pictures) - len(truth))
    found = find_same_pictures(pictures.__getitem__, len(pictures))
    assert found == truth
    known = [0, *range(len(pictures) - 1)]  # the first two are said to be copies, and two others are none
    assert find_same_pictures(pictures.__getitem__, len(pictures), known=known) == truth


def test_different_pictures_are_no_group() -> None:
    digits = load_digits().images[:40, 0]
    flat = [torch.full((64, 64), float(level)) for level in range(3)]  # blank ones say nothing
    stripes = [(torch.arange(64) // width % 2).float().expand(64, 64) for width in (4, 5, 7)]
    small = [*digits, *flat, *stripes, *(scene(100 + number) for number in range(3))]
    assert find_same_pictures(small.__getitem__, len(small)) == list(range(len(small)))


@pytest.mark.slow
@pytest.mark.needs("skimage")
def test_every_version_of_real_photographs_is_found() -> None:
    from skimage import data

    names = ("chelsea", "coffee", "astronaut", "rocket", "camera", "coins", "moon", "grass", "gravel", "retina")
    pictures: list[Tensor] = []
    truth: list[int] = []
    for number, name in enumerate(names):
        photo = torch.from_numpy(getattr(data, name)().copy()).float()
        gray = F.interpolate((photo.mean(-1) if photo.dim() == 3 else photo)[None, None], (128, 128), mode="area")[0, 0]
        made = [gray, *versions(gray).values()]
        pictures += made
        truth += [number] * len(made)
    found = find_same_pictures(pictures.__getitem__, len(pictures))
    together = torch.tensor(found)[:, None] == torch.tensor(found)
    right = torch.tensor(truth)[:, None] == torch.tensor(truth)
    assert not bool((together & ~right).any())  # no two photographs are merged
    assert float((together & right).sum() / right.sum()) > 0.95


def test_copies_of_files_and_rows(tmp_path: Path) -> None:
    for name, content in {"a": b"12", "b": b"21", "c": b"12", "d": b"1"}.items():
        (tmp_path / name).write_bytes(content)
    assert find_copies([tmp_path / name for name in "abcd"]) == [0, 1, 0, 2]
    assert find_copies([tmp_path / "gone"] * 3, ["x", "y", "x"]) == [0, 1, 0]  # known hashes: nothing is read
    rows = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert find_equal_rows(torch.stack([*rows, rows[1], torch.zeros(2, 2), torch.zeros(2, 2)])) == [0, 1, 2, 1, 3, 4]
    assert number_groups([(1, "x"), None, (1, "x")]) == [0, 1, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png", "dog/4.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * (place if place < 4 else 0)).save(path)  # dog/4 is a copy of cat/1
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "text", "groups"),
    [
        ("a.csv", "file,group\ncat/1.png,x\ncat/2.png,x\ndog/1.png,y\n3.png,y\n4.PNG,z\n", [0, 0, 1, 1, 2]),
        ("a.csv", "cat/1,x\ncat/2,x\nphotos\\dog\\1.png,y\n3,y\n4,z\n", None),  # an end that is no file's
        ("a.csv", "cat/1,x\ncat/2,x\nimages\\dog\\1.png,y\n3,y\n4,z\n", [0, 0, 1, 1, 2]),  # with the folder's name
        ("a.tsv", "patient\timage\n7\tcat/1.png\n7\tdog/1.png\n8\t2\n8\t3\n9\t4\n", [0, 1, 0, 1, 2]),
        ("a.json", '{"x": ["cat/1.png", "dog/4.png"], "y": ["cat/2.png", "dog/1.png", "dog/3.png"]}', [0, 1, 1, 1, 0]),
        ("a.json", '{"cat/1.png": "x", "cat/2.png": "x", "dog/1.png": "y", "3": "y", "4": "z"}', [0, 0, 1, 1, 2]),
    ],
)
def test_groups_from_a_table(folder: Path, name: str, text: str, groups: list[int] | None) -> None:
    table = folder.parent / name
    table.write_text(text)
    files = sorted(folder.rglob("*.png"))
    if groups is None:
        with pytest.warns(AbsenceWarning, match="names 4 of 5 files; the other 1, such as dog/1.png"):
            assert read_groups(table, files, folder) == [0, 0, 1, 2, 3]
    else:
        assert read_groups(table, files, folder) == groups


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.png,x\n", "'1.png' may be cat/1.png or dog/1.png; write the path below"),
        ("3.png,x\ndog/3.png,y\n", "'dog/3.png' is in two groups, 'x' and 'y'"),
        ("bird.png,x\n", r"names no file of .*images, such as cat/1\.png; the nearest there are: bird\.png"),
        ("3.png\n4.png\n", "line 1: '3.png' must read file,group"),
    ],
)
def test_a_bad_table_of_groups_is_refused(folder: Path, text: str, message: str) -> None:
    table = folder.parent / "groups.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_groups(table, sorted(folder.rglob("*.png")), folder)


def test_what_the_option_says(folder: Path) -> None:
    files = sorted(folder.rglob("*.png"))
    exact = group_files(files, folder)
    assert exact.numbers == (0, 1, 2, 3, 0)
    assert "1 of 5 images of" in exact.note
    assert "(dog/4.png = cat/1.png)" in exact.note
    assert "--groups auto" in exact.note
    assert exact.take([0, 4, 1]).numbers == (0, 0, 1)
    assert (exact.count, len(exact)) == (4, 5)
    nothing = group_files(files, folder, "none")
    assert (nothing.tensor(), nothing.note) == (None, "")
    pictures = [scene(0), scene(1), scene(0).flip(1), scene(2), scene(0)]
    auto = group_files(files, folder, "auto", picture=pictures.__getitem__)
    assert auto.numbers == (0, 1, 0, 2, 0)
    assert "5 images of" in auto.note
    assert "show 3 pictures" in auto.note
    assert "if these are different pictures, pass --groups none, or a table" in auto.note


def name_crops(pictures: int, crops: int, seed: int, grouping: str) -> int:
    """How many of 30 units are named at q <= 0.05 whose values and whose concepts say nothing of each other, on crops of
    a few pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(pictures).repeat_interleave(crops)
    concepts = (torch.rand(pictures, 5, generator=generator) < 0.5)[places]
    values = torch.randn(pictures, 30, generator=generator)[places]
    values += 0.1 * torch.randn(values.shape, generator=generator)  # another crop has nearly the same value
    groups = None if grouping == "none" else places
    if grouping == "auto":
        offsets = torch.randint(0, 32, (len(places), 2), generator=generator).tolist()
        made = [
            scene(seed * 1000 + int(place))[y : y + 96, x : x + 96]
            for place, (y, x) in zip(places, offsets, strict=True)
        ]
        groups = torch.tensor(find_same_pictures(made.__getitem__, len(made)))
    found = label_units(values, concepts, list("abcde"), groups=groups, progress=False, length=2)
    return sum(one.best.q is not None and one.best.q <= 0.05 for one in found)


def test_crops_of_a_few_pictures_are_no_evidence() -> None:
    assert name_crops(14, 12, 0, "none") > 15  # what happens without groups
    assert name_crops(14, 12, 0, "table") == 0


@pytest.mark.slow
def test_found_groups_keep_chance_from_naming_units() -> None:
    named = [name_crops(14, 4, seed, "auto") for seed in range(8)]
    assert sum(count > 0 for count in named) <= 2  # 5 % of 8 are expected; more than 2 has a chance of 0.6 %

"""Broden: masks with labels R + 256 G, kinds that were not labelled, several masks in a cell; in images and by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from absence_plugins.data.labels import ImageLabels, read_broden, read_broden_masks

LABELS = (
    "number,name,category,frequency,coverage,syns\n"
    "1,red-c,color(5),5,0.1,\n"
    '300,"cup, mug",object(4),4,0.1,cup;mug\n'
    "2,door,object(4);part(2),6,0.1,\n"
    "3,street-s,scene(2),2,0,\n"
    "4,sea-s,scene(2),2,0,\n"
    "5,dotted,texture(9),9,0,\n"
)
HEAD = "image,split,ih,iw,sh,sw,color,object,part,scene,texture\n"


def write_mask(path: Path, labels: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(labels)
    Image.fromarray(np.stack([pixels % 256, pixels // 256, 0 * pixels], -1).astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images: all kinds; objects in two masks; nothing but a texture."""
    root = tmp_path / "broden"
    masks = root / "images" / "ade"
    write_mask(masks / "a_color.png", [[1, 1, 1, 1], [0, 0, 0, 1]])
    write_mask(masks / "a_object.png", [[300, 300, 0, 0], [300, 300, 0, 0]])
    write_mask(masks / "a_part.png", [[0, 0, 0, 0], [0, 0, 0, 0]])
    write_mask(masks / "ö b_1.png", [[0, 300], [0, 0]])
    write_mask(masks / "ö b_2.png", [[2, 0], [2, 0]])
    rows = (
        "ade/a.jpg,train,8,16,2,4,ade/a_color.png,ade/a_object.png,ade/a_part.png,3,\n"
        "ade/ö b.jpg,val,8,8,2,2,,ade/ö b_1.png;ade/ö b_2.png,,,\n"
        "dtd/c.jpg,train,8,8,2,2,,,,4,5;\n"
    )
    (root / "index.csv").write_text(HEAD + rows, encoding="utf-8")
    (root / "label.csv").write_text(LABELS, encoding="utf-8")
    return root


def rows(labels: ImageLabels) -> list[list[int | None]]:
    found: list[list[int | None]] = labels.to_dict()["concepts"]
    return found


def test_what_nobody_labelled_is_unknown(folder: Path) -> None:
    found = read_broden(folder)
    assert found.images == ("ade/a.jpg", "ade/ö b.jpg", "dtd/c.jpg")
    assert found.names == ("red-c", "cup, mug", "door", "street-s", "sea-s", "dotted")
    # the door is an object and a part: of the second image's parts nobody knows, but an object was found
    assert rows(found) == [[1, 1, 0, 1, 0, None], [None, 1, 1, None, None, None], [None, None, None, 0, 1, 1]]
    assert rows(read_broden(folder / "index.csv", ["object"])) == [[1, 0], [1, 1], [None, None]]
    assert rows(read_broden(folder, ["object"], least=0.25)) == [[1, 0], [0, 1], [None, None]]
    some = read_broden(folder, ["object", "color"], wanted=lambda name: name.endswith("a.jpg"))
    assert (some.names, rows(some)) == (("red-c", "cup, mug"), [[1, 1]])
    assert some.concepts.dtype == torch.bool
    matched = found.match([folder / "images" / "ade" / "ö b.jpg"], folder / "images")
    assert rows(matched) == [rows(found)[1]]


def test_masks_of_positions(folder: Path) -> None:
    names = ["cup, mug", "door", "red-c", "sea-s"]
    masks = read_broden_masks(folder, (2, 2), names)
    assert masks.shape == (3, 2, 2, 4)
    cup, door, red, sea = masks.unbind(3)
    assert cup[:2].tolist() == [[[1, 0], [1, 0]], [[0, 1], [0, 0]]]
    assert bool(cup[2].isnan().all())
    assert door[0].tolist() == [[0, 0], [0, 0]]
    assert door[1, :, 0].tolist() == [1, 1]  # found
    assert bool(door[1, :, 1].isnan().all())  # not found, and parts were not looked for
    assert red[0].tolist() == [[1, 1], [0, 1]]  # half of the last position
    assert read_broden_masks(folder, (2, 2), ["red-c"], images=["a"], share=0.6)[0, 1, 1].tolist() == [False]
    assert sea[2].tolist() == [[1, 1], [1, 1]]
    assert sea[0].tolist() == [[0, 0], [0, 0]]  # a street
    one = read_broden_masks(folder, (1, 1), ["cup, mug"], images=["ö b.jpg", "ade/a.jpg"], share=0.25)
    assert (one.dtype, one.flatten().tolist()) == (torch.bool, [True, True])
    right = read_broden_masks(folder, (2, 1), ["cup, mug"], images=["a"], transform=lambda part: part[..., 2:])
    assert not bool(right.any())  # what the model does not see is not there


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.csv", "ade/a_part.png", "ade/missing.png", r"mask .*missing\.png cannot be read"),
        ("index.csv", ",3,\n", ",77,\n", "scene of 'ade/a.jpg' has the label 77, which label.csv lacks"),
        ("index.csv", "ade/ö b.jpg", "ade/a.jpg", r"index\.csv, line 3: 'ade/a\.jpg' comes a second time"),
        ("index.csv", ",4,5;\n", ",4\n", r"index\.csv, line 4: another number of cells"),
        ("index.csv", "image,", "picture,", "has no column 'image'"),
        ("label.csv", "\n2,door", "\n1,door", r"label\.csv, line 4: '1' is no number of its own"),
        ("label.csv", "name", "title", "has no column 'name'"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, file: str, old: str, new: str, message: str) -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_broden(folder)


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no column 'smell'; there are: image, split"):
        read_broden(folder, ["smell"])
    with pytest.raises(ValueError, match=r"has no image called 'z\.jpg', only such as ade/a\.jpg"):
        read_broden_masks(folder, (2, 2), ["door"], images=["z.jpg"])
    with pytest.raises(ValueError, match=r"has no 'cup'; there are: red-c, cup, mug, door, \.\.\."):
        read_broden_masks(folder, (2, 2), ["cup"])
    with pytest.raises(ValueError, match=r"no label of .* covers more than 0\.9"):
        read_broden(folder, ["object"], least=0.9)
    with pytest.raises(ValueError, match=r"index\.csv is missing; Broden has index\.csv, label\.csv and images/"):
        read_broden(folder / "images")
    (folder / "images" / "ade" / "a_part.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a_part\.png cannot be read"):
        read_broden(folder)
    assert read_broden(folder, ["color"]).names == ("red-c",)  # other masks are not read


def test_random_masks_come_back(tmp_path: Path) -> None:
    """A second writing of presence and positions, on random masks of every label up to 2^16 - 1."""
    random = np.random.default_rng(0)
    numbers = [1, 255, 256, 257, 1197, 65535]
    (tmp_path / "label.csv").write_text("number,name,category\n" + "".join(f"{k},n{k},object(1)\n" for k in numbers))
    text, pixels = "image,split,ih,iw,sh,sw,object\n", {}
    for n in range(6):
        pixels[n] = random.choice([0, *numbers], size=(6, 8), p=[0.8, *[0.2 / 6] * 6])
        write_mask(tmp_path / "images" / f"{n}_o.png", pixels[n].tolist())
        text += f"{n}.jpg,train,6,8,6,8,{n}_o.png\n"
    (tmp_path / "index.csv").write_text(text)
    found = read_broden(tmp_path)
    for n, own in pixels.items():
        for name, column in zip(found.names, found.concepts.T, strict=True):
            assert bool(column[n]) == bool((own == int(name[1:])).any())
    masks = read_broden_masks(tmp_path, (3, 2), list(found.names), share=0.2)
    for n, own in pixels.items():
        for c, name in enumerate(found.names):
            share = (own == int(name[1:])).reshape(3, 2, 2, 4).mean((1, 3))
            assert masks[n, :, :, c].tolist() == (share.astype(np.float32) >= np.float32(0.2)).tolist()


def test_columns_and_names_are_of_their_own(folder: Path) -> None:
    index, labels = folder / "index.csv", folder / "label.csv"
    whole = index.read_text(encoding="utf-8")
    for path, text, message in (
        (index, whole.replace("scene,texture", "scene,scene", 1), r"index\.csv has the column 'scene' twice"),
        (index, whole.replace("dtd/c.jpg", ""), r"index\.csv, line 4: the cell of image is empty"),
        (labels, LABELS.replace("dotted", ""), r"label\.csv, line 7: the cell of name is empty"),
    ):
        kept = path.read_bytes()
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_broden(folder)
        path.write_bytes(kept)
    assert read_broden(folder).images[2] == "dtd/c.jpg"

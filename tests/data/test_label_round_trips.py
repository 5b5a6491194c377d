"""Round trips: random labels with unknowns, odd names, images without a file and rows that come twice, through every shape."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from absence_plugins.data.labels import ImageLabels, read_labels

STEMS = (
    "a",
    "Löwe",
    "two words",
    "semi;colon",
    "com,ma",
    'qu"ote',
    "001",
    "x.y",
    "ŻÓŁW",
    "日本",
    "UPPER",
    "it's",
    "#1",
    "50%",
)
CONCEPTS = ("dog", "wet, dog", "Größe", "a;b", 'the "best"', "1 leg", "no", "犬")
TRUE, FALSE = ("1", "1.0", "yes", "True", "TRUE", "true"), ("0", "0.0", "no", "False", "FALSE", "false")
UNKNOWN = ("", "?", "NaN", "nan", "n/a", "-1", "-1.0", "unknown", "NULL")
Truth = dict[str, list[bool | None]]


def draw(seed: int, share: float) -> tuple[random.Random, list[str], list[str], Truth]:
    """Images, concepts, and what is known of them; every concept is known somewhere."""
    generator = random.Random(seed)
    folders = ("", "cat/", "dog house/")
    images = [f"{generator.choice(folders)}{stem}.{generator.choice(('jpg', 'PNG', 'jpeg'))}" for stem in STEMS]
    names = generator.sample(CONCEPTS, generator.randint(2, len(CONCEPTS)))
    truth: Truth = {
        image: [None if generator.random() < share else generator.random() < 0.4 for _ in names] for image in images
    }
    truth[images[0]], truth[images[1]] = [True] * len(names), [False] * len(names)
    generator.shuffle(images)
    return generator, images, names, {image: truth[image] for image in images}


def touch(folder: Path, images: list[str]) -> list[Path]:
    return [folder / image for image in sorted(images)]


def check(labels: ImageLabels, truth: Truth, names: list[str], folder: Path, generator: random.Random) -> None:
    """By name, and in the order of files some of which have no labels."""
    assert labels.names == tuple(names)
    rows: dict[str, Any] = dict(zip(labels.images, labels.to_dict()["concepts"], strict=True))
    expected = {image: [None if one is None else int(one) for one in own] for image, own in truth.items()}
    assert rows == expected
    kept = generator.sample(sorted(truth), len(truth) - 2)
    files = touch(folder, [*kept, "no labels.jpg"])
    with pytest.warns(match="1 of 13 files have no labels.*2 labels are of no file"):
        found = labels.match(files, folder)
    for file, row in zip(files, found.to_dict()["concepts"], strict=True):
        assert row == expected.get(file.relative_to(folder).as_posix(), [None] * len(names))


def spell(generator: random.Random, value: bool | None) -> str:
    return generator.choice(UNKNOWN if value is None else TRUE if value else FALSE)


@pytest.mark.filterwarnings("ignore:.*(-1 was read as unknown|repeat another one)")
@pytest.mark.parametrize("seed", range(12))
def test_tables(tmp_path: Path, seed: int) -> None:
    generator, images, names, truth = draw(seed, 0.2 * (seed % 3))
    rows = [[image, *(spell(generator, value) for value in truth[image])] for image in images]
    twice = [rows[k] for k in generator.sample(range(len(rows)), 3)]
    head = [generator.choice(("file", "Image", "filename", "Path")), *names]
    path = tmp_path / "labels.csv"
    if seed % 4 == 3:
        words = {"true": True, "false": False}
        objects = [dict(zip(head, row, strict=True)) for row in [*rows, *twice]]
        content = [{key: words.get(cell.lower(), cell or None) for key, cell in one.items()} for one in objects]
        path.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
        path = path.with_suffix(".json")
    else:
        text = io.StringIO()
        csv.writer(text, delimiter=",;\t"[seed % 4], lineterminator=generator.choice(("\n", "\r\n"))).writerows(
            [head, *rows, *twice]
        )
        path.write_bytes(text.getvalue().encode(generator.choice(("utf-8", "utf-8-sig", "utf-16"))))
    labels = read_labels(path)
    check(labels, {image: truth[image] for image in labels.images}, names, tmp_path / "photos", generator)
    assert set(labels.images) == set(truth)


@pytest.mark.parametrize("seed", range(4))
def test_probabilities(tmp_path: Path, seed: int) -> None:
    generator, images, names, truth = draw(seed, 0.2)
    lines = io.StringIO()
    drawn = {True: lambda: generator.uniform(0.61, 1), False: lambda: generator.uniform(0, 0.59)}
    rows = [[image, *("" if v is None else f"{drawn[v]():.3f}" for v in truth[image])] for image in images]
    csv.writer(lines).writerows([["file", *names], *rows])
    (tmp_path / "p.csv").write_text(lines.getvalue(), encoding="utf-8")
    check(read_labels(tmp_path / "p.csv", threshold=0.6), truth, names, tmp_path, generator)
    with pytest.raises(ValueError, match=r"a probability or score; pass threshold=, such as 0\.5"):
        read_labels(tmp_path / "p.csv")


@pytest.mark.parametrize("seed", range(4))
def test_json_of_coco_and_lvis(tmp_path: Path, seed: int) -> None:
    generator, images, names, truth = draw(seed, 0.3 * (seed % 2))
    is_lvis = bool(seed % 2)
    numbers = generator.sample(range(1000), len(names))
    listed: list[dict[str, Any]] = [{"id": 7 * n + 3, "file_name": image} for n, image in enumerate(images)]
    if is_lvis:
        for one in listed:
            own = truth[one["file_name"]]
            one["neg_category_ids"] = [number for number, value in zip(numbers, own, strict=True) if value is False]
    annotations = [
        {"image_id": one["id"], "category_id": number, "bbox": [0, 0, 1, 1]}
        for one in listed
        for number, value in zip(numbers, truth[one["file_name"]], strict=True)
        for _ in range(generator.randint(1, 3))
        if value
    ]
    generator.shuffle(annotations)
    categories = [{"id": number, "name": name} for number, name in zip(numbers, names, strict=True)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    check(read_labels(tmp_path / "a.json"), truth, names, tmp_path, generator)
    some = set(images[:5])
    part = read_labels(tmp_path / "a.json", wanted=some.__contains__)
    assert set(part.images) == some
    assert part.to_dict()["concepts"] == [[None if v is None else int(v) for v in truth[i]] for i in part.images]


@pytest.mark.parametrize("seed", range(3))
def test_open_images(tmp_path: Path, seed: int) -> None:
    generator, images, names, truth = draw(seed, 0.3)
    rows = [
        [image, "crowd", f"/m/{k}", str(int(value))]
        for image in images
        for k, value in enumerate(truth[image])
        if value is not None
    ]
    rows += generator.sample(rows, 4)
    text = io.StringIO()
    csv.writer(text).writerows([["ImageID", "Source", "LabelName", "Confidence"], *rows])
    (tmp_path / "val.csv").write_text(text.getvalue(), encoding="utf-8")
    text = io.StringIO()
    csv.writer(text).writerows([[f"/m/{k}", name] for k, name in enumerate(names)])
    (tmp_path / "class-descriptions.csv").write_text(text.getvalue(), encoding="utf-8")
    labels = read_labels(tmp_path / "val.csv")
    order = [labels.names.index(name) for name in names]
    ordered = ImageLabels(labels.images, tuple(names), labels.concepts[:, order])
    check(ordered, truth, names, tmp_path, generator)


@pytest.mark.parametrize(("cells", "kind"), [(("1", "-1"), False), (("1", "-1", "0"), None), (("1", "-1", ""), False)])
def test_minus_one_by_what_stands_beside_it(tmp_path: Path, cells: tuple[str, ...], kind: bool | None) -> None:
    lines = [f"{k}.jpg,{cell},1" for k, cell in enumerate(cells)]
    (tmp_path / "a.csv").write_text("\n".join(["file,x,y", *lines]))
    with pytest.warns(match=f"-1 was read as {'absent' if kind is False else 'unknown'}"):
        found = read_labels(tmp_path / "a.csv")
    assert found.to_dict()["concepts"][1][0] == (None if kind is None else int(kind))


def damage(generator: random.Random, text: str) -> bytes:
    content = bytearray(text.encode())
    place = generator.randrange(len(content))
    end = min(len(content), place + generator.randint(1, 12))
    kind = generator.randrange(4)
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        del content[place:end]
    elif kind == 2:
        content[place:place] = content[place:end]
    else:
        for _ in range(3):
            content[generator.randrange(len(content))] = generator.choice(b'0123456789,;-"{}[]:nNaA. \n\xff')
    return bytes(content)


WHOLE = {
    "labels.csv": "file,dog,cat\n1.jpg,1,0\n2.jpg,0,\n",
    "val.csv": "ImageID,Source,LabelName,Confidence\n" + "".join(f"{k},c,/m/{k % 2},{k % 2}\n" for k in range(6)),
    "list_attr_celeba.txt": "3\nBald Hat\n1.jpg 1 -1\n2.jpg -1 -1\n3.jpg 1 1\n",
    "lvis.json": json.dumps(
        {
            "images": [{"id": k, "file_name": f"{k}.jpg", "neg_category_ids": [1] * (k % 2)} for k in range(4)],
            "annotations": [{"image_id": k, "category_id": 1} for k in range(0, 4, 2)],
            "categories": [{"id": 1, "name": "dog"}],
        }
    ),
    "broden/index.csv": "image,split,ih,iw,sh,sw,scene,texture\na.jpg,train,4,4,2,2,1,\nb.jpg,val,4,4,2,2,2,3\n",
    "broden/label.csv": "number,name,category\n1,street,scene(1)\n2,sea,scene(1)\n3,dotted,texture(1)\n",
    "cub/images.txt": "1 001/a.jpg\n2 001/b.jpg\n",
    "cub/attributes/attributes.txt": "1 x\n2 y\n",
    "cub/attributes/image_attribute_labels.txt": "1 1 1 4 2\n1 2 0 1 0\n2 1 0 3 1\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_refused_in_one_line_or_read(tmp_path: Path, name: str) -> None:
    """Cut, spliced, with other bytes: never another exception."""
    for other, text in WHOLE.items():
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text(text)
    path = tmp_path / (Path(name).parts[0])
    assert len(read_labels(path)) > 1
    generator, messages = random.Random(0), []
    for _ in range(100):
        (tmp_path / name).write_bytes(damage(generator, WHOLE[name]))
        try:
            read_labels(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not [one for one in messages if "\n" in one]

"""Labels of images from annotations of objects and regions, at the level of images: is there one, or none?"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from absence_plugins.data.encodings import read_text
from absence_plugins.data.labels.image_labels import ImageLabels, check_distinct, stack_truths
from absence_plugins.data.tables import read_table


def read_coco(path: Path | str) -> ImageLabels:
    """Annotations of COCO or LVIS (JSON): which categories an image has an object of.

    COCO annotates every object of its categories, so a category without an annotation is absent. LVIS does not: only
    its ``neg_category_ids`` are absent from an image, all other categories without an annotation are unknown.

    Raises ValueError for a file that is no such JSON, or an annotation of an image or category that it does not list.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "instances.json"
    >>> data = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [{"image_id": 5, "category_id": 18}]}
    >>> data["categories"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    >>> _ = path.write_text(json.dumps(data))
    >>> read_coco(path).to_dict()
    {'images': ['a.jpg'], 'names': ['person', 'dog'], 'concepts': [[0, 1]]}
    """
    data = _load(path)
    parts = [data.get(name) if isinstance(data, dict) else None for name in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) for part in parts) or not parts[0] or not parts[2]:
        raise ValueError(f"{path} lacks images, annotations or categories; is it the annotations file of COCO or LVIS?")
    images, annotations, categories = (list(part or ()) for part in parts)
    row = {one["id"]: place for place, one in enumerate(images)}
    column = {one["id"]: place for place, one in enumerate(categories)}
    is_partly = any("neg_category_ids" in one for one in images)
    truths: list[list[bool | None]] = [[None if is_partly else False] * len(column) for _ in row]
    for one in images:
        for category in one.get("neg_category_ids", ()):
            truths[row[one["id"]]][column[category]] = False
    for one in annotations:
        if one.get("image_id") not in row or one.get("category_id") not in column:
            raise ValueError(
                f"{path}: an annotation is of image {one.get('image_id')!r} and category {one.get('category_id')!r}, which "
                "it does not list"
            )
        truths[row[one["image_id"]]][column[one["category_id"]]] = True
    files = tuple(str(one.get("file_name") or str(one.get("coco_url", one["id"])).rsplit("/", 1)[-1]) for one in images)
    names = check_distinct([str(one["name"]) for one in categories], [str(one["id"]) for one in categories])
    return ImageLabels(files, names, stack_truths(truths))


def read_open_images(labels: Path | str, descriptions: Path | str | None = None) -> ImageLabels:
    r"""Open Images' verified labels of images: ``...-human-imagelabels.csv`` (ImageID, Source, LabelName, Confidence).

    A label that people confirmed (1) is present, one that they denied (0) absent, all others are unknown.

    Args:
        labels: the table.
        descriptions: ``class-descriptions.csv`` (label, name); None: the labels are the names.

    Raises ValueError for a table without these columns, a confidence between 0 and 1, two answers of one label.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "human-imagelabels.csv"
    >>> _ = path.write_text("ImageID,Source,LabelName,Confidence\na,crowd,/m/1,1\na,crowd,/m/2,0\nb,crowd,/m/2,1\n")
    >>> read_open_images(path).to_dict()["concepts"]
    [[1, 0], [None, 1]]
    """
    table = read_table(labels)
    head = [cell.casefold() for cell in table.rows[0]]
    wanted = ("imageid", "labelname", "confidence")
    if not set(wanted) <= set(head):
        raise ValueError(f"{labels} lacks the columns ImageID, LabelName and Confidence")
    places = [head.index(name) for name in wanted]
    answers: dict[tuple[str, str], bool] = {}
    for number, row in enumerate(table.rows[1:], 1):
        if len(row) != len(head):
            raise ValueError(f"{table.place(number)}: {len(row)} cells under a header of {len(head)}")
        image, label, confidence = (row[place] for place in places)
        if confidence not in ("0", "1", "0.0", "1.0"):
            raise ValueError(
                f"{table.place(number)}: the confidence is {confidence!r}, of a machine; use the labels that people verified"
            )
        if answers.setdefault((image, label), confidence[0] == "1") != (confidence[0] == "1"):
            raise ValueError(f"{table.place(number)}: {label} of image {image} is confirmed and denied")
    row_of = {image: place for place, image in enumerate(dict.fromkeys(image for image, _ in answers))}
    column = {label: place for place, label in enumerate(dict.fromkeys(label for _, label in answers))}
    truths: list[list[bool | None]] = [[None] * len(column) for _ in row_of]
    for (image, label), answer in answers.items():
        truths[row_of[image]][column[label]] = answer
    said: dict[str, str] = {}
    if descriptions is not None:
        listed = read_table(descriptions)
        said = {row[0]: row[1] for row in listed.rows if len(row) >= 2}
    names = check_distinct([said.get(label, label) for label in column], list(column))
    return ImageLabels(tuple(row_of), names, stack_truths(truths))


def read_invert(labels: Path | str, description: Path | str, images: Sequence[str] = ()) -> ImageLabels:
    """The labels that INVERT's authors publish: a tensor [N, K] of 0 and 1 and a JSON with an entry per column.

    Args:
        labels: a file of ``torch.save``; nothing but tensors is loaded from it.
        description: JSON: an object with an entry per concept, in the order of the columns, with its ``offset`` (as
            n02084071) and maybe a ``name``.
        images: names of the N images; default: their numbers.

    Raises ValueError for other contents, or lengths that differ.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> torch.save(torch.tensor([[1, 0]]), folder / "labels.pt")
    >>> _ = (folder / "concepts.json").write_text('{"0": {"offset": "n02084071", "name": "dog"}, "1": {"offset": "n02121620"}}')
    >>> read_invert(folder / "labels.pt", folder / "concepts.json").names
    ('dog', 'n02121620')
    """
    try:
        table = torch.load(labels, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{labels} is no tensor that torch.save wrote ({str(error).splitlines()[0][:80]})") from None
    if not isinstance(table, torch.Tensor) or table.dim() != 2 or not bool(((table == 0) | (table == 1)).all()):
        raise ValueError(f"{labels} holds no tensor [N, K] of 0 and 1")
    data = _load(description)
    entries = list(data.items()) if isinstance(data, dict) else []
    if len(entries) != table.shape[1]:
        raise ValueError(f"{description} has {len(entries)} entries for the {table.shape[1]} columns of {labels}")
    keys = [str(one.get("offset", key)) if isinstance(one, dict) else key for key, one in entries]
    named = [
        str(one.get("name", own)) if isinstance(one, dict) else str(one)
        for (_, one), own in zip(entries, keys, strict=True)
    ]
    listed = tuple(images) or tuple(map(str, range(len(table))))
    if len(listed) != len(table):
        raise ValueError(f"{len(listed)} names of images for the {len(table)} rows of {labels}")
    return ImageLabels(listed, check_distinct(named, keys), table == 1)


def _load(path: Path | str) -> Any:
    text = read_text(path).text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None

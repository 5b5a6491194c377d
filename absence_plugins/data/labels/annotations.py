"""Labels of images from annotations of objects and regions, at the level of images: is there one, or none?"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from absence_plugins.data.encodings import read_text
from absence_plugins.data.labels.image_labels import ImageLabels, check_distinct, settle
from absence_plugins.data.tables import read_table

PARENTS = ("hypernyms", "parents", "hypernym", "parent")  # of an entry of INVERT's JSON
Wanted = Callable[[str], bool]


def read_coco(path: Path | str, wanted: Wanted | None = None) -> ImageLabels:
    """Annotations of COCO or LVIS (JSON): which categories an image has an object of.

    COCO annotates every object of its categories, so a category without an annotation is absent. LVIS does not: only
    its ``neg_category_ids`` are absent from an image, all other categories without an annotation are unknown.
    ``wanted``: whether an image of this name is read; None: all are.

    Raises ValueError for a file that is no such JSON, an id that comes twice, an image or category that is not listed,
    a category that is annotated and denied on one image, two images of one name.

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
    listed, kinds = _by_id(path, "image", images), _by_id(path, "category", categories)
    name_of = {
        key: str(one.get("file_name") or str(one.get("coco_url", key)).rsplit("/", 1)[-1])
        for key, one in listed.items()
    }
    row = {
        key: place for place, key in enumerate(key for key, name in name_of.items() if wanted is None or wanted(name))
    }
    column = {key: place for place, key in enumerate(kinds)}
    is_partly = any("neg_category_ids" in one for one in images)
    concepts = torch.full((len(row), len(column)), torch.nan if is_partly else 0.0, dtype=torch.float64)
    for key, one in listed.items():
        denied = one.get("neg_category_ids") or ()
        strange = [category for category in denied if not _is_key(category, column)]
        if strange:
            raise ValueError(
                f"{path}: neg_category_ids of image {key!r} have {strange[0]!r}, a category that it does not list"
            )
        if key in row:
            concepts[row[key], [column[category] for category in denied]] = 0.0
    for one in annotations:
        image, category = (one.get("image_id"), one.get("category_id")) if isinstance(one, dict) else (one, None)
        if not (_is_key(image, name_of) and _is_key(category, column)):
            raise ValueError(
                f"{path}: an annotation is of image {image!r} and category {category!r}, which it does not list"
            )
        if category in (listed[image].get("neg_category_ids") or ()):
            raise ValueError(
                f"{path}: category {category!r} of image {image!r} is annotated and among its neg_category_ids"
            )
    found = [(row[one["image_id"]], column[one["category_id"]]) for one in annotations if one["image_id"] in row]
    if found:
        concepts[tuple(torch.tensor(found).T)] = 1.0
    names = check_distinct([str(one.get("name", key)) for key, one in kinds.items()], list(map(str, kinds)))
    return ImageLabels(tuple(name_of[key] for key in row), names, settle(concepts))


def read_open_images(
    labels: Path | str, descriptions: Path | str | Sequence[Path] | None = None, wanted: Wanted | None = None
) -> ImageLabels:
    r"""Open Images' verified labels of images: ``...-human-imagelabels.csv`` (ImageID, Source, LabelName, Confidence).

    A label that people confirmed (1) is present, one that they denied (0) absent, all others are unknown.

    Args:
        labels: the table.
        descriptions: ``class-descriptions.csv`` (label, name), one or several; None: the labels are the names.
        wanted: whether an image of this name is read; None: all are. All of Open Images do not fit into memory.

    Raises ValueError for a table without these columns, a confidence between 0 and 1, two answers of one label.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "human-imagelabels.csv"
    >>> _ = path.write_text("ImageID,Source,LabelName,Confidence\na,crowd,/m/1,1\na,crowd,/m/2,0\nb,crowd,/m/2,1\n")
    >>> read_open_images(path).to_dict()["concepts"]
    [[1, 0], [None, 1]]
    """
    table = read_table(labels)
    head = [cell.casefold() for cell in table.rows[0]]
    needed = ("imageid", "labelname", "confidence")
    if any(head.count(name) != 1 for name in needed):
        raise ValueError(f"{labels} lacks the columns ImageID, LabelName and Confidence, or has one of them twice")
    places = [head.index(name) for name in needed]
    answers: dict[tuple[str, str], bool] = {}
    for number, row in enumerate(table.rows[1:], 1):
        if len(row) != len(head):
            raise ValueError(f"{table.place(number)}: {len(row)} cells under a header of {len(head)}")
        image, label, confidence = (row[place] for place in places)
        if not image or not label:
            raise ValueError(f"{table.place(number)}: the cell of the image or the label is empty")
        if confidence not in ("0", "1", "0.0", "1.0"):
            raise ValueError(
                f"{table.place(number)}: the confidence is {confidence!r}, of a machine; use the labels that people verified"
            )
        if wanted is not None and not wanted(image):
            continue
        if answers.setdefault((image, label), confidence[0] == "1") != (confidence[0] == "1"):
            raise ValueError(f"{table.place(number)}: {label} of image {image} is confirmed and denied")
    row_of = {image: place for place, image in enumerate(dict.fromkeys(image for image, _ in answers))}
    column = {label: place for place, label in enumerate(dict.fromkeys(label for _, label in answers))}
    concepts = torch.full((len(row_of), len(column)), torch.nan, dtype=torch.float64)
    for (image, label), answer in answers.items():
        concepts[row_of[image], column[label]] = float(answer)
    said: dict[str, str] = {}
    for path in [descriptions] if isinstance(descriptions, (str, Path)) else descriptions or ():
        listed = read_table(path)
        for number, row in enumerate(listed.rows):
            if len(row) >= 2 and said.setdefault(row[0], row[1]) != row[1]:
                raise ValueError(f"{listed.place(number)}: {row[0]} is called {said[row[0]]!r} and {row[1]!r}")
    names = check_distinct([said.get(label, label) for label in column], list(column))
    return ImageLabels(tuple(row_of), names, settle(concepts))


def read_invert(labels: Path | str, description: Path | str, images: Sequence[str] = ()) -> ImageLabels:
    """The labels that INVERT's authors publish: a tensor [N, K] of 0 and 1 and a JSON with an entry per column.

    Args:
        labels: a file of ``torch.save``; nothing but tensors is loaded from it.
        description: JSON: an object with an entry per concept, with its ``offset`` (as n02084071) and maybe a ``name``.
            Keys that are all numbers are the numbers of the columns, from 0 or from 1; else the entries stand in the
            order of the columns.
        images: names of the N images; default: their numbers.

    Raises ValueError for other contents, lengths that differ, a key, concept or image that comes twice, numbers that
    are not those of the columns.

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
    entries = _in_columns(description, _entries(_load(description)))
    if len(entries) != table.shape[1]:
        raise ValueError(f"{description} has {len(entries)} entries for the {table.shape[1]} columns of {labels}")
    listed = tuple(images) or tuple(map(str, range(len(table))))
    if len(listed) != len(table):
        raise ValueError(
            f"{len(listed)} images for the {len(table)} rows of {labels}, which are matched by their order; pass exactly those"
        )
    return ImageLabels(listed, _spell(entries), table == 1)


def read_invert_parents(path: Path | str) -> dict[str, list[str]] | None:
    """Child -> hypernyms, by the names that :func:`read_invert` gives; None if a file is no such JSON.

    An entry's ``hypernyms`` (or ``parents``, ``hypernym``, ``parent``) are offsets, keys or names, one or a list.
    Raises ValueError for a key or concept that comes twice, or hypernyms that are no names.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "concepts.json"
    >>> _ = path.write_text('{"0": {"offset": "n02084071", "name": "dog", "hypernyms": ["n02083346"]}}')
    >>> read_invert_parents(path)
    {'dog': ['n02083346']}
    """
    if Path(path).suffix.lower() != ".json":
        return None
    try:
        data = json.loads(read_text(path).text)
    except ValueError:
        return None  # the reader of tables says what is wrong with it
    entries = _entries(data)
    own = [
        next((one[word] for word in PARENTS if word in one), None) if isinstance(one, dict) else None
        for _, _, one in entries
    ]
    if not any(own):
        return None
    _load(path)  # rejects a key that comes twice
    for (key, _, _), words in zip(entries, own, strict=True):
        if not isinstance(words, (str, list, type(None))):
            raise ValueError(f"{path}: the hypernyms of {key!r} are {words!r}; write a name or a list of names")
    names = _spell(entries)
    known = {word: name for (key, offset, _), name in zip(entries, names, strict=True) for word in (key, offset)}
    listed = [[one] if isinstance(one, str) else list(map(str, one or ())) for one in own]
    return {name: [known.get(word, word) for word in words] for name, words in zip(names, listed, strict=True) if words}


def _entries(data: Any) -> list[tuple[str, str, Any]]:
    """Key, offset and entry of each concept of INVERT's JSON."""
    listed = list(data.items()) if isinstance(data, dict) else []
    return [(key, str(one.get("offset", key)) if isinstance(one, dict) else key, one) for key, one in listed]


def _in_columns(path: Path | str, entries: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Entries in the order of the columns: of their keys where these are numbers, else as they stand."""
    if not all(key.isdecimal() for key, _, _ in entries):
        return entries
    entries = sorted(entries, key=lambda entry: int(entry[0]))
    numbers = [int(key) for key, _, _ in entries]
    if numbers not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
        raise ValueError(
            f"{path}: the keys are numbers, {numbers[0]} to {numbers[-1]}, and not those of {len(numbers)} columns, from 0 or from 1 on"
        )
    return entries


def _spell(entries: Sequence[tuple[str, str, Any]]) -> tuple[str, ...]:
    names = [str(one.get("name", offset)) if isinstance(one, dict) else str(one) for _, offset, one in entries]
    return check_distinct(names, [offset for _, offset, _ in entries])


def _by_id(path: Path | str, what: str, listed: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Entries of COCO's JSON by their id. Raises ValueError for one without an id, or with that of another."""
    found: dict[Any, dict[str, Any]] = {}
    for place, one in enumerate(listed, 1):
        key = one.get("id") if isinstance(one, dict) else None
        if not isinstance(key, (int, str)):
            raise ValueError(f"{path}: {what} {place} of {len(listed)} has no id")
        if key in found:
            raise ValueError(f"{path}: {what} {place} of {len(listed)} has the id {key!r}, as one before it")
        found[key] = one
    return found


def _is_key(value: Any, known: Mapping[Any, Any]) -> bool:
    return isinstance(value, (int, str)) and value in known


def _load(path: Path | str) -> Any:
    """JSON. Raises ValueError for other text, or an object with a key twice."""

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path}: the key {twice!r} comes twice in one object")
        return found

    text = read_text(path).text
    try:
        return json.loads(text, object_pairs_hook=check)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None

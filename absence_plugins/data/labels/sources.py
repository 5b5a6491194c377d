"""Which reader a file of labels needs, told by the file: ``absence-plugins label --labels FILE``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from absence_plugins.core.checks import check_choice
from absence_plugins.core.names import spell_name
from absence_plugins.data.encodings import read_text
from absence_plugins.data.labels.annotations import read_coco, read_invert, read_open_images
from absence_plugins.data.labels.broden import read_broden
from absence_plugins.data.labels.image_labels import ImageLabels
from absence_plugins.data.labels.image_tables import read_celeba, read_cub, read_image_table, read_score_table

FORMATS = ("auto", "table", "celeba", "cub", "coco", "lvis", "openimages", "broden", "invert")
SPOKEN = {
    "table": "a table of images",
    "celeba": "CelebA's list of attributes",
    "cub": "CUB's attributes",
    "coco": "annotations of COCO",
    "lvis": "annotations of LVIS",
    "openimages": "Open Images' verified labels",
    "broden": "Broden's masks",
    "invert": "INVERT's labels",
}
TENSORS = (".pt", ".pth")


def recognize_labels(path: Path | str) -> str:
    r"""What a file (or folder) of labels is: one of ``FORMATS``, told by its content.

    A folder is Broden's (``index.csv`` and ``label.csv``) or CUB's (``images.txt`` and ``attributes/``). JSON with
    images, annotations and categories is COCO's, with ``neg_category_ids`` LVIS's. A file of torch is INVERT's. Text
    that begins with a number alone is CelebA's. A table with the columns ImageID, LabelName and Confidence is Open
    Images'. Anything else is a table with a row per image.

    Raises ValueError for a path that does not exist, or a folder of another shape.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("file,dog\n1.jpg,1\n")
    >>> recognize_labels(path)
    'table'
    """
    path = Path(path)
    if path.is_dir():
        for kind, needed in (("broden", ("index.csv", "label.csv")), ("cub", ("images.txt", "attributes"))):
            if all((path / name).exists() for name in needed):
                return kind
        raise ValueError(
            f"the folder {spell_name(path)} is no source of labels; folders are those of Broden (index.csv, label.csv, images/) "
            "and CUB (images.txt, attributes/); else name a file"
        )
    if not path.is_file():
        raise ValueError(f"labels {spell_name(path)} do not exist")
    if path.suffix.lower() in TENSORS:
        return "invert"
    content = path.read_bytes()
    if content.lstrip()[:1] == b"{" and all(
        f'"{name}"'.encode() in content for name in ("images", "annotations", "categories")
    ):
        return "lvis" if b'"neg_category_ids"' in content else "coco"
    head = [line.strip() for line in read_text(path).text.lstrip().split("\n", 2)]
    if head[0].isdecimal() and len(head) > 2 and not re.search(r"[,;\t]", head[1]):
        return "celeba"
    columns = {cell.strip(' "').casefold() for cell in re.split(r"[,;\t]", head[0])}
    if {"imageid", "labelname", "confidence"} <= columns:
        return "openimages"
    if {"image", "split", "ih", "iw", "sh", "sw"} <= columns:
        return "broden"
    return "table"


def read_labels(
    path: Path | str,
    kind: str = "auto",
    *,
    threshold: float | str | None = None,
    minus: str = "auto",
    wanted: Callable[[str], bool] | None = None,
    images: Sequence[str] = (),
) -> ImageLabels:
    r"""Labels of images from a file of any kind.

    What belongs to a file is found beside it: Open Images' ``*class-descriptions*.csv``, the JSON of INVERT's tensor
    (of the same name, or the only one there).

    Args:
        path: of the file, or of the folder of Broden or CUB.
        kind: one of ``FORMATS``; "auto": :func:`recognize_labels`.
        threshold: of a table with probabilities: present if above; "auto": its scores are kept
            (:func:`~absence_plugins.data.labels.read_score_table`).
        minus: what -1 means in a table of images: "absent", "unknown", or "auto"
            (:func:`~absence_plugins.data.labels.read_image_table`).
        wanted: whether an image of this name is read, where reading all costs much (Broden, COCO, LVIS, Open Images).
        images: names of INVERT's images, in the order of its rows.

    Raises:
        ValueError: the file is of another kind, or what its reader rejects.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("file,dog\n1.jpg,1\n2.jpg,0\n")
    >>> read_labels(path).to_dict()
    {'images': ['1.jpg', '2.jpg'], 'names': ['dog'], 'concepts': [[1], [0]]}
    """
    path = Path(path)
    check_choice("kind", kind, FORMATS)
    seen = recognize_labels(path)
    chosen = seen if kind == "auto" else kind
    if {chosen, seen} == {"coco", "lvis"}:
        raise ValueError(
            f"{spell_name(path)} is {SPOKEN[seen]}, as {'some' if seen == 'lvis' else 'no'} images have neg_category_ids, and not "
            f"{SPOKEN[chosen]}"
        )
    if threshold is not None and chosen != "table":
        raise ValueError(
            f"a threshold is for tables with probabilities; {spell_name(path)} is read as {SPOKEN[chosen]}"
        )
    if minus != "auto" and (chosen != "table" or isinstance(threshold, str)):
        what = "keeps its scores" if chosen == "table" else f"is read as {SPOKEN[chosen]}"
        raise ValueError(f"minus={minus!r} (--labels-minus) is for tables of 1 and -1; {spell_name(path)} {what}")
    try:
        if chosen == "table" and not isinstance(threshold, str):
            return read_image_table(path, threshold=threshold, minus=minus)
        return _read(path, chosen, threshold, wanted, images)
    except (ValueError, OSError) as error:
        if chosen == seen:
            raise
        raise ValueError(f"{error}; it looks like {SPOKEN[seen]} (--labels-format {seen})") from None


def _read(
    path: Path, kind: str, threshold: float | str | None, wanted: Callable[[str], bool] | None, images: Sequence[str]
) -> ImageLabels:
    """Any kind but a table of truths."""
    if kind in ("coco", "lvis"):
        return read_coco(path, wanted)
    if kind == "openimages":
        beside = sorted(path.parent.glob("*class-descriptions*.csv"))
        return read_open_images(path, beside, wanted)
    if kind == "broden":
        return read_broden(path, wanted=wanted)
    if kind == "cub":
        return read_cub(path)
    if kind == "celeba":
        return read_celeba(path)
    if kind == "invert":
        return read_invert(path, _find_description(path), images)
    check_choice("threshold", str(threshold), ("auto",))
    return read_score_table(path)


def _find_description(path: Path) -> Path:
    """The JSON of INVERT's tensor."""
    own, beside = path.with_suffix(".json"), sorted(path.parent.glob("*.json"))
    if own.is_file() or len(beside) == 1:
        return own if own.is_file() else beside[0]
    raise ValueError(f"the JSON with the concepts of {spell_name(path)} is missing; put it beside as {own.name}")

"""Tables in JSON, of every shape that people write: lists of objects or lists, objects of columns or names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("class", "name", "label", "category", "concept", "child", "parent", "file", "image", "path", "group")
SHAPES = "write a list of objects, a list of lists, or an object of names"


@dataclass(frozen=True)
class JsonTable:
    """Rows of text, the header first where ``named``; or ``pairs`` of an object name -> name(s).

    Attributes:
        rows: cells as text.
        named: whether the first row names the columns.
        pairs: or None.
        lines: numbers of the rows; () for 1, 2, ...
    """

    rows: tuple[tuple[str, ...], ...] = ()
    named: bool = False
    pairs: tuple[tuple[str, str], ...] | None = None
    lines: tuple[int, ...] = ()


def is_json(path: Path, text: str) -> bool:
    """By its name, or because it is JSON."""
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return True
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def read_json(path: Path, text: str) -> JsonTable:
    """Raises ValueError for text that is not JSON (with the line), not a table (with the item) or has a key twice.

    >>> read_json(Path("a.json"), '[{"class": "cat", "furry": true}]').rows
    (('class', 'furry'), ('cat', 'true'))
    >>> read_json(Path("a.json"), '{"cat": ["pet", "animal"]}').pairs
    (('cat', 'pet'), ('cat', 'animal'))
    """
    data = _load(path, text)
    if isinstance(data, list) and data and all(isinstance(one, _Object) for one in data):
        for number, one in enumerate(data, 1):
            _check_keys(path, f"item {number}", [key for key, _ in one])
        return _objects(path, [dict(one) for one in data], range(1, len(data) + 1))
    if isinstance(data, list) and data and all(isinstance(one, list) for one in data):
        return JsonTable(
            tuple(tuple(_cell(path, n, one) for one in row) for n, row in enumerate(data, 1)),
            lines=tuple(range(1, len(data) + 1)),
        )
    if isinstance(data, list) and data and all(isinstance(one, (str, int)) for one in data):
        return JsonTable(tuple((_cell(path, n, one),) for n, one in enumerate(data, 1)))
    if isinstance(data, _Object) and data:
        return _object(path, data)
    raise ValueError(f"{path}: this JSON is no table; {SHAPES}")


class _Object(list[tuple[str, Any]]):
    """A JSON object with its keys in order, repeated ones too."""


def _load(path: Path, text: str) -> Any:
    def reject(word: str) -> Any:
        return word  # NaN: a cell that is unknown

    try:
        return json.loads(text, object_pairs_hook=_Object, parse_constant=reject)
    except RecursionError:
        raise ValueError(f"{path}: this JSON is no table; {SHAPES}") from None
    except json.JSONDecodeError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        try:  # JSON lines
            return [json.loads(line, object_pairs_hook=_Object, parse_constant=reject) for line in lines]
        except json.JSONDecodeError:
            raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None


def _objects(path: Path, found: Sequence[dict[str, Any]], numbers: Sequence[int]) -> JsonTable:
    head = list(dict.fromkeys(key for one in found for key in one))
    rows = [tuple(_cell(path, n, one.get(key)) for key in head) for n, one in zip(numbers, found, strict=True)]
    return JsonTable((tuple(key.strip() for key in head), *rows), True, None, (0, *numbers))


def _object(path: Path, data: _Object) -> JsonTable:
    names = [key for key, _ in data]
    values = [value for _, value in data]
    has_columns = any(name.strip().casefold() in COLUMNS for name in names)
    if all(isinstance(value, _Object) for value in values):
        for name, value in data:
            _check_keys(path, f"item {name!r}", [key for key, _ in value])
        _check_keys(path, "it", names)
        inner = [dict(value) for value in values]
        if has_columns:  # pandas: column -> row -> cell
            index = list(dict.fromkeys(key for one in inner for key in one))
            rows = [{name: one.get(row) for name, one in zip(names, inner, strict=True)} for row in index]
            return _objects(path, rows, range(1, len(rows) + 1))
        _check_keys(path, "an item", ["class", *dict.fromkeys(key for one in inner for key in one)])
        return _objects(
            path, [{"class": n, **one} for n, one in zip(names, inner, strict=True)], range(1, len(names) + 1)
        )
    lists = [value for value in values if isinstance(value, list) and not isinstance(value, _Object)]
    if has_columns and len(names) > 1 and len(lists) == len(values) and len({len(one) for one in lists}) == 1:
        _check_keys(path, "it", names)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
        return _objects(path, rows, range(1, len(rows) + 1))
    if all(isinstance(value, str) or _is_names(value) for value in values):
        pairs = [(name, own) for name, value in data for own in ([value] if isinstance(value, str) else value)]
        for name, own in pairs:
            if not name.strip() or not own.strip():
                raise ValueError(f"{path}: {name!r}: {own!r} lacks a name")
        return JsonTable(pairs=tuple((name.strip(), own.strip()) for name, own in pairs))
    if all(isinstance(value, (str, int, float, bool)) for value in values):
        return JsonTable(tuple((name, _cell(path, n, value)) for n, (name, value) in enumerate(data, 1)))
    raise ValueError(f"{path}: this JSON is no table; {SHAPES}")


def _check_keys(path: Path, what: str, names: Sequence[str]) -> None:
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ValueError(f"{path}: {what} has the key {twice[0]!r} twice")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, _Object) and all(isinstance(one, str) for one in value)


def _cell(path: Path, number: int, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"{path}, item {number}: a cell holds a list or an object; {SHAPES}")

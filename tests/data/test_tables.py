"""Tables in every format and encoding: read the same, or refused in one line that names file and line."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import normal_name
from absence_plugins.data.encodings import read_text
from absence_plugins.data.same_names import match_names, normalize_name
from absence_plugins.data.tables import read_columns, read_pairs, read_table, read_truth

MARKED = {"utf-8-sig": "", "utf-8": "", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff", "utf-32-le": "\ufeff"}
words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn", "Co")), min_size=1, max_size=8).filter(
    lambda word: word == word.strip() and "\ufeff" not in word
)
pairs = st.lists(st.tuples(words, words), min_size=1, max_size=5, unique_by=lambda pair: pair[0])


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def delimited(rows: list[tuple[str, ...]], delimiter: str, end: str, quoting: int) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return file.getvalue()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=pairs,
    form=st.sampled_from([",", ";", "\t", "objects", "lists", "mapping", "sep"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(sorted(MARKED)),
    has_header=st.booleans(),
    margin=st.booleans(),
)
def test_pairs_read_back_from_any_format_and_encoding(
    tmp_path: Path,
    pairs: list[tuple[str, str]],
    form: str,
    end: str,
    encoding: str,
    has_header: bool,
    margin: bool,
) -> None:
    head = [("child", "parent")] if has_header else []
    rows: list[tuple[str, ...]] = [*head, *pairs]
    if form == "objects":
        text = json.dumps([{"child": child, "parent": parent} for child, parent in pairs], ensure_ascii=False)
    elif form == "lists":
        text = json.dumps(rows, ensure_ascii=False)
    elif form == "mapping":
        text = json.dumps({child: [parent] for child, parent in pairs}, ensure_ascii=False)
    else:
        rows = [(*row, "") for row in rows] if margin else rows
        delimiter = ";" if form == "sep" else form
        first = f"sep=;{end}" if form == "sep" else ""
        text = first + delimited(rows, delimiter, end, csv.QUOTE_ALL) + end * margin
    path = write(
        tmp_path / ("a.json" if form in ("objects", "lists", "mapping") else "a.csv"),
        (MARKED[encoding] + text).encode(encoding),
    )
    assert read_pairs(path, "child", "parent") == pairs


western = st.text("abcdefgäöüéèêàçñß", min_size=2, max_size=9)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(western, min_size=1, max_size=5, unique=True), encoding=st.sampled_from(["cp1252", "mac_roman"]))
def test_eight_bit_text_is_read_right_or_refused(tmp_path: Path, names: list[str], encoding: str) -> None:
    path = write(tmp_path / "a.csv", "\n".join(["class,big", *(f"{name},1" for name in names)]).encode(encoding))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found: list[str] | str
        try:
            found = list(read_columns(path, "class").cells)
        except ValueError as error:
            found = str(error)
        assert not said  # the notes wait for whoever uses the table
        known = read_columns(path, "class", names)  # the folder's names tell the encoding, whatever it is
    assert list(known.cells) == names
    if isinstance(found, str):
        assert found.startswith(f"{path}, line ")
        assert found.endswith("; save it as CSV UTF-8")
        assert "\n" not in found
    else:
        assert found == names
    assert bool(known.table.notes) == any(not name.isascii() for name in names)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp1251", "кот"),
        ("cp932", "猫"),
        ("gb18030", "狗"),
        ("cp949", "고양이"),
        ("cp850", "Löwe"),
        ("mac_roman", "Löwe"),
    ],
)
def test_another_code_page_is_refused_or_told_by_the_folders(tmp_path: Path, encoding: str, name: str) -> None:
    path = write(tmp_path / "a.csv", f"class,big\n{name},1\n{name}s,0\n".encode(encoding))
    with pytest.raises(ValueError, match=r"a\.csv, line 2: the encoding is not UTF-8.*save it as CSV UTF-8"):
        read_text(path)
    assert name in read_text(path, [name]).text
    assert read_text(path, [name]).note


def test_what_excel_saves_as_csv_is_read_with_a_note(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "class,big\ncat,0\nLöwe,1\n".encode("latin-1"))
    found = read_text(path)
    assert (found.text, found.encoding) == ("class,big\ncat,0\nLöwe,1\n", "cp1252")
    assert "was read as Windows-1252 (Latin-1): 'Löwe'" in found.note
    assert read_text(write(path, "class,big\r\nLöwe,1".encode("utf-16-le"))).text == "class,big\nLöwe,1"  # no mark


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "a zip file .*save it as CSV UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xff\xfea\x00b", "begins as UTF-16-LE and is not, line 1"),
        (b"a,b\n\x00\x01\x00", "holds NUL characters"),
        (b" \r\n", "is empty"),
        (b"", "is empty"),
        (b'a,b\n"c,d\n', "line 2: unexpected end of data"),
        (b"a;b,c\nd;e,f\n", "may be divided by commas or semicolons"),
    ],
)
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_table(write(tmp_path / "odd.csv", content))
    assert "odd.csv" in str(caught.value)
    with pytest.raises(ValueError, match=r"none\.csv does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_table(tmp_path)


def test_a_table_without_a_header_loses_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "parents.csv", "cat,pet\ntruck,vehicle\n")
    assert read_pairs(path, "child", "parent") == [("cat", "pet"), ("truck", "vehicle")]
    taxonomy = write(path, "class,category\ncategory,entity\ncat,class\n")  # known words, but they are in the data
    assert read_pairs(taxonomy, "child", "parent", ["cat"])[0] == ("class", "category")
    reverse = write(path, "note;Hypernym;hyponym\nx;pet;cat\n;pet;dog\n")
    assert read_pairs(reverse, "child", "parent") == [("cat", "pet"), ("dog", "pet")]
    with pytest.raises(ValueError, match="line 1: 'cat,pet,animal' must read child,parent, one pair per line"):
        read_pairs(write(path, "cat,pet,animal\ndog,pet,animal\n"), "child", "parent")
    with pytest.raises(ValueError, match="line 1: 'class,category' may be a header or a pair"):
        read_pairs(write(path, "class,category\ncat,class\n"), "child", "parent")


def test_lines_that_repeat_count_once_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "cat,pet\ncat,pet\n")
    with pytest.warns(AbsenceWarning, match=r"a\.csv: 1 lines repeat another one"):
        assert read_pairs(path, "child", "parent") == [("cat", "pet")]


def test_a_header_is_asked_of_a_table_of_attributes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "zebra,1,0\ncat,0,1\n")
    with pytest.raises(
        ValueError, match=r"a\.csv, line 1: 'zebra,1,0' is no header; write class,ATTRIBUTE,\.\.\. above"
    ):
        read_columns(path, "class", what="attribute")
    with pytest.raises(ValueError, match="line 1: 'zebra,big' is no header"):
        read_columns(write(path, "zebra,big\ncat,small\n"), "class", ["zebra", "cat"])
    folder = read_columns(write(path, "name,1\nname,0\ncat,1\n"), "class", ["name", "cat"])  # a class called "name"
    assert folder.cells == {"name": ("0",), "cat": ("1",)}
    indexed = read_columns(write(path, ",class,furry\n0,cat,1\n1,dog,0\n"), "class")  # as pandas writes it
    assert (indexed.cells, indexed.names) == ({"cat": ("1",), "dog": ("0",)}, ("furry",))
    assert "row numbers" in indexed.table.notes[0]
    behind = read_columns(write(path, "furry,animal\n1,cat\n0,dog\n"), "class", ["cat", "dog"])
    assert behind.cells == {"cat": ("1",), "dog": ("0",)}


@pytest.mark.parametrize(
    "data",
    [
        [{"class": "cat", "furry": True, "big": None}, {"class": "dog", "furry": 1, "big": 0}],
        [["class", "furry", "big"], ["cat", True, None], ["dog", 1, 0]],
        {"class": ["cat", "dog"], "furry": [True, 1], "big": [None, 0]},
        {"cat": {"furry": True, "big": None}, "dog": {"furry": 1, "big": 0}},
        {"class": {"0": "cat", "1": "dog"}, "furry": {"0": True, "1": 1}, "big": {"0": None, "1": 0}},
    ],
)
def test_every_shape_of_json_is_one_table(tmp_path: Path, data: object) -> None:
    found = read_columns(write(tmp_path / "a.json", json.dumps(data)), "class")
    assert (found.names, found.cells) == (("furry", "big"), {"cat": ("true", ""), "dog": ("1", "0")})
    lines = "\n".join(json.dumps(one) for one in data) if isinstance(data, list) and isinstance(data[0], dict) else None
    if lines:
        assert read_columns(write(tmp_path / "a.jsonl", lines), "class").cells == found.cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"class": "cat", "class": "dog"}]', "item 1 has the key 'class' twice"),
        ('[{"class": "cat", "furry": [1, 2]}]', "item 1: a cell holds a list"),
        ('{"class": "cat", "furry": 1', "line 1: no JSON"),
        ("[1, [2]]", "this JSON is no table"),
        ("7", "this JSON is no table"),
        ('{"cat": "pet"}', "is a JSON object of names; write a list of objects"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_columns(write(tmp_path / "a.json", text), "class")


def test_truth_is_said_in_many_ways() -> None:
    assert [read_truth(cell, str) for cell in ("1", "TRUE", "yes", "1,0", "WAHR")] == [True] * 5
    assert [read_truth(cell, str) for cell in ("0", "False", "No", "0.0", "FAUX")] == [False] * 5
    assert [read_truth(cell, str) for cell in ("", "?", "NaN", "-1")] == [None] * 4
    with pytest.raises(ValueError, match="cell 7 is '0,5'; write 0 or 1"):
        read_truth("0,5", lambda: "cell 7")


def test_names_of_another_system_are_the_same() -> None:
    apart = unicodedata.normalize("NFD", "Löwe")
    assert match_names(["Löwe", "cat"], [apart, "CAT", "dog"]) == {"Löwe": apart, "cat": "CAT"}
    assert match_names(["cat", "Cat"], ["Cat", "cat"]) == {"cat": "cat", "Cat": "Cat"}  # both exist
    with pytest.raises(ValueError, match="'CAT' could be 'cat' or 'Cat'"):
        match_names(["CAT"], ["cat", "Cat"])


def test_names_are_compared_as_folders_spell_them() -> None:
    for name in ("Caf\udce9", "two\nlines", "Lo\u0308we", "a\u202eb"):
        assert normalize_name(normal_name(name)) == normalize_name(name)

"""Names of any bytes and script in what is written: tables, commands, files."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_plugins.core.files import write_whole
from absence_plugins.core.printable import make_printable
from absence_plugins.core.shell import join_command, write_command
from absence_plugins.core.table import guard_cell, restore_cell, write_csv
from absence_plugins.data.tables import read_table

FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", ' =HYPERLINK("http://a")', "\u00a0=1", '"=1', "'=1", "''=1",
    "\uff1d1+1", "\uff0b1", "\uff0da", "\uff20a", "\ufeff=1", "\u200b=1", "\u202e=1", "=cmd|' /C calc'!A0", "-a", "--1", "-1-1", "+", "-", "'-1", "'\r",
]  # fmt: skip
NUMBER = r"[+-]?[0-9.]+(e-?[0-9]+)?"
HARMLESS = [
    "cat",
    "a=1",
    "-0.5",
    "+3",
    "-1e-5",
    "1",
    "",
    "'cat'",
    "'",
    "''",
    "-inf",
    "NaN",
    "a b",
    "\u732b",
    "\u2212a",
    "''cat",
]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_cell_that_a_spreadsheet_computes_is_made_text(cell: str) -> None:
    guarded = guard_cell(cell)
    assert guarded[0] == "'"
    assert restore_cell(guarded) == cell


@pytest.mark.parametrize("cell", HARMLESS)
def test_numbers_and_other_text_stay(cell: str) -> None:
    assert guard_cell(cell) == restore_cell(cell) == cell


@given(st.text(st.sampled_from("'\"=+-@ \t\r\n1.a;|,\uff1d\u200b")))
@settings(max_examples=60, deadline=None)
def test_a_guarded_cell_comes_back(cell: str) -> None:
    assert restore_cell(guard_cell(cell)) == cell


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), min_size=1), min_size=1))
@settings(max_examples=40, deadline=None)
def test_a_table_comes_back(rows: list[list[str]]) -> None:
    rows = [[cell for cell in row if make_printable(cell) == cell] or ["a"] for row in rows]
    read = csv.reader(io.StringIO(write_csv(rows), newline=""))
    assert [[restore_cell(cell) for cell in row] or [""] for row in read] == rows


def test_our_reader_gives_back_what_a_table_was_written_from(tmp_path: Path) -> None:
    names = [name.strip() for name in (*FORMULAS, *HARMLESS) if name.strip() and not {"\u200b", "\ufeff"} & {*name}]
    rows = [("class", "worth"), *((name, "-0.5") for name in names)]
    (tmp_path / "labels.csv").write_text(write_csv(rows), encoding="utf-8", newline="")
    assert read_table(tmp_path / "labels.csv").rows == tuple(rows)


def test_no_cell_of_a_written_table_is_a_formula_in_any_country() -> None:
    """Whichever separator a spreadsheet takes, no cell that it finds outside quotes begins as a formula."""
    text = write_csv([[f"a;{cell}" for cell in FORMULAS], FORMULAS, ["x", -0.5, True, None, float("nan")]])
    for separator in ",;\t|":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            starts = [cell.lstrip(' "\t\r\n\u00a0\ufeff\u200b\\')[:1] for cell in row if not re.fullmatch(NUMBER, cell)]
            assert not {"=", "+", "-", "@", "\uff1d"} & {*starts}, separator
    assert text.splitlines()[-1] == "x,-0.5,True,,nan"


WORDS = [
    "explain", "my photos/a b.png", "it's", "a\nb.png", "\ttab", "caf\udce9.jpg", "\u732b.png", "x\u202egnp.exe", "", "--out", "$HOME", "`id`",
    "\x1b[31m", "a\\b", "!!", "\x7f", "\u0915\u094d\u200d\u0937", "\U0001f408", "'; rm -r photos; '", "\u2028",
]  # fmt: skip


def test_a_command_pasted_into_a_shell_gives_the_same_words() -> None:
    line = join_command(["printf", r"%s\0", *WORDS])
    assert line.isprintable() or "\u200d" in line
    assert "\n" not in line
    done = subprocess.run(["bash", "-c", line.encode(errors="surrogateescape")], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode(errors="surrogateescape") for word in WORDS]


def test_options_of_a_written_command() -> None:
    line = write_command("experiment", "debias", data=Path("my photos"), strengths=(1.0, 10.0), size=None, batch_size=0)
    assert line == "absence-plugins experiment debias --data 'my photos' --strengths 1.0,10.0 --batch-size 0"


def test_files_take_names_that_are_no_text(tmp_path: Path) -> None:
    name = "caf\udce9 \ud800 \u732b"
    write_whole(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9 \\ud800 \u732b"
    write_whole(tmp_path / "a.json", json.dumps({"name": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["name"] == name


def test_what_cannot_be_shown_is_an_escape() -> None:
    assert (
        make_printable("a\x00\x1b[31m\n\u2066b\u2069 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "a\\x00\\x1b[31m\n\\u2066b\\u2069 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert make_printable("a\nb", keep="") == "a\\nb"

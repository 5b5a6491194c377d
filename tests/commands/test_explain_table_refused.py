"""Wrong tables and options of ``absence-plugins explain --table`` are one line, and nothing is written."""

# ruff: noqa: F811  (fixtures are imported, and are arguments)
from __future__ import annotations

from pathlib import Path

import pytest
from cancer_rows import REFERENCES, cancer, color, folder, run  # noqa: F401  (fixtures)

WRONG = {
    "no header": ("1,2\n3,4\n", "rows2.csv has no header: its first line, 1, 2, is a row of numbers"),
    "empty": ("", "rows2.csv is empty"),
    "header only": ("age,color\n", "rows2.csv has no rows behind its header"),
    "text": ("age,color\nten,blue\n", "row 0 (line 2), column 'age': 'ten' is no number"),
    "missing": (
        "age,color\n50,blue\n,blue\n",
        "row 1 (line 3), column 'age': the cell is empty; fill it, or say --missing",
    ),
    "category": ("age,color\n50,green\n", "column 'color': 'green' is no category that the model knows; there are: "),
    "column": ("age,colour\n50,blue\n", "refs.csv lacks 1 of the columns of rows2.csv: colour; it has: color"),
    "extra": ("age\n50\n", "rows2.csv lacks 1 of the columns of refs.csv: color; if it holds the class, say --label"),
    "twice": ("age,age\n50,1\n", "two columns are called 'age'"),
    "unnamed": ("age,\n50,blue\n", "column 2 has no name"),
    "width": ("age,color\n50,blue,1,2\n", "cells under a header of"),
    "thousands": ('age,color\n"1,234",blue\n', "'1,234' may be 1234 or 1.234; write numbers without commas"),
    "both signs": ("age;color\n1,5;blue\n2.5;blue\n", "'1,5' has a comma and '2.5' of row 1 a point"),
    "infinite": ("age,color\ninf,blue\n", "'inf' is no number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_one_line(folder: Path, name: str) -> None:
    text, said = WRONG[name]
    code, output = color(text, REFERENCES)
    assert code == 2
    assert said in output
    assert output.count("error:") == 1
    assert "Traceback" not in output
    assert not Path("page/index.html").exists()


REFUSED = {
    "--table --label diagnosis": "--table needs --model module:factory",
    "--table --model digits": "--model digits is a model of images",
    "--table --model cancer_models:text": "must return one torch.nn.Module, alone or in a tuple",
    "--table --model cancer_models:odd": "returns a object beside the model, which --table cannot use",
    "--table --model cancer_models:color": "the model cannot take rows of 32 entries, from 31 columns",
    "--table --text --model cancer_models:build": "--table and --text are different kinds of data",
    "--table --model cancer_models:build --label diagnose": "--label 'diagnose': rows.csv has no such column; it has: diagnosis",
    "--table --model cancer_models:build --label diagnosis --target maligant": "--target 'maligant' is no class of the model; the nearest names are: malignant (0)",
    "--table --model cancer_models:build --label diagnosis --target 2": "--target 2 does not exist: the model has 2 outputs",
    "--table --model cancer_models:build --label diagnosis --target 1 --contrast 1": "--contrast 1 is the target itself",
    "--table --model cancer_models:build --label diagnosis --rows 99": "--rows 99: there are rows 0 to 39",
    "--table --model cancer_models:build --label diagnosis --rows a": "--rows 'a' must be numbers such as 0,5,8-15",
    "--table --model cancer_models:build --label diagnosis --size 3": "--size belongs to images",
    "--table --model cancer_models:build --label diagnosis --method Occlusion": "explained by relevance, or relevance:RULE",
    "--table --model cancer_models:build --label diagnosis --rate 3": "--rate belongs to --signal",
    "--table --model cancer_models:build --label diagnosis --missing zero": "--missing 'zero' must be one of refuse, median, drop",
    "--table --model cancer_models:build --references tain.csv": "references file tain.csv does not exist; there is train.csv",
    "--table --model cancer_models:unnamed --label diagnosis": "it predicts them in alphabetical order for",
    "--label diagnosis --model cancer_models:plain": "--label says how other data than images are read",
}


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_options_are_one_line(folder: Path, words: str) -> None:
    code, output = run("rows.csv", *words.split(), "--out", "page")
    assert code == 2
    assert REFUSED[words] in output

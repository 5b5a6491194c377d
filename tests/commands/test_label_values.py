"""``absence-plugins label --values``: units of any network, named by a table of labels; no images and no model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from absence_plugins.cli import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two units, of which one is high where a sample is small and not old; a table of labels with text and truths."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    small, old = random.random(400) < 0.5, random.random(400) < 0.4
    noise = random.normal(size=(400, 2))
    units = np.stack([3.0 * (small & ~old) + 0.1 * noise[:, 0], noise[:, 1]], 1)
    np.save("values.npy", units)
    lines = [f"s{i},{a:.6f},{b:.6f}" for i, (a, b) in enumerate(units)]
    Path("values.csv").write_text("\n".join(["id,lonely,noise", *lines]))
    rows = [f"s{i},{'small' if s else 'large'},{int(o)}" for i, (s, o) in enumerate(zip(small, old, strict=True))]
    Path("labels.csv").write_text("\n".join(["id,size,old", *reversed(rows)]))
    Path("plain.csv").write_text("\n".join(["size,old", *(row.partition(",")[2] for row in rows)]))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["label", *arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(("values", "labels"), [("values.npy", "plain.csv"), ("values.csv", "labels.csv")])
def test_the_planted_formula_is_found(folder: Path, values: str, labels: str) -> None:
    code, output = run("--values", values, "--labels", labels, "--out", "page", "--quiet")
    assert code == 0, output
    found = json.loads(Path("page/labels.json").read_text())
    best = found["units"][0]["formulas"][0]["formula"]
    assert best in (
        "size small AND NOT old",
        "NOT old AND size small",
        "NOT (old OR size large)",
        "NOT old AND NOT size large",
    )
    page = Path("page/index.html").read_text(encoding="utf-8")
    assert "Values are those of the file." in page
    assert "held-out samples" in page
    assert "held-out images" not in page
    assert "the images" not in page
    assert ("Unit 0 (lonely)" in page) == (values == "values.csv")
    assert "matched by the first column" in page if values == "values.csv" else "in the order of the rows" in page
    assert "absence-plugins label --values" in page


def test_rows_are_matched_by_their_keys(folder: Path) -> None:
    """labels.csv is in reverse order: read in order, nothing would be found."""
    assert run("--values", "values.csv", "--labels", "labels.csv", "--out", "a")[0] == 0
    assert run("--values", "values.npy", "--labels", "plain.csv", "--out", "b")[0] == 0
    one, other = (json.loads(Path(name, "labels.json").read_text())["units"][0]["formulas"][0] for name in "ab")
    assert one["formula"] == other["formula"]
    assert abs(one["auc"] - other["auc"]) < 1e-6


def test_arrays_of_labels(folder: Path) -> None:
    np.save("truth.npy", np.load("values.npy")[:, :1] > 1)
    code, output = run("--values", "values.npy", "--labels", "truth.npy", "--out", "page")
    assert code == 0, output
    assert "concept 0" in Path("page/labels.txt").read_text()


WRONG = {
    "": "--values needs --labels FILE",
    "--labels nothing.csv": "labels file nothing.csv does not exist",
    "--labels short.csv": "values.npy has 400 rows and short.csv 3; they must be the same samples",
    "--labels ages.csv": "row 0 (line 2), column 'age': 3.5 is no truth; labels are 0 and 1, or text",
    "--labels minus.csv": "row 1 (line 3), column 'old': -1 may mean absent or unknown; say --labels-minus",
    "--labels same.csv": "no concept of same.csv is present on some of the 400 samples and absent on others",
    "--labels plain.csv --images .": "--images belong to images; with --values there are none",
    "--labels bare.csv": "bare.csv has no header",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line(folder: Path, words: str) -> None:
    Path("short.csv").write_text("old\n1\n0\n1\n")
    Path("ages.csv").write_text("age\n" + "3.5\n" * 400)
    Path("minus.csv").write_text("old\n1\n" + "-1\n" * 399)
    Path("same.csv").write_text("old\n" + "1\n" * 400)
    Path("bare.csv").write_text("1,0\n" * 400)
    code, output = run("--values", "values.npy", *words.split())
    assert code == 2
    assert WRONG[words] in output
    assert not Path("absence-label/index.html").exists()


def test_values_that_are_no_numbers(folder: Path) -> None:
    np.save("bad.npy", np.array([[1.0], [np.nan]]))
    Path("two.csv").write_text("old\n1\n0\n")
    assert "row 0" not in run("--values", "bad.npy", "--labels", "two.csv")[1]
    assert "row 1 of column 0 is empty, NaN or infinite" in run("--values", "bad.npy", "--labels", "two.csv")[1]
    np.save("object.npy", np.array([{"a": 1}], dtype=object))
    assert "is no array that numpy.save wrote" in run("--values", "object.npy", "--labels", "two.csv")[1]

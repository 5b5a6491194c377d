"""``absence-plugins explain ROWS.csv --table``: rows as people save them, and every wrong input in one line."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.kinds.explain_rows import explain_rows
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.pool import match_labels
from absence_plugins.commands.kinds.read_rows import read_rows
from absence_plugins.commands.kinds.row_inputs import make_inputs

MODELS = """
import numpy as np, torch
from torch import nn
from sklearn.preprocessing import StandardScaler
from absence_plugins import Column

def plain():
    net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    net.load_state_dict(torch.load("net.pt"))
    return net

def scaler():
    kept = np.load("scale.npz")
    found = StandardScaler()
    found.mean_, found.scale_, found.n_features_in_ = kept["mean"], kept["std"], 30
    return found

def build():
    return plain(), scaler(), ["malignant", "benign"]

def unnamed():
    return plain(), scaler()

class Color(nn.Module):  # z = age / 10 - 3 if red: closed form, entries age, blue, red
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1, bias=False)
        self.layer.weight.data = torch.tensor([[0.1, 0.0, -3.0]])
    def forward(self, x):
        return self.layer(x)

color = Color()

def columns():
    return Color(), [Column("age"), Column("color", ("blue", "red"))]

def odd():
    return Color(), object()

class Stopped(Color):  # Ctrl-C while the second row is explained
    def forward(self, x):
        if float(x[0, 0]) == 51:
            raise KeyboardInterrupt
        return super().forward(x)

def stopped():
    return Stopped(), [Column("age"), Column("color", ("blue", "red"))]

def text():
    return "no model"
"""


def write(name: str, head: list[str], rows: list[list[object]], delimiter: str = ",") -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *rows])


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, its scaler, rows and references; trained once, in a second."""
    folder = tmp_path_factory.mktemp("cancer")
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.data))
    train, test = order[:400], order[400:440]
    mean, std = data.data[train].mean(0), data.data[train].std(0)
    inputs = torch.tensor((data.data - mean) / std, dtype=torch.float32)
    truth = torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs[train]), truth[train]).backward()
        optimizer.step()
    torch.save(net.state_dict(), folder / "net.pt")
    np.savez(folder / "scale.npz", mean=mean, std=std)
    for name, places in (("train.csv", train), ("rows.csv", test)):
        head = [*map(str, data.feature_names), "diagnosis"]
        rows = [[*data.data[i].tolist(), str(data.target_names[data.target[i]])] for i in places]
        write(str(folder / name), head, rows)
    (folder / "cancer_models.py").write_text(MODELS)
    return folder


@pytest.fixture
def folder(cancer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    for path in cancer.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments])
    return result.exit_code, " ".join(result.output.split())


def page(*arguments: str) -> str:
    code, output = run(*arguments, "--out", "page", "--quiet")
    assert code == 0, output
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", Path("page/index.html").read_text(encoding="utf-8"))).split())


USUAL = ("rows.csv", "--table", "--model", "cancer_models:build", "--references", "train.csv", "--label", "diagnosis")


def test_the_page_says_what_a_row_rests_on(folder: Path) -> None:
    said = page(*USUAL, "--rows", "1,2")
    assert "Row 1: class 1 (benign)" in said
    assert "Row 2: class 1 (benign)" in said
    assert "references of class 0 (malignant)" in said
    assert "'worst texture' is 19.8, below the" in said
    assert "raises logit 1 (benign) by" in said
    assert "labels are names of classes; the model predicts the label of" in said
    assert "numbers scaled by the model's StandardScaler" in said
    assert "absence-plugins explain rows.csv --table --model cancer_models:build" in said
    assert "The weights are as cancer_models:build builds it." in said


def test_the_map_is_exact_and_the_tests_read_the_network(folder: Path) -> None:
    """Sums, the nearest reference and the output after the replacement, written a second time."""
    found = explain_rows(
        KindOptions("table", (Path("rows.csv"),), "cancer_models:build", references=Path("train.csv"), label="diagnosis",
                    rows="1", out=Path("page"), progress=False)
    )  # fmt: skip
    one = found.findings[0]
    net = one.loaded.model
    with torch.no_grad():
        u = net(one.x[None])[0, 1]
        others = net(one.references)[:, 1]
    assert float(one.signed.sum()) == pytest.approx(float(u - others.mean()), rel=1e-4)
    assert one.question.value == pytest.approx(float(u), rel=1e-6)
    kept = np.load("scale.npz")
    train = read_rows(Path("train.csv"))
    values = np.array([[float(cell) for cell in row[:30]] for row in train.cells])
    scaled = torch.tensor((values - kept["mean"]) / kept["std"], dtype=torch.float32)
    with torch.no_grad():
        is_left = (net(scaled).argmax(1) == 0) & torch.tensor([row[30] == "malignant" for row in train.cells])
    distance = ((scaled - one.x) / scaled.std(0, correction=0)).square().sum(1)
    nearest = distance.masked_fill(~is_left, torch.inf).argsort()[:8]
    assert torch.allclose(scaled[nearest], one.references, atol=1e-5)
    test = one.tests["missing"].tests[0]
    changed = torch.where(test.where, one.references[0], one.x)
    with torch.no_grad():
        assert test.after == pytest.approx(float(net(changed[None])[0, 1]), rel=1e-5)
    assert not test.rises
    assert bool((one.x < one.references.mean(0))[test.where].any())


def test_the_terminal_has_a_table(folder: Path) -> None:
    code, output = run(*USUAL, "--rows", "0-2")
    assert code == 0
    assert "Row 0 class 0 (malignant) class 0 (malignant)" in output
    assert "3 of 3 rows explained; the network bears out what is missing in" in output


def test_without_references_the_other_rows_are_taken(folder: Path) -> None:
    said = page("rows.csv", "--table", "--model", "cancer_models:build", "--label", "diagnosis", "--rows", "1")
    assert "No --references: each row is compared with the other rows of rows.csv." in said
    assert "of rows.csv" in said


def test_target_contrast_and_margin(folder: Path) -> None:
    said = page(*USUAL, "--rows", "1", "--target", "malignant", "--contrast", "benign")
    assert "Row 1: class 0 (malignant)" in said
    assert "references of class 1 (benign)" in said
    said = page(*USUAL, "--rows", "1", "--nontarget", "margin")
    assert "Row 1: class 1 (benign) minus class 0 (malignant)" in said
    said = page(*USUAL, "--rows", "1", "--nontarget", "0")
    assert "The output of class 0 (malignant) is -" in said


def test_more_rows_than_are_shown_is_said(folder: Path) -> None:
    assert "The first 2 of 40 rows are explained (--rows names others, --most more)." in page(*USUAL, "--most", "2")


def color(rows: str, references: str, *more: str) -> tuple[int, str]:
    Path("rows2.csv").write_bytes(rows.encode())
    Path("refs.csv").write_text(references, encoding="utf-8")
    return run(
        "rows2.csv",
        "--table",
        "--model",
        "cancer_models:columns",
        "--references",
        "refs.csv",
        "--out",
        "page",
        "--quiet",
        *more,
    )


REFERENCES = "age,color\n10,red\n20,red\n60,blue\n70,blue\n"


def test_closed_form_of_one_output() -> None:
    """z = 0.1 age - 3 red: the row (50, blue) against (20, red): 3 by the age, 3 by the color."""
    cells = make_inputs(read_rows_of("age,color\n50,blue\n"), read_rows_of(REFERENCES), ("age", "color"))
    assert cells.encode(read_rows_of("age,color\n50,blue\n")).tolist() == [[50.0, 1.0, 0.0]]


def read_rows_of(text: str):  # type: ignore[no-untyped-def]
    import tempfile

    path = Path(tempfile.mkdtemp()) / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return read_rows(path)


def test_categories_and_one_output(folder: Path) -> None:
    code, output = color("age,color\n50,blue\n", REFERENCES)
    assert code == 0, output
    said = html.unescape(Path("page/index.html").read_text(encoding="utf-8"))
    assert "'color' is blue, not red as in the references" in said
    assert "Row 0: class 1" in said
    assert "no labels, so that each counts as the class that the model predicts" in said


@pytest.mark.parametrize(
    "rows",
    [
        "\ufeffage;color\r\n50;blue\r\n",
        "age;color\n50,0;blue\n",
        ",age,color\n0,50,blue\n",
        "color,age\nblue,50\n",
        "age\tcolor\n50\tblue\n",
    ],
    ids=["mark", "comma", "index", "order", "tabs"],
)
def test_tables_as_programs_write_them(folder: Path, rows: str) -> None:
    code, output = color(rows, REFERENCES)
    assert code == 0, output
    assert "is 50, above the" in html.unescape(Path("page/index.html").read_text(encoding="utf-8"))


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


def test_latin_1_is_read_or_refused(folder: Path) -> None:
    Path("refs.csv").write_text("age,color\n10,red\n20,red\n60,Löwe\n", encoding="utf-8")
    Path("rows2.csv").write_bytes("age,color\n60,Löwe\n".encode("latin-1"))
    code, output = run(
        "rows2.csv", "--table", "--model", "cancer_models:color", "--references", "refs.csv", "--out", "page"
    )
    assert code == 0, output
    assert "read as Windows-1252 (Latin-1): 'Löwe'" in output
    Path("rows2.csv").write_bytes(b"age,color\n60,L\xd8\xd0\xde\n")
    code, output = run(
        "rows2.csv", "--table", "--model", "cancer_models:color", "--references", "refs.csv", "--out", "page"
    )
    assert code == 2
    assert "save it as CSV UTF-8" in output


def test_gaps_are_filled_or_dropped_when_asked(folder: Path) -> None:
    rows = "age,color\n,blue\n50,blue\n"
    assert color(rows, REFERENCES, "--missing", "median")[0] == 0
    said = html.unescape(Path("page/index.html").read_text(encoding="utf-8"))
    assert "'age' is 40" in said  # the median of the references
    code, output = color(rows, REFERENCES, "--missing", "drop")
    assert code == 0
    assert "1 row with empty cells was left out" in output
    said = Path("page/index.html").read_text(encoding="utf-8")
    assert "Row 1: class" in said
    assert "Row 0: class" not in said


def test_numbers_can_be_categories(folder: Path) -> None:
    Path("rows2.csv").write_text("age,zone\n50,7\n")
    Path("refs.csv").write_text("age,zone\n10,9\n20,9\n60,7\n")
    code, output = run(
        "rows2.csv",
        "--table",
        "--model",
        "cancer_models:color",
        "--references",
        "refs.csv",
        "--categories",
        "zone",
        "--out",
        "page",
    )
    assert code == 0, output
    assert "'zone' is 7, not 9 as in the references" in html.unescape(
        Path("page/index.html").read_text(encoding="utf-8")
    )


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


def test_classes_name_the_outputs(folder: Path) -> None:
    said = page(
        "rows.csv",
        "--table",
        "--model",
        "cancer_models:unnamed",
        "--label",
        "diagnosis",
        "--classes",
        "malignant,benign",
        "--rows",
        "1",
    )
    assert "Row 1: class 1 (benign)" in said


def test_an_unscaled_model_is_warned_of(folder: Path) -> None:
    _code, output = run(
        "rows.csv",
        "--table",
        "--model",
        "cancer_models:plain",
        "--label",
        "diagnosis",
        "--classes",
        "malignant,benign",
        "--rows",
        "1",
        "--out",
        "page",
    )
    assert "of the references their label; were its inputs scaled?" in output


def test_hostile_text_is_escaped(folder: Path) -> None:
    nasty = "<script>alert(1)</script>"
    code, output = color(f"age,color\n50,{nasty}\n", f"age,color\n10,red\n20,red\n60,{nasty}\n")
    assert code == 2  # the model's own columns know no such color
    Path("rows2.csv").write_text(f"{nasty},color\n50,{nasty}\n")
    Path("refs.csv").write_text(f"{nasty},color\n10,red\n20,red\n60,{nasty}\n")
    code, output = run(
        "rows2.csv", "--table", "--model", "cancer_models:color", "--references", "refs.csv", "--out", "page"
    )
    assert code == 0, output
    written = Path("page/index.html").read_text(encoding="utf-8")
    assert nasty not in written
    assert "&lt;script&gt;alert(1)" in written


def test_one_row_that_cannot_be_explained_leaves_the_others(folder: Path) -> None:
    """All references of the only other class equal the first row: nothing is left for it."""
    Path("rows2.csv").write_text("age,color\n10,red\n60,blue\n")
    code, output = run("rows2.csv", "--table", "--model", "cancer_models:columns", "--target", "1", "--out", "page")
    assert code == 0, output
    assert "skipped Row 0: no reference of class 0 in 2 rows of rows2.csv is left to compare class 1 with" in output
    assert "1 of 2 rows explained" in output
    assert "Not explained: Row 0: no reference" in html.unescape(Path("page/index.html").read_text(encoding="utf-8"))


def test_labels_are_matched_by_name_number_or_agreement() -> None:
    assert match_labels(["b", "a"], [1, 0], [], 2)[0] == {"a": 0, "b": 1}
    assert match_labels(["1", "0"], [0, 1], [], 2)[0] == {"0": 0, "1": 1}
    with pytest.raises(ValueError, match="name the outputs in their order by --classes"):
        match_labels(["b", "a"], [0, 1], [], 2)
    with pytest.raises(ValueError, match="are 3, and the model has 2 classes"):
        match_labels(["b", "a", "c"], [0, 1, 1], [], 2)


def test_a_stopped_command_leaves_the_page_of_what_is_done(folder: Path) -> None:
    Path("rows2.csv").write_text("age,color\n50,blue\n51,blue\n52,blue\n")
    Path("refs.csv").write_text(REFERENCES)
    words = ["rows2.csv", "--table", "--model", "cancer_models:stopped", "--references", "refs.csv", "--out", "page"]
    code, output = run(*words)
    assert code == 130
    assert "1 of 3 rows are done and on the page" in output
    said = html.unescape(Path("page/index.html").read_text(encoding="utf-8"))
    assert "Row 0: class 1" in said
    assert "The command was stopped in front of the others." in said


def test_the_same_command_writes_the_same_page(folder: Path) -> None:
    Path("refs.csv").write_text(REFERENCES)
    Path("rows2.csv").write_text("age,color\n50,blue\n")
    words = ["rows2.csv", "--table", "--model", "cancer_models:columns", "--references", "refs.csv", "--out"]
    assert run(*words, "a")[0] == run(*words, "b")[0] == 0
    one, other = (Path(name, "index.html").read_text(encoding="utf-8").replace(f"--out {name}", "") for name in "ab")
    assert one == other


def test_a_quantity_is_compared_with_all_rows(folder: Path) -> None:
    """All outputs are above 0, so that there is no other class; any takes the rows all the same."""
    Path("rows2.csv").write_text("age,color\n40,blue\n50,blue\n60,blue\n")
    words = ("rows2.csv", "--table", "--model", "cancer_models:columns", "--out", "page")
    code, output = run(*words)
    assert code == 2
    assert "is left to compare class 1 with; add others to --references, or name a class by --contrast (any" in output
    code, output = run(*words, "--contrast", "any", "--rows", "1")
    assert code == 0, output
    assert "all 2 references" in Path("page/index.html").read_text(encoding="utf-8")

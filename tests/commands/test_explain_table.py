"""``absence-plugins explain ROWS.csv --table``: what the page says, and tables as people save them."""

# ruff: noqa: F811  (fixtures are imported, and are arguments)
from __future__ import annotations

import html
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cancer_rows import REFERENCES, USUAL, cancer, color, folder, page, run, write  # noqa: F401  (fixtures)

from absence_plugins import Column, TableKind
from absence_plugins.commands.kinds.explain_rows import explain_rows
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.pool import match_labels
from absence_plugins.commands.kinds.read_rows import read_rows
from absence_plugins.commands.kinds.row_inputs import make_inputs
from absence_plugins.commands.kinds.tensor_samples import TensorSamples


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


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("False", "False"), "has the one value 'False'"),  # its one entry would be 1
        (("1,234,567", "2,345,678"), "has '1,234,567', a number with other signs"),
        (("1.234,5", "2.345,5"), "has '1.234,5', a number with other signs"),
        (("5%", "6%"), "has '5%', a number with other signs"),
        (("1e999", "2"), "'1e999' stands among numbers"),  # infinite
    ],
)
def test_text_that_is_meant_as_a_number_becomes_no_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("age;other\n" + "".join(f"{number};{cell}\n" for number, cell in enumerate(cells)))
    rows = read_rows(Path("rows.csv"))
    with pytest.raises(ValueError, match=re.escape(said)):
        make_inputs(rows, None, rows.names)


def test_a_row_beside_a_large_number_is_no_copy() -> None:
    references = torch.tensor([[1e6, 30.0], [1e6, 55.0], [1e6 + 1e-4, 30.0]])
    samples = SimpleNamespace(references=references, own=())
    assert TensorSamples._same(samples, references[:1], 0).tolist() == [True, False, True]  # type: ignore[arg-type]


def test_what_is_missing_is_missing_compared_with_the_reference_that_replaces_it() -> None:
    """Two of three references are older than the row, and the nearest, whose age takes the place, is younger."""
    kind = TableKind((Column("age"), Column("pulse")))
    x, references = torch.tensor([30.0, 60.0]), torch.tensor([[20.0, 70.0], [90.0, 70.0], [90.0, 70.0]])
    samples = SimpleNamespace(
        kind=kind,
        loaded=SimpleNamespace(model=lambda rows: -rows, fit=lambda rows: rows),
        asked=SimpleNamespace(seed=0),
    )
    question = SimpleNamespace(is_held_down=False, read=lambda outputs: outputs.sum(1))
    tests = TensorSamples._test(samples, x, references, references - x, question)  # type: ignore[arg-type]
    assert [test.name for test in tests["missing"].tests] == ["pulse"]

"""``absence-plugins label``: tables, files and page, on the bundled digits and on a folder; what is refused."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins import Layer
from absence_plugins.cli import app
from absence_plugins.commands.label import Samples, digit_samples, folder_samples, label_layer, read_layer
from absence_plugins.commands.models import load_model
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.invert import Formula, UnitLabels, label_units
from absence_plugins.report import Panel
from absence_plugins.report.plots.labels import label_figure, label_panels


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for digit in (3, 6, 8):
        (tmp_path / "images" / str(digit)).mkdir(parents=True)
        for number, image in enumerate(digits.train_images[digits.train_labels == digit][:16]):
            save_image(image, tmp_path / "images" / str(digit) / f"{number}.png")
    (tmp_path / "attributes.csv").write_text("class,loop at the bottom,ink\n3,0,1\n6,1,1\n8,1,1\n")
    (tmp_path / "parents.csv").write_text("child,parent\n3,odd\n6,even\n8,even\n")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["label", *arguments, "--quiet", "--out", "page"])
    return result.exit_code, result.output


@pytest.mark.slow
def test_the_digits_are_named_and_the_page_says_what_each_not_is_worth(folder: Path) -> None:
    before = torch.get_rng_state()
    result = CliRunner().invoke(app, ["label", "--layer", "relu4", "--quiet", "--out", "page"])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1, "only the page's path"
    output = (folder / "page" / "labels.txt").read_text()
    assert "reading relu4: 64 channels, before its nonlinearity" in result.stderr
    assert torch.equal(torch.get_rng_state(), before)
    assert "64 of 64 units named (q <= 0.05), 29 of them with a NOT" in output
    assert "NOT loop on top is worth +0." in output
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "What a NOT is worth" in page
    assert "Unit 58: NOT vertical bar" in page
    assert "unit 54: stroke at the upper left AND NOT loop on top" in output
    assert "64 of 64 units named (q &lt;= 0.05), 29 of them with a NOT that is worth something" in page
    assert page.count("<img ") == 4 * 16  # twelve units with a NOT, four others
    lines = list(csv.DictReader((folder / "page" / "labels.csv").open()))
    assert {int(line["unit"]) for line in lines} == set(range(64))
    data = json.loads((folder / "page" / "labels.json").read_text())
    first = next(line for line in lines if line["unit"] == "54" and line["rank"] == "1")
    assert data["units"][54]["formulas"][0]["formula"] == first["formula"]
    assert (folder / "page" / "labels.txt").read_text().splitlines()[0].startswith("unit")
    assert result.stdout.rstrip().endswith("index.html")


def test_the_terminal_shows_the_strongest_units_only(folder: Path) -> None:
    result = CliRunner().invoke(app, ["label", "--layer", "linear2", "--out", "page"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    whole = (folder / "page" / "labels.txt").read_text().splitlines()
    named = [line for line in whole if line.startswith("  unit ")]
    assert len(lines) <= 8
    assert lines[1:-1][:5] == named[:5]
    assert f"and {len(named) - 5} more: see labels.txt and the page" in result.stdout or len(named) <= 5


def test_the_values_are_those_before_the_nonlinearity(folder: Path) -> None:
    loaded = load_model("digits")
    whole, digits = digit_samples(loaded), load_digits()
    assert len(whole) == 1797
    assert torch.equal(whole.picture(1796), digits.test_images[-1])
    images = digits.test_images[:150]
    samples = replace(whole, batches=Batches.of(images, 64), concepts=whole.concepts[:150])
    with torch.no_grad():
        linear = digits_cnn()[:11](images)
        conv = digits_cnn()[:7](images)
    for layer in ("linear1", "relu4"):
        torch.testing.assert_close(read_layer(loaded.model, layer, samples, progress=False), linear)
    for reduce, expected in (("mean", conv.mean((2, 3))), ("max", conv.amax((2, 3)))):
        for layer in ("conv3", "relu3"):
            torch.testing.assert_close(
                read_layer(loaded.model, Layer(layer, reduce=reduce), samples, progress=False), expected, rtol=1e-4, atol=1e-5
            )  # fmt: skip
    torch.testing.assert_close(read_layer(loaded.model, "", samples, progress=False), digits_cnn()(images).detach())
    assert all(not module._forward_hooks for module in loaded.model.modules())


def test_a_block_that_ends_in_an_inplace_rectifier_is_read_before_it() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.ReLU(inplace=True))))
    images = torch.randn(5, 1, 3, 3)
    samples = Samples(Batches.of(images, 3), lambda i: images[i], torch.ones(5, 1) > 0, ("a",), "")
    expected = model[0][0](images).mean((2, 3)).detach()
    for layer in ("0", "0.1", "0.1.0"):
        torch.testing.assert_close(read_layer(model, layer, samples, progress=False), expected)


def test_a_folder_with_attributes_and_hypernyms(folder: Path) -> None:
    options = ["--images", "images", "--attributes", "attributes.csv", "--hypernyms", "parents.csv"]
    code, output = run("--model", "digits", "--layer", "linear2", "--holdout", "0", *options)
    assert code == 0, output
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "48 images of images, 6 concepts; left out, as the same for all: ink" in page
    assert "no p- and q-values" in (folder / "page" / "labels.txt").read_text()
    lines = list(csv.DictReader((folder / "page" / "labels.csv").open()))
    best = {int(line["unit"]): Formula.parse(line["formula"]) for line in lines if line["rank"] == "1"}
    assert str(best[3]) == "3"  # the shortest, first spelling of what is also odd, and NOT loop at the bottom
    code, output = run("--model", "digits", "--layer", "linear2", "--mode", "negative", "--no-exact-pairs", *options)
    assert code == 0, output
    assert "a unit is low where its formula holds" in (folder / "page" / "labels.txt").read_text()
    loaded = load_model("digits")
    samples = folder_samples(folder / "images", loaded, folder / "attributes.csv", folder / "parents.csv")
    assert samples.names == ("3", "6", "8", "loop at the bottom", "odd", "even")
    assert samples.picture(0).shape == (1, 32, 32)


def test_the_page_says_what_chose_the_names_and_whether_that_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("absence_plugins.commands.label_page.SHOWN", 1)  # rows of the page
    monkeypatch.setattr("absence_plugins.commands.label_page.OTHERS", 1)
    loaded = load_model("digits")
    whole = digit_samples(loaded)
    images = load_digits().images[:100]
    samples = replace(whole, batches=Batches.of(images, 100), concepts=whole.concepts[:100])

    def page_of(**options: object) -> tuple[str, UnitLabels]:
        found = label_layer(loaded, "conv1", samples, tmp_path / "page", progress=False, **options)
        return " ".join(found.page.read_text(encoding="utf-8").split()), found.labels

    page, labels = page_of(score="iou", search="certified", min_support=3)
    assert "Formulas chosen by IoU, of the firing at a threshold; the highest is proven for all" in page
    for said in (
        "IoU, held out",
        "Fires at least",
        "Best IoU searched",
        ", proven that no formula has more",
        "every concept in it must earn its place",
    ):
        assert said in page, said
    assert all(one.certified and one.threshold is not None for one in labels)
    page, labels = page_of(prefer="score", search="certified", budget=1)
    assert any(one.bound > one.best.auc for one in labels)
    assert "none above" in page or "not certified: the bound is 1" in page
    assert "50 images to judge by are few: by chance alone an AUC is 0.08 off 0.5" in page
    assert "Formulas chosen by AUC; the highest is" in page
    assert "Fires at" not in page


def test_the_command_hands_its_options_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(
        "absence_plugins.commands.label.label_layer", lambda *_, **options: given.update(options) or 1 / 0
    )
    run(
        "--score",
        "iou",
        "--prefer",
        "score",
        "--search",
        "certified",
        "--length",
        "4",
        "--min-support",
        "9",
        "--budget",
        "1e6",
    )
    asked = {"score": "iou", "prefer": "score", "search": "certified", "length": 4, "min_support": 9, "budget": 1e6}
    assert asked.items() <= given.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "linear9"], "no layer 'linear9'; it has: linear1, linear2"),
        (["--model", "torchvision:resnet18", "--layer", "fc"], "--images must name a folder"),
        (["--attributes", "attributes.csv"], "name that folder too"),
        (["--images", "nowhere"], "images folder nowhere does not exist"),
        (["--images", "one"], "has one class only"),
        (["--reduce", "median"], "--reduce 'median' must be one of mean, max, min, sum, cls"),
        (["--mode", "both"], "--mode 'both' must be one of positive, negative"),
        (["--length", "0"], "--length 0 must be"),
        (["--score", "ioi"], "--score 'ioi' must be one of auc, auprc, f1, iou, correlation"),
        (["--prefer", "auc"], "--prefer 'auc' must be one of short, score"),
        (["--search", "all"], "--search 'all' must be one of auto, certified, beam"),
        (["--search", "certified", "--length", "5"], "--length 5 takes --search beam"),
        (["--search", "certified", "--no-exact-pairs"], "leave --no-exact-pairs out"),
        (["--min-support", "0"], "--min-support 0 must be"),
        (["--budget", "0"], "--budget 0.0 must be"),
        (["--holdout", "1"], "--holdout 1.0 leaves no images to search"),
    ],
)
def test_what_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "one" / "3").mkdir(parents=True)
    save_image(torch.rand(1, 8, 8), folder / "one" / "3" / "1.png")
    code, output = run(*arguments)
    assert code == 2
    assert message in output
    assert not (folder / "page").exists()


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "page").write_text("mine")
    code, output = run()
    assert code == 2
    assert "page is an existing file" in output
    assert (folder / "page").read_text() == "mine"


def test_the_figure_shows_scores_and_the_split() -> None:
    concepts = torch.arange(60)[:, None] % 3 == torch.arange(3)
    values = torch.where(concepts[:, 0], 2.0, 0.0) + torch.arange(60) / 100
    names = ["a $price$", "b", "c"]
    found = label_units(values, concepts, names, length=2, progress=False)[0]
    figure = label_figure(found, values, concepts, names)
    scores, split = figure.axes
    widths = [bar.get_width() + bar.get_x() for bar in scores.patches]
    assert widths == pytest.approx([one.auc for one in found.formulas])
    assert scores.texts[0].get_text() == f"a $price$ ({found.best.fraction:.0%})"
    assert [text.get_text() for text in split.get_legend().get_texts()] == ["does not hold (40)", "holds (20)"]
    figure.canvas.draw()
    assert len(label_figure(found).axes) == 1
    panels = label_panels(found, values, concepts, names)
    assert all(isinstance(panel, Panel) and panel.data.shape[0] == 3 for panel in panels)
    fired = replace(
        found,
        score="iou",
        threshold=1.5,
        formulas=(replace(found.best, score=0.4, heldout_score=0.3), *found.formulas[1:]),
    )
    scores, split = label_figure(fired, values, concepts, names).axes
    assert scores.get_xlabel() == "IoU"
    assert scores.patches[0].get_x() + scores.patches[0].get_width() == pytest.approx(0.4), (
        "bars of what chose the names"
    )
    assert scores.lines[0].get_xdata()[0] == 0.3
    assert [line.get_xdata()[0] for line in split.lines] == [1.5], "where the unit fires"
    captions = [panel.caption for panel in label_panels(fired, values, concepts, names)]
    assert captions[0].startswith("Bar: IoU, searched samples")
    assert "Line: from here on it fires (up)" in captions[1]
    with pytest.raises(ValueError, match="activations without concepts"):
        label_figure(found, values)
    with pytest.raises(ValueError, match="for 60 rows of concepts"):
        label_figure(found, values[:10], concepts, names)


@pytest.mark.parametrize(("choice", "groups"), [(None, 3), ("none", 4), ("groups.csv", 2)])
def test_groups_of_images_stay_on_one_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str | None, groups: int
) -> None:
    digits = load_digits()
    for name in ("a/1", "a/2", "b/3", "b/4"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(digits.images[int(name[-1]) % 4], tmp_path / "images" / f"{name}.png")
    copy = tmp_path / "images" / "b" / "4.png"
    copy.write_bytes((tmp_path / "images" / "a" / "1.png").read_bytes())
    (tmp_path / "groups.csv").write_text("file,group\na/1,x\na/2,x\nb/3,x\nb/4,y\n")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        samples = folder_samples(tmp_path / "images", load_model("digits"), groups=choice)
    assert samples.groups is not None
    assert samples.groups.count == groups
    copies = [str(one.message) for one in said if "exact copies of others (b/4.png = a/1.png)" in str(one.message)]
    assert len(copies) == (choice is None)


@pytest.mark.parametrize("command", ["label", "patches", "report"])
def test_groups_that_do_not_exist_are_refused_at_once(tmp_path: Path, command: str) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    save_image(torch.rand(1, 8, 8), tmp_path / "images" / "a" / "1.png")
    folder = ["--images"] if command == "label" else []
    found = CliRunner().invoke(app, [command, *folder, str(tmp_path / "images"), "--groups", "atuo"])
    assert found.exit_code == 2
    assert "--groups atuo: no such table; name one, or auto or none" in " ".join(found.output.split())
    found = CliRunner().invoke(app, [command, "--groups", "auto"])
    assert "--groups describes the files of a folder of images" in " ".join(found.output.split())

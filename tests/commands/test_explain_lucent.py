"""``absence-plugins explain --method lucent:LAYER:UNIT``: a unit's two sides on a page, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.maps.lucent import UnitName, unit_row
from absence_plugins.data import digits_cnn, load_digits


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for digit in (3, 8):
        (tmp_path / "references" / str(digit)).mkdir(parents=True)
        for number, image in enumerate(digits.train_images[digits.train_labels == digit][:6]):
            save_image(image, tmp_path / "references" / str(digit) / f"{number}.png")
    save_image(digits.test_images[digits.test_labels == 3][0], tmp_path / "three.png")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments, "--quiet", "--out", "page"])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("unit", "shown"),
    [("labels:3", "Logit 3"), ("conv3:5", "Channel 5 of conv3"), ("linear1:2", "Channel 2 of linear1")],
)
def test_a_page_with_both_sides(folder: Path, unit: str, shown: str) -> None:
    options = ["--references", "references", "--steps", "30"]
    code, output = run("three.png", "--model", "digits", "--method", f"lucent:{unit}", *options)
    assert code == 0, output
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    titles = [f"Drives {shown[0].lower()}{shown[1:]} up", "Real, highest", f"Drives {shown[0].lower()}{shown[1:]} down", "Real, lowest"]  # fmt: skip
    assert [page.index(f">{title}<") for title in titles] == sorted(page.index(f">{title}<") for title in titles)
    assert f"{shown}, from both sides" in page
    assert "on the 13 real images" in page  # three.png and twelve references
    assert "How to read this page" in page
    assert len(re.findall("<img ", page)) == 4


def test_without_references_the_page_says_so(folder: Path) -> None:
    code, output = run("three.png", "--model", "torchvision:resnet18", "--size", "100", "--method", "lucent:layer1.0:7",
                       "--steps", "1")  # fmt: skip
    assert code == 0, output
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "on the one real image it is" in page
    assert "--references FOLDER adds more" in page
    assert "without random shifts" not in page  # 100 pixels: Lucent's transforms


def test_the_row_is_measured_on_normalized_images_and_the_extremes_are_the_datas() -> None:
    model, digits = digits_cnn(), load_digits()
    pictures = digits.test_images[:20]
    with torch.no_grad():
        values = model(pictures * 2)[:, 4]
    row = unit_row(model, UnitName("labels", 4), pictures, lambda images: images * 2, steps=2, progress=False)
    real = values.sort().values
    assert row.panels[1].caption == "real: " + ", ".join(f"{float(value):.3g}" for value in real.flip(0)[:4])
    assert row.panels[3].caption == "real: " + ", ".join(f"{float(value):.3g}" for value in real[:4])
    low, high = float(real[0]), float(real[-1])
    up, down = (float(part) for part in row.facts[0][1].split(" / "))
    assert low < down  # two steps are too few
    assert up < high
    assert "did not get below the real images; raise --steps" in row.sentence
    assert "did not get above the real images; raise --steps" in row.sentence
    assert "holds the unit down" not in row.sentence
    again = unit_row(model, UnitName("labels", 4), pictures, lambda images: images * 2, steps=2, progress=False)
    assert again.facts == row.facts
    assert torch.equal(torch.as_tensor(again.panels[0].data), torch.as_tensor(row.panels[0].data))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "lucent:conv3"], "must read lucent:LAYER:UNIT"),
        (["--method", "lucent::3"], "must read lucent:LAYER:UNIT"),
        (["--method", "lucent:conv3:x"], "must read lucent:LAYER:UNIT"),
        (["--method", "lucent:conv9:3"], "no layer 'conv9'; it has: conv1"),
        (["--method", "lucent:conv3:999"], "there is no unit 999: it has 32 channels"),
        (["--method", "lucent:conv3:1", "--steps", "0"], "--steps 0 must be at least 1"),
        (["--method", "lucent:conv3:1", "--target", "3"], "leave --target and --contrast out"),
    ],
)
def test_what_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    code, output = run("three.png", "--model", "digits", *arguments)
    assert code == 2
    assert message in output
    assert not (folder / "page").exists()

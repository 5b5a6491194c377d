"""``absence-plugins explain --method zennit:NAME``: every composite, the maps behind it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.utils import save_image
from typer.testing import CliRunner
from zennit.attribution import Gradient
from zennit.composites import COMPOSITES, EpsilonPlus

from absence_plugins import ReferenceSet
from absence_plugins.cli import app
from absence_plugins.commands.maps.explainers import explainer
from absence_plugins.commands.maps.zennit import ZennitMaps, canonizers_for
from absence_plugins.data import digits_cnn, load_digits

KEYS = sorted(name.removeprefix("absence_") for name in COMPOSITES if name.startswith("absence_"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for digit in (3, 8):
        (tmp_path / "references" / str(digit)).mkdir(parents=True)
        for number, image in enumerate(digits.train_images[digits.train_labels == digit][:4]):
            save_image(image, tmp_path / "references" / str(digit) / f"{number}.png")
    save_image(digits.test_images[digits.test_labels == 3][0], tmp_path / "three.png")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments, "--quiet", "--out", "page"])
    return result.exit_code, result.output


def test_there_are_eight_composites() -> None:
    assert len(KEYS) == 8


@pytest.mark.parametrize("key", KEYS)
def test_every_composite_makes_a_page(folder: Path, key: str) -> None:
    options = ["--references", "references", "--contrast", "8", "--k", "2"]
    code, output = run("three.png", "--model", "digits", "--method", f"zennit:{key}", *options)
    assert code == 0, output
    page = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert f"explained with Zennit {ZennitMaps(key).composite.__name__.removeprefix('Absence')}" in page
    assert "Its absence part" in page
    assert key != "guided_backprop" or "is local" in page  # the warning reaches whoever reads only the page


def test_names_are_taken_in_every_spelling() -> None:
    for name in ("zennit:epsilon_plus_flat", "zennit:EpsilonPlusFlat", "zennit:AbsenceEpsilonPlusFlat"):
        assert explainer(name).name == "Zennit EpsilonPlusFlat"


@pytest.mark.parametrize("name", ["zennit:lrp", "zennit:", "zennit:deconvnet", "zennit:beta_smooth"])
def test_what_is_refused(folder: Path, name: str) -> None:
    code, output = run("three.png", "--model", "digits", "--method", name)
    assert code == 2
    assert "absences" in output
    assert "epsilon_gamma" in output or "AbsenceEpsilonGamma" in output
    assert not (folder / "page").exists()


def test_the_standard_map_is_that_of_zennit() -> None:
    model, x = digits_cnn(), load_digits().test_images[:1]
    found = ZennitMaps("epsilon_plus").standard(model, x, 3, 10, torch.zeros_like(x))
    _, expected = Gradient(model, EpsilonPlus(), lambda output: output * torch.eye(10)[3])(x.clone())
    assert torch.equal(found, expected)


def test_the_maps_sum_to_differences_of_the_output() -> None:
    model, digits = digits_cnn(), load_digits()
    x, maps = digits.test_images[:1], ZennitMaps()
    with torch.no_grad():
        u, empty = model(x)[0], model(torch.zeros_like(x))[0]
    found = maps.nontarget(model, x, 0, 4, torch.zeros_like(x))
    assert float(found.attribution.sum()) == pytest.approx(float(u[4] - empty[4]), abs=1e-3)
    assert found.output == pytest.approx(float(u[4]), abs=1e-5)
    references = ReferenceSet(digits.train_images, digits.train_labels, contrast=8, k=3)
    with torch.no_grad():
        against = model(references.nearest(x)[0])[:, 2].mean()
    found = maps.against(model, x, 2, references)
    assert float(found.attribution.sum()) == pytest.approx(float(u[2] - against), abs=1e-3)
    nontarget = maps.nontarget_against(model, x, 0, 4, ReferenceSet(digits.train_images, digits.train_labels, k=3))
    assert bool((nontarget.absence >= 0).all())


def test_a_single_logit() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    x, blank = torch.rand(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    contributions = (x.flatten() * net[1].weight[0]).detach().view_as(x)
    assert torch.allclose(ZennitMaps("epsilon_plus").standard(net, x, 0, 1, blank), contributions, atol=1e-5)
    assert torch.allclose(ZennitMaps().nontarget(net, x, 0, "negated", blank).attribution, -contributions, atol=1e-6)


def test_resnets_get_their_canonizer() -> None:
    from torchvision.models import resnet18, vgg11

    with torch.device("meta"):
        assert len(canonizers_for(resnet18(weights=None))) == 2
        assert canonizers_for(vgg11(weights=None)) == []
    torch.manual_seed(0)
    model, x = resnet18(weights=None).eval(), torch.rand(1, 3, 32, 32)
    maps, blank = ZennitMaps("epsilon_plus"), torch.full((1, 3, 32, 32), 0.5)
    with torch.no_grad():
        difference = float((model(x) - model(blank))[0, 7])
    found = maps.nontarget(model, x, 3, 7, blank)
    assert float(found.attribution.sum()) == pytest.approx(difference, rel=1e-2, abs=1e-4)
    assert maps.standard(model, x, 3, 1000, blank).shape == x.shape

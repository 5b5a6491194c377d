"""``absence-plugins demo``: encoded absences in real handwritten digits, on one page.

For every ordered pair of digits (a, b) it measures how far logit a falls when the strokes that an a
lacks, compared with the nearest b, are pasted in; the pairs with the largest falls are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins import Explanation, ReferenceSet
from absence_plugins.captum import AbsenceDeepLift, AbsenceIntegratedGradients
from absence_plugins.commands.demo_reasons import HOW_TO_READ as REASONS
from absence_plugins.commands.demo_reasons import Asked, accentuation_row, carrier_row, missing_row
from absence_plugins.commands.maps.lucent import UnitName, unit_row
from absence_plugins.commands.maps.zennit import ZennitMaps
from absence_plugins.commands.pasting import insert_missing
from absence_plugins.commands.provenance import provenance
from absence_plugins.core.files import require_folder, write_json
from absence_plugins.data import DigitData, digits_cnn, load_digits
from absence_plugins.methods.regions import RegionTest
from absence_plugins.report import Page, Panel, Row, Table, write_page
from absence_plugins.report.pages.page import row_id

CANDIDATES = 6  # held-out images of a class in which a pair is measured
RANKING_DRAWS = 8  # random controls per image while ranking; the page's own tests draw more
STEPS = 256

LEAD = """A network that says "{a}" has also looked for what a {a} must not have. This page shows it on the {pairs}
for which it matters most to the bundled network. Red are strokes that are not in the image, and whose absence raises
the output.

Standard attribution compares the image with a black one. Where the image is black nothing differs, so nothing
missing can appear. Compared with the nearest real images of another digit, the missing strokes stand out; and on an
image that has them, the same logit shows them in blue, holding it down.

Order: all 90 pairs of digits were measured on {candidates} held-out images each, and the table begins with the pair for which the
logit falls furthest beyond the control; no digit is explained twice, and of each pair the image with the median effect
is shown."""

HOW_TO_READ = (
    (
        "Standard map",
        "Integrated gradients of the digit's logit against a black image: only pixels that are not black can be "
        "colored. "
        "The thin gray line is the outline of the ink, at half its brightness.",
    ),
    ("Non-target map", "The same logit, explained on an image of the other digit. Blue: ink that holds it down."),
    (
        "Missing strokes",
        "The logit on the image, compared with the 8 nearest real images of the other digit. Shown are the places where "
        "the references have ink and the image has none: evidence for an absence.",
    ),
    (
        "Zennit's maps",
        "The same questions about the first pair, answered by layer-wise relevance propagation instead of integrated "
        "gradients: first Zennit's own composite, then AbsenceEpsilonGamma, which propagates the difference between the "
        "image and its 8 nearest references.",
    ),
    (
        "From both sides",
        "The last row shows one logit without any image in hand: Lucent optimizes one picture that raises it and one "
        "that lowers it, from the same noise, beside the real digits on which it is highest and lowest.",
    ),
    (
        "Pasting test",
        "The strongest pixels of the missing strokes are copied from the nearest reference into the image; the control "
        "copies the same shape, with its content, to random other places, 32 times. Logits are compared by "
        "how far they fall. "
        "The network was trained with random bright pixels as noise, so it tolerates the control more than strokes.",
    ),
)


@dataclass(frozen=True)
class Pair:
    """How much logit ``digit`` misses the strokes of ``other``: mean change of the logit over held-out images."""

    digit: int
    other: int
    change: float
    random_change: float
    samples: tuple[int, ...]  # held-out indices, the median effect first

    @property
    def effect(self) -> float:
        """How much further the logit falls than for random pixels (positive: an encoded absence)."""
        return self.random_change - self.change


def logit(model: nn.Module, index: int) -> Callable[[Tensor], Tensor]:
    """One logit as a function of images."""
    return lambda images: model(images)[:, index]


def rank_pairs(model: nn.Module, data: DigitData, *, seed: int = 0, progress: bool = True) -> list[Pair]:
    """Every ordered pair of digits, the largest encoded absence first.

    One attribution per digit: each of its held-out images against its nearest image of every other digit.
    """
    with torch.no_grad():
        right = model(data.test_images).argmax(1) == data.test_labels
    references = ReferenceSet(data.train_images, data.train_labels, k=1)
    method = AbsenceDeepLift(model, nontarget=None, evidence="absence")
    pairs = []
    for digit in tqdm(range(10), desc="measuring 90 pairs of digits", disable=not progress):
        rows = (right & (data.test_labels == digit)).nonzero().flatten()[:CANDIDATES]
        others = [other for other in range(10) if other != digit]
        x = data.test_images[rows].repeat_interleave(len(others), 0)
        nearest = references.nearest(x, label=torch.tensor(others * len(rows)))
        assert isinstance(nearest, Tensor)
        maps = method.attribute(x, baselines=nearest[:, 0], target=digit)
        tests = [
            insert_missing(logit(model, digit), image, reference, absence, seed=seed, draws=RANKING_DRAWS)
            for image, reference, absence in zip(x, nearest[:, 0], maps, strict=True)
        ]
        changes = torch.tensor([[test.change, test.random_change] for test in tests]).view(len(rows), len(others), 2)
        for column, other in enumerate(others):
            effects = changes[:, column, 1] - changes[:, column, 0]
            order = (effects - effects.median()).abs().argsort(stable=True)
            mean = changes[:, column].mean(0)
            pairs.append(Pair(digit, other, float(mean[0]), float(mean[1]), tuple(rows[order].tolist())))
    return sorted(pairs, key=lambda pair: -pair.effect)


def distinct(pairs: list[Pair], count: int) -> list[Pair]:
    """The first ``count`` pairs in which neither the explained digit nor the two digits come twice."""
    chosen: list[Pair] = []
    for pair in pairs:
        if all(
            pair.digit != known.digit and {pair.digit, pair.other} != {known.digit, known.other} for known in chosen
        ):
            chosen.append(pair)
    return chosen[:count]


@dataclass(frozen=True, eq=False)
class _Case:
    """What a row is about: an image x [1, 1, 32, 32] of digit a, the nearest one of digit b, and the pixel test."""

    pair: Pair
    x: Tensor
    other: Tensor
    found: Explanation
    test: RegionTest

    @property
    def a(self) -> int:
        """The digit that is explained."""
        return self.pair.digit

    @property
    def b(self) -> int:
        """The digit whose strokes it lacks."""
        return self.pair.other

    @property
    def article(self) -> str:
        """Before digit b."""
        return _article(self.b)

    def signed(self, attribution: Tensor, title: str, caption: str, under: Tensor) -> Panel:
        """A map of logit a over an image."""
        positive, negative = f"raises logit {self.a}", f"holds logit {self.a} down"
        return Panel("signed", attribution[0], title, caption, underlay=under[0], positive=positive, negative=negative)

    def absence(self, absence: Tensor, title: str, caption: str) -> Panel:
        """An absence part over the image."""
        positive = f"its absence raises logit {self.a}"
        return Panel("absence", absence[0], title, caption, underlay=self.x[0], positive=positive)


def examine(model: nn.Module, data: DigitData, pair: Pair, *, seed: int = 0) -> _Case:
    """A pair on the image whose effect is the median one: its nearest other digit, its map and the pixel test."""
    a, b, index = pair.digit, pair.other, pair.samples[0]
    x = data.test_images[index : index + 1]
    references = ReferenceSet(data.train_images, data.train_labels, contrast=b)
    nearest = references.nearest(x)
    assert isinstance(nearest, Tensor)
    found = AbsenceIntegratedGradients(model, reference=references).explain(x, target=a, n_steps=STEPS)
    test = insert_missing(logit(model, a), x[0], nearest[0, 0], found.absence[0], seed=seed)
    return _Case(pair, x, nearest[:, 0], found, test)


def pair_row(model: nn.Module, case: _Case) -> Row:
    """The page's row for a pair, by integrated gradients."""
    return Row(_heading(case.pair), _sentence(case), digit_panels(model, case), _facts(case))


def zennit_row(model: nn.Module, data: DigitData, case: _Case) -> Row:
    """The first pair once more, by layer-wise relevance propagation."""
    sentence = (
        f"The {case.a} and the {case.b} of the first row, explained by relevance propagation: Zennit's own map shows ink "
        "that is there; with the absence part of this package the same strokes appear that integrated gradients found."
    )
    return Row("The same by Zennit", sentence, _zennit_panels(model, data, case))


def order_table(pairs: list[Pair]) -> Table:
    """The pairs that are shown, in their order, with the numbers that it goes by."""
    rows = tuple(
        (_heading(p), f"{-p.change:.1f}", f"{-p.random_change:.1f}", f"{p.effect:.1f}", f"{CANDIDATES} images")
        for p in pairs
    )
    return Table(
        "The pairs, the largest difference first",
        ("pair", "fall: missing strokes", "fall: the same shape elsewhere", "difference", "mean over"),
        rows,
        tuple(f"#{row_id(number)}" for number in range(1, len(pairs) + 1)),
    )


def _heading(pair: Pair) -> str:
    return f"{pair.digit}, because not {pair.other}"


def _article(digit: int) -> str:
    return "an" if digit == 8 else "a"


def digit_panels(model: nn.Module, case: _Case) -> tuple[Panel, ...]:
    """The images and their maps by integrated gradients, and the image with the missing strokes."""
    a, b, test = case.a, case.b, case.test
    standard = AbsenceIntegratedGradients(model, nontarget=None).attribute(case.x, target=a, n_steps=STEPS)
    nontarget = AbsenceIntegratedGradients(model, nontarget=a).attribute(case.other, target=b, n_steps=STEPS)
    missing = f"Red: missing here, there in {case.article} {b}; its absence raises logit {a}."
    blue = f"Blue: ink of the {b} that holds logit {a} down."
    pasted = f"Logit {a}: {test.before:.1f} becomes {test.after:.1f}."
    return (
        Panel("image", case.x[0], f"The image: {_article(a)} {a}", f"held-out image {case.pair.samples[0]}"),
        case.signed(standard, f"Standard map of logit {a}", "Against black: only ink that is there.", case.x),
        Panel("image", case.other[0], f"The nearest {b}", "It has the strokes in question."),
        case.signed(nontarget, f"Non-target map: logit {a} on the {b}", blue, case.other),
        case.absence(case.found.absence, f"Missing strokes that raise logit {a}", missing),
        Panel("image", test.image, "Missing strokes pasted in", pasted),
    )


def _zennit_panels(model: nn.Module, data: DigitData, case: _Case) -> tuple[Panel, ...]:
    """The same four maps by layer-wise relevance propagation, the first as Zennit has it."""
    maps, a, b, x = ZennitMaps(), case.a, case.b, case.x
    pool = data.train_images, data.train_labels
    standard = maps.standard(model, x, a, 10, torch.zeros_like(x))
    nontarget = maps.nontarget_against(model, case.other, b, a, ReferenceSet(*pool))
    found = maps.against(model, x, a, ReferenceSet(*pool, contrast=b))
    ink = f"{maps.host.__name__} of logit {a}: ink that is there."
    on_other = f"Logit {a} on the {b}, against its 8 nearest {a}s."
    return (
        case.signed(standard, "Zennit: standard map", ink, x),
        case.signed(nontarget.attribution, "Zennit: non-target map", on_other, case.other),
        case.signed(found.attribution, "Zennit: reference map", f"The {a} against its 8 nearest {b}s.", x),
        case.absence(found.absence, "Zennit: its absence part", "The same strokes, found by relevance."),
    )


def _sentence(case: _Case) -> str:
    a, b, test = case.a, case.b, case.test
    share = -test.change / max(1e-9, -test.random_change) if test.random_change < 0 else float("inf")
    compared = f"{share:.1f} times as far as" if share < 100 else "while it does not fall for"
    return (
        f"The network calls this {_article(a)} {a} also because strokes of {case.article} {b} are missing. Pasting in "
        f"the {test.pixels} missing pixels that the map names makes logit {a} fall by {-test.change:.1f} (from "
        f"{test.before:.1f} to {test.after:.1f}), {compared} the same pixels at random places "
        f"({-test.random_change:.1f} on average)."
    )


def _facts(case: _Case) -> tuple[tuple[str, str], ...]:
    pair, found, test = case.pair, case.found, case.test
    outputs = ""
    if found.reference_output is not None:
        outputs = f"{float(found.output[0]):.1f} / {float(found.reference_output.mean()):.1f}"
    return (
        ("Mean fall, missing strokes", f"{-pair.change:.1f}"),
        ("Mean fall, random pixels", f"{-pair.random_change:.1f}"),
        ("This image, missing strokes", f"{-test.change:.1f}"),
        ("This image, random pixels", f"{-test.random_change:.1f} ± {test.random_sd:.1f}"),
        ("Pixels pasted", f"{test.pixels} of {case.x[0, 0].numel()}"),
        (f"Logit {case.a} here / on the {case.b}s", outputs),
    )


def run_demo(out: Path | str, *, pairs: int = 3, seed: int = 0, progress: bool = True) -> Path:
    """Measure, explain and write the page; returns the path of ``index.html``.

    Beside it: ``results.json`` with all 90 measurements. Raises ValueError if ``out`` is a file.
    """
    if not 1 <= pairs <= 9:
        raise ValueError(f"pairs={pairs} must lie between 1 and 9; each explained digit is shown once")
    out = require_folder(out)
    model, data = digits_cnn(), load_digits()
    ranked = rank_pairs(model, data, seed=seed, progress=progress)
    chosen = distinct(ranked, pairs)
    cases = [examine(model, data, pair, seed=seed) for pair in tqdm(chosen, desc="explaining", disable=not progress)]
    sides = unit_row(
        model,
        UnitName("labels", chosen[0].digit),
        data.train_images,
        lambda images: images,
        seed=seed,
        progress=progress,
    )
    first = cases[0]
    asked = Asked(model, data, first.x, first.a, first.b)
    page = Page(
        title="What is missing counts: encoded absences in handwritten digits",
        lead=LEAD.format(a=chosen[0].digit, pairs="digit" if pairs == 1 else f"{pairs} digits", candidates=CANDIDATES),
        rows=(
            *(pair_row(model, case) for case in cases),
            zennit_row(model, data, first),
            missing_row(asked),
            carrier_row(asked),
            accentuation_row(asked, seed=seed, progress=progress),
            sides,
        ),
        how_to_read=(*HOW_TO_READ, *REASONS),
        footer="Real digits (scikit-learn), the network that ships with absence_plugins, nothing retouched.",
        provenance=provenance(seed=seed, command=f"absence-plugins demo --pairs {pairs} --seed {seed}"),
        table=order_table(chosen),
    )
    path = write_page(page, out)
    _write_results(out / "results.json", ranked, chosen, [case.test for case in cases])
    return path


def _write_results(path: Path, ranked: list[Pair], chosen: list[Pair], tests: list[RegionTest]) -> None:
    results: dict[str, Any] = {
        "pairs": [
            {"digit": p.digit, "other": p.other, "change": p.change, "random_change": p.random_change} for p in ranked
        ],
        "shown": [
            {"digit": p.digit, "other": p.other, "image": p.samples[0], **t.to_dict()}
            for p, t in zip(chosen, tests, strict=True)
        ],
    }
    write_json(path, results)

"""The regions of a photograph that a map names, blanked or pasted one by one: panels, and a sentence for each claim."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.commands.maps.explainers import Explainer, Found
from absence_plugins.commands.question import PIECES, Question
from absence_plugins.commands.rows import denormalize
from absence_plugins.core.filling import Filling
from absence_plugins.core.made_references import make_reference
from absence_plugins.methods.regions import RegionTest, RegionTests, measure_regions, segment, strongest_regions
from absence_plugins.methods.regions.measure import DEFAULT, DRAWS
from absence_plugins.report import Panel

REGIONS = 3  # of every map
RIVALS = 3  # non-targets that are asked about, where none is named
SHARE = (0.05, 0.15)  # the smallest and the largest region, as shares of the image: the truest on photographs
BASE: Filling = "blurred"  # what a non-target's map is against: black is content, too (docs/how-to/references.md)
OTHERS: tuple[Filling, ...] = ("grey", "inpainted")
OUTLINE = torch.tensor([1.0, 0.85, 0.0])
LINE = 100  # an outline is a 100th of the image wide


@dataclass(frozen=True)
class Findings:
    """What one map adds to an image's row.

    Attributes:
        panels: maps and pictures.
        sentence: the claim and what the network says of it.
        is_borne: whether the network bears it out.
        output, tested: facts; None where there is none.
    """

    panels: tuple[Panel, ...]
    sentence: str
    is_borne: bool
    output: tuple[str, str] | None = None
    tested: tuple[str, str] | None = None

    def add_to(
        self, panels: list[Panel], facts: list[tuple[str, str]], sentences: list[str], last: list[tuple[str, str]]
    ) -> None:
        """Append all parts to those of the row."""
        panels += self.panels
        sentences.append(self.sentence)
        facts += [self.output] if self.output else []
        last += [self.tested] if self.tested else []


def count_forwards(rivals: int, has_others: bool, is_made: bool) -> int:
    """About how many forwards the regions of one photograph take: ``rivals`` non-targets (0: none is explained)."""
    each = 1 + len(OTHERS) + DRAWS
    own = (1 if is_made else REGIONS) * each if has_others else 0
    return REGIONS * rivals * each + own


def find_held_down(asked: Question, method: Explainer, rivals: int, seed: int) -> Findings:
    """Of several non-targets the one that a region holds down most: its map, and its regions blanked one by one."""
    questions = [asked] if rivals == 1 else asked.ask_others(rivals)
    blurred = make_reference(asked.x, BASE)
    model, labels = asked.loaded.model, asked.pieces
    maps = [method.nontarget(model, asked.x, asked.target, each.asked, blurred) for each in questions]
    regions = [_regions(-found.attribution[0], labels) for found in maps]
    columns = [number for number, each in enumerate(regions) for _ in each]
    choices = [each.other for each in questions if each.other is not None]
    tests = measure_regions(
        lambda images: asked.read_choices([*choices, asked.own], images),
        asked.x[0],
        torch.cat(regions),
        DEFAULT,
        columns=columns,
        target=len(choices),
        others=OTHERS,
        seed=seed,
    )
    number = 0 if tests.best is None else tests.tests[tests.best].column
    shown, found = questions[number], maps[number]
    assert shown.other is not None
    name = shown.other_brief
    caption = f"Non-target map, against the image {BASE}. Blue: content that {shown.colors(shown.other)[1]}."
    panel = shown.signed(found.attribution, f"What holds {name} down", caption, shown.other)
    panels = (panel, *_pictures(asked, tests, name, number))
    said = (f"The outlined region holds {name} down", DEFAULT, len(questions))
    nothing = f"No region of the image holds {name} down in the map, so there is nothing to test."
    sentence = _sentence(asked, tests, name, *said) if tests.tests else nothing
    output = (f"Output of {shown.other_label}", f"{found.output:.2f}")
    return Findings(panels, sentence, tests.is_borne, output, _fact("Blanking what suppresses", tests))


def find_target_held_down(asked: Question, found: Found, panels: tuple[Panel, ...], seed: int) -> Findings:
    """The strongest region that holds the target itself down, blanked."""
    regions = _regions(-found.attribution[0], asked.pieces)[:1]
    tests = measure_regions(asked.read_target, asked.x[0], regions, DEFAULT, others=OTHERS, seed=seed)
    name = asked.brief
    pictures = _pictures(asked, tests, name)
    nothing = f"No region of the image holds {name} itself down in the map, so there is nothing to test."
    claim = f"A region holds {name} itself down"
    sentence = _sentence(asked, tests, name, claim, DEFAULT, 1) if tests.tests else nothing
    return Findings((*panels, *pictures), sentence, tests.is_borne, tested=_fact("Blanking, target", tests))


def find_missing(
    asked: Question, found: Found, reference: Tensor, source: str, panels: tuple[Panel, ...], seed: int
) -> Findings:
    """What the reference has and the photograph lacks, pasted region by region: the target must fall."""
    regions = _regions(found.absence[0], segment(denormalize(reference, asked.loaded), PIECES))
    tests = measure_regions(asked.read_target, asked.x[0], regions, reference, rises=False, seed=seed)
    name = asked.brief
    pictures = _pictures(asked, tests, name)
    claim = f"What {source} has in the outlined region is missing here, and that raises {name}"
    nothing = f"The map names no region of {source} whose absence here raises {name}, so there is nothing to test."
    sentence = _sentence(asked, tests, name, claim, "pasted in", 1) if tests.tests else nothing
    return Findings((*panels, *pictures), sentence, tests.is_borne, tested=_fact("Pasting what is missing", tests))


def outline(picture: Tensor, where: Tensor) -> Tensor:
    """A picture [C, H, W] in [0, 1] with the outline of a region [H, W] around it, [3, H, W].

    >>> outline(torch.zeros(1, 3, 3), torch.eye(3) * 0 + torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]]) > 0)[0, 1].tolist()
    [1.0, 0.0, 1.0]
    """
    colored = picture.expand(3, *picture.shape[1:]).clone()
    width = max(1, round(max(where.shape) / LINE))
    grown = F.max_pool2d(where.float()[None, None], 2 * width + 1, 1, width)[0, 0] > 0
    colored[:, grown & ~where] = OUTLINE.to(colored)[:, None]
    return colored


def _regions(evidence: Tensor, labels: Tensor) -> Tensor:
    return strongest_regions(evidence, labels, REGIONS, share=SHARE)


def _pictures(asked: Question, tests: RegionTests, name: str, column: int = 0) -> tuple[Panel, ...]:
    """The photograph with the best region outlined, and with each region of one output changed, the best first."""
    mine = [pair for pair in zip(tests.borne, tests.tests, strict=True) if pair[1].column == column]
    mine.sort(key=lambda pair: (not pair[0], not pair[1].is_borne, -pair[1].gain))
    panels: list[Panel] = []
    for number, (is_borne, test) in enumerate(mine, 1):
        if number == 1:
            caption = f"{test.share:.0%} of the image."
            panels.append(Panel("image", outline(asked.picture, test.where), "The strongest region", caption))
        changed = denormalize(test.image, asked.loaded)
        caption = f"{_numbers(asked, test, name)}; the same shape elsewhere {_elsewhere(test)}. "
        caption += "Borne out." if is_borne else "Not borne out."
        title = "The region" if number == 1 else f"Region {number}"
        panels.append(Panel("image", outline(changed, test.where), f"{title}, {tests.how}", caption))
    return tuple(panels)


def _numbers(asked: Question, test: RegionTest, name: str) -> str:
    digits = _digits(test)
    said = f"{name} {test.before:.{digits}f} → {test.after:.{digits}f}"
    if test.target_before is not None and test.target_after is not None:
        said += f"; {asked.brief} {test.target_before:.{digits}f} → {test.target_after:.{digits}f}"
    return said


def _digits(test: RegionTest) -> int:
    """Decimals that tell the output before from the output after: one, up to four where they are close."""
    if abs(test.change) <= test.least:
        return 1
    return next((n for n in range(1, 4) if round(test.before, n) != round(test.after, n)), 4)


def _elsewhere(test: RegionTest) -> str:
    digits = _digits(test)
    return f"{test.random_change:+z.{digits}f} ± {test.random_sd:.{digits}f}"


def _sentence(asked: Question, tests: RegionTests, name: str, claim: str, done: str, outputs: int) -> str:
    """What the network says of the strongest region, first in few words, then how it was measured."""
    assert tests.best is not None
    test = tests.tests[tests.best]
    digits = _digits(test)
    way = "stays" if abs(test.change) <= test.least else "rises" if test.change > 0 else "falls"
    moved = f"at {test.before:.1f}" if way == "stays" else f"from {test.before:.{digits}f} to {test.after:.{digits}f}"
    measured = f"with it {done}, {name} {way} {moved} (elsewhere {_elsewhere(test)})"
    if test.target_before is not None and test.target_after is not None:
        measured += f", {asked.brief} goes from {test.target_before:.{digits}f} to {test.target_after:.{digits}f}"
    first = f"{claim}; {measured}." if tests.is_borne else f"Not borne out: {claim[0].lower()}{claim[1:]}; {measured}."
    count = len(tests.tests)
    looked = f"Looked at: {count} region{'s' * (count > 1)}" + (f" for {outputs} outputs" if outputs > 1 else "")
    compared = (
        "the strongest of as many elsewhere goes as far, by its own standard,"
        if count > 1
        else "elsewhere it goes as far"
    )
    draws = len(test.random_values)
    reached = round(tests.p * (draws + 1)) - 1
    said = [
        f"{looked}; {compared} in {reached} of {draws} draws (p = {tests.p:.2f}).",
        *([] if tests.is_borne else [tests.verdict()]),
    ]
    if test.disagreeing:
        changes = ", ".join(f"{kind} {test.others[kind]:+z.{digits}f}" for kind in test.disagreeing)
        said.append(f"The fillings disagree: {changes}.")
    return "\n\n".join((first, " ".join(said)))


def _fact(title: str, tests: RegionTests) -> tuple[str, str] | None:
    if tests.best is None:
        return None
    test = tests.tests[tests.best]
    return title, f"{test.change:+.2f}, elsewhere {test.random_change:+.2f}"

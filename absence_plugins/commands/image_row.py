"""One image of ``absence-plugins explain``: its maps, and what the network says of them."""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor

from absence_plugins.commands.maps.explainers import Explainer, Found
from absence_plugins.commands.maps.relevance import RelevanceMaps
from absence_plugins.commands.pasting import insert_missing, remove_suppressor
from absence_plugins.commands.photograph_row import (
    Findings,
    find_held_down,
    find_missing,
    find_target_held_down,
)
from absence_plugins.commands.question import Question
from absence_plugins.commands.reasons import find_smallest, name_carriers, switch_off
from absence_plugins.commands.references import ChosenReferences
from absence_plugins.commands.rows import denormalize
from absence_plugins.core.maps import split_by_sign
from absence_plugins.methods.regions import RegionTest
from absence_plugins.report import Panel, Row

CONTROL = "at random places the same shape changes it on average by"


def explain_row(
    name: str,
    asked: Question,
    method: Explainer,
    chosen: ChosenReferences | None,
    seed: int,
    verdicts: dict[str, bool],
    rivals: int = 1,
) -> Row:
    """One image's maps and tests; ``verdicts`` gets what the network says of each kind of map.

    rivals: of so many non-targets the one is shown that a region of a photograph is measured to hold down most.
    """
    shared = method.on_image(asked.loaded.model, asked.x) if isinstance(method, RelevanceMaps) else nullcontext(method)
    with shared as maps:
        return _make_row(name, asked, maps, chosen, seed, verdicts, rivals)


def _make_row(
    name: str,
    asked: Question,
    method: Explainer,
    chosen: ChosenReferences | None,
    seed: int,
    verdicts: dict[str, bool],
    rivals: int,
) -> Row:
    label, count = asked.label, asked.outputs.shape[1]
    standard = method.standard(asked.loaded.model, asked.x, asked.target, count, asked.blank[None])
    panels = [
        Panel("image", asked.picture, "The image", name),
        asked.signed(standard, f"Standard map: {label}", method.standard_caption, asked.own),
    ]
    facts = [(f"Output of {label}", f"{float(asked.own.values(asked.outputs)):.2f}")]
    sentences: list[str] = []
    last: list[tuple[str, str]] = []
    if asked.other is None:
        sentences.append(
            "The model has one output, so there is no other one to explain."
            if asked.own.single
            else "The outputs are behind a sigmoid: labels that are no rivals. --nontarget names another one to explain."
        )
    else:
        found = find_held_down(asked, method, rivals, seed) if asked.is_photograph else _other(asked, method, seed)
        found.add_to(panels, facts, sentences, last)
        verdicts["non-target"] = found.is_borne
    if chosen is not None:
        found = _compare(asked, method, chosen, seed)
        found.add_to(panels, facts, sentences, last)
        verdicts["reference"] = found.is_borne
        if not chosen.made:
            nearest = _nearest(asked, chosen)
            smallest, pictures = find_smallest(asked, nearest)
            carried, worth = name_carriers(asked, nearest)
            changed, switched = switch_off(asked, seed)
            sentences += [smallest, carried, changed]
            panels += [*pictures, *switched]
            last += worth
        sentences.append(" ".join(chosen.notes))
    between = "\n\n" if asked.is_photograph else " "
    return Row(f"{name}: {label}", between.join(filter(None, sentences)), tuple(panels), tuple(facts + last))


def _other(asked: Question, method: Explainer, seed: int) -> Findings:
    """The other output's map, its value, and what happens when what holds it down is blanked."""
    other = asked.other_label
    absent = method.nontarget(asked.loaded.model, asked.x, asked.target, asked.asked, asked.blank[None])
    negative = split_by_sign(absent.attribution[0])[1]
    removal = remove_suppressor(asked.read_other, asked.x[0], negative, asked.blank, seed=seed)
    assert asked.other is not None
    title = f"Non-target map: {other}"
    if asked.other.kind == "nontarget":
        title += f", which is not the target {asked.label}"
    panel = asked.signed(absent.attribution, title, f"Blue: content that {asked.colors(asked.other)[1]}.", asked.other)
    sentence = (
        f"Non-target map: blanking the {_region(removal)} that hold {other} down most changes its output by "
        f"{_changes(removal)}. {removal.verdict()}"
    )
    tested = ("Blanking what suppresses", f"{removal.change:+.2f}, elsewhere {removal.random_change:+.2f}")
    return Findings((panel,), sentence, removal.is_borne, (f"Output of {other}", f"{absent.output:.2f}"), tested)


def _region(test: RegionTest) -> str:
    """What was changed, in words."""
    return f"{test.pixels} pixel{'s' * (test.pixels != 1)}"


def _changes(test: RegionTest) -> str:
    return f"{test.change:+.2f}; {CONTROL} {test.random_change:+.2f} ± {test.random_sd:.2f}"


def _nearest(asked: Question, chosen: ChosenReferences) -> Tensor:
    """The nearest reference [1, C, H, W]."""
    nearest = chosen.references.nearest(asked.x, asked.own.contrast()[0])
    assert isinstance(nearest, Tensor)
    return nearest[:, 0]


def _compare(asked: Question, method: Explainer, chosen: ChosenReferences, seed: int) -> Findings:
    """The panels against the references, and the test of what the image lacks."""
    label, references = asked.label, chosen.references
    found = method.against(asked.loaded.model, asked.x, asked.target, references)
    nearest = _nearest(asked, chosen)
    if chosen.made:
        return _compare_made(asked, found, chosen.made, nearest[0], seed)
    count = f"the {references.k} nearest references" if references.k > 1 else "the nearest reference"
    caption = f"{chosen.nearest}: it has what may be missing." if chosen.nearest else "It has what may be missing."
    panels = (
        Panel("image", denormalize(nearest[0], asked.loaded), "The nearest reference", caption),
        asked.signed(found.attribution, f"Reference map: {label}", f"Against {count}.", asked.own),
        asked.panel(
            "absence",
            found.absence[0],
            "Its absence part",
            "Red: what the references have and this lacks, where the map says that its absence raises the output.",
            f"its absence raises {label}",
        ),
    )
    source = chosen.nearest or "the nearest reference"
    if asked.is_photograph:
        return find_missing(asked, found, nearest[0], source, panels, seed)
    test = insert_missing(asked.read_target, asked.x[0], nearest[0], found.absence[0], seed=seed)
    sentence = (
        f"Reference map: pasting in the {_region(test)} that the absence part names, from {source}, changes the output "
        f"of {label} by {_changes(test)}. {test.verdict()}"
    )
    tested = ("Pasting what is missing", f"{test.change:+.2f}, elsewhere {test.random_change:+.2f}")
    return Findings(panels, sentence, test.is_borne, tested=tested)


def _compare_made(asked: Question, found: Found, kind: str, made: Tensor, seed: int) -> Findings:
    """As :func:`_compare`, against the image itself without its content: nothing of it is missing, but some of what is
    there holds the target down.
    """
    label = asked.label
    panels = (
        Panel(
            "image", denormalize(made, asked.loaded), f"The image, {kind}", "Made from the image itself: no references."
        ),
        asked.signed(found.attribution, f"Reference map: {label}", f"Against the image itself, {kind}.", asked.own),
        asked.panel(
            "absence",
            found.absence[0],
            f"What holds {label} down",
            "Red: content of the image that holds the output down, so that its absence raises it.",
            f"its absence raises {label}",
        ),
    )
    if asked.is_photograph:
        return find_target_held_down(asked, found, panels, seed)
    test = remove_suppressor(asked.read_target, asked.x[0], found.absence[0], made, seed=seed)
    sentence = (
        f"Reference map: replacing the {_region(test)} that hold {label} down most by {kind} ones changes the output of "
        f"{label} by {_changes(test)}. {test.verdict()}"
    )
    tested = (
        f"What holds the target down, {kind}",
        f"{test.change:+.2f}, elsewhere {test.random_change:+.2f}",
    )
    return Findings(panels, sentence, test.is_borne, tested=tested)

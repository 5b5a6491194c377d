"""One image of ``absence-plugins explain``: what is asked about it, its maps, and what the network says of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.commands.maps.explainers import Explainer, Found
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pasting import (
    PixelTest,
    cell_side,
    insert_missing,
    remove_suppressor,
)
from absence_plugins.commands.predictions import ends_in_sigmoid, read_outputs
from absence_plugins.commands.references import ChosenReferences
from absence_plugins.commands.rows import denormalize
from absence_plugins.core.choices import Choice, choose
from absence_plugins.core.maps import split_by_sign
from absence_plugins.core.outputs import class_scores, shrunk
from absence_plugins.core.pooling import spread_cells, sum_cells
from absence_plugins.report import Panel, Row
from absence_plugins.report.plots.panel import Kind

CONTROL = "at random places the same shape changes it on average by"


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about one image: the target's output, and another one that its content may hold down.

    x: the input [1, C, H, W]. own, other: the two outputs; other is None where the model has a single one, or
    labels that are no rivals. asked: the
    other one as a method takes it, a class or a word.
    """

    picture: Tensor
    loaded: LoadedModel
    x: Tensor
    outputs: Tensor
    own: Choice
    other: Choice | None
    asked: int | str

    @classmethod
    def ask(cls, picture: Tensor, loaded: LoadedModel, target: int | None, nontarget: int | str | None) -> Question:
        """Choose target and non-target. Raises ValueError for a target that does not exist, and outputs that are no
        logits.
        """
        x = loaded.preprocessing.normalize(picture)[None]
        with torch.no_grad():
            outputs = read_outputs(loaded.model, x)
            columns = class_scores(outputs)
            count = columns.shape[1]
            t = int(columns.argmax(1)) if target is None else target
            own = choose(outputs, t, None, lambda: read_outputs(loaded.model, *shrunk((x,))))
            has_rivals = count > 1 and (nontarget is not None or not ends_in_sigmoid(loaded.model, x))
            if nontarget is None:
                nontarget = "auto"
            other = choose(outputs, t, nontarget) if has_rivals or nontarget != "auto" else None  # type: ignore[arg-type]
        is_class = other is not None and other.kind == "nontarget" and other.nontargets is not None
        asked = int(other.nontargets[0]) if is_class else str(nontarget)  # type: ignore[union-attr, index]
        return cls(picture, loaded, x, outputs, own, other, asked)

    @property
    def target(self) -> int:
        """The target's number; of a single output 0."""
        return int(self.own.classes[0])

    @property
    def blank(self) -> Tensor:
        """An image without content [C, H, W]."""
        return self.loaded.preprocessing.empty.expand_as(self.x[0])

    @property
    def described(self) -> str:
        """The explained outputs in a line, for the terminal."""
        return f"{self.label} is explained{'' if self.other is None else f', and {self.other_label}'}"

    @property
    def label(self) -> str:
        """The target's name."""
        return "the output" if self.own.single else self._name(self.target)

    @property
    def other_label(self) -> str:
        """The other output's name."""
        assert self.other is not None
        if self.other.kind == "margin":
            return f"{self.label} minus {self._rival}"
        if self.other.kind == "others":
            return "the mean of the others"
        return f"minus {self.label}" if self.other.kind == "negated" else self._rival

    @property
    def _rival(self) -> str:
        assert self.other is not None
        assert self.other.nontargets is not None
        return self._name(int(self.other.nontargets[0]))

    def _name(self, index: int) -> str:
        return f"{self.loaded.name(index)}{' (sum over the image)' if self.own.summed else ''}"

    def read_target(self, images: Tensor) -> Tensor:
        """The target's output [N]."""
        return self._read_choice(self.own, images)

    def read_other(self, images: Tensor) -> Tensor:
        """The other output [N]."""
        assert self.other is not None
        return self._read_choice(self.other, images)

    def _read_choice(self, choice: Choice, images: Tensor) -> Tensor:
        every = torch.zeros(len(images), dtype=torch.long)
        return choice.of_samples(every).values(read_outputs(self.loaded.model, images))

    def signed(self, attribution: Tensor, kind: str, caption: str, choice: Choice) -> Panel:
        """A map of an output over the picture; its title and its colors say which."""
        label = self.other_label if choice is self.other else self.label
        title = f"{kind} map: {label}"
        if choice.kind == "nontarget":
            title += f", which is not the target {self.label}"
        positive, negative = self.colors(choice)
        return self.over("signed", attribution[0], title, caption, positive=positive, negative=negative)

    def over(self, kind: Kind, values: Tensor, title: str, caption: str, **words: str) -> Panel:
        """A map [C, H, W] over the picture, shown in the cells in which it is tested."""
        return Panel.over(self.picture, kind, values, title, caption, resolution=cell_side(self.x), **words)

    def in_cells(self, values: Tensor) -> Tensor:
        """A map [C, H, W] as it is tested: of a photograph the sum of every cell, at its pixels [1, H, W]."""
        cell = cell_side(self.x)
        return values if cell == 1 else spread_cells(sum_cells(values.sum(0), cell), cell, values.shape[-2:])[None]

    def colors(self, choice: Choice) -> tuple[str, str]:
        """What red and blue mean in an output's map."""
        if choice.kind == "margin":
            return f"speaks for {self.label}", f"speaks for {self._rival}"
        if choice.kind == "negated":
            return f"holds {self.label} down", f"raises {self.label}"
        label = self.other_label if choice is self.other else self.label
        return f"raises {label}", f"holds {label} down"


def explain_row(
    name: str,
    asked: Question,
    method: Explainer,
    chosen: ChosenReferences | None,
    seed: int,
    verdicts: dict[str, bool],
) -> Row:
    """One image's maps and tests; ``verdicts`` gets what the network says of each kind of map."""
    label, count = asked.label, asked.outputs.shape[1]
    standard = method.standard(asked.loaded.model, asked.x, asked.target, count, asked.blank[None])
    panels = [
        Panel("image", asked.picture, "The image", name),
        asked.signed(standard, "Standard", method.standard_caption, asked.own),
    ]
    facts = [(f"Output of {label}", f"{float(asked.own.values(asked.outputs)):.2f}")]
    sentences = list(chosen.notes) if chosen is not None else []
    last = []
    if asked.other is None:
        sentences.append(
            "The model has one output, so there is no other one to explain."
            if asked.own.single
            else "The outputs are behind a sigmoid: labels that are no rivals. --nontarget names another one to explain."
        )
    else:
        panel, fact, sentence, tested = _other(asked, method, seed, verdicts)
        panels.append(panel)
        facts.append(fact)
        sentences.append(sentence)
        last.append(tested)
    if chosen is not None:
        found, test = _compare(asked, method, chosen, seed)
        panels += found
        made = chosen.made
        verdicts["reference"], said = test.verdict(rises=bool(made))
        source = chosen.nearest or "the nearest reference"
        does = f"pasting in the {test.region} that the absence part names, from {source}, changes"
        if made:
            does = f"replacing the {test.region} that hold {label} down most by {made} ones changes"
        sentences.append(
            f"Reference map: {does} the "
            f"output of {label} by {test.change:+.2f}; {CONTROL} {test.random_change:+.2f} ± {test.random_sd:.2f}. {said}"
        )
        done = f"What holds the target down, {made}" if made else "Pasting what is missing"
        facts.append((done, f"{test.change:+.2f}, elsewhere {test.random_change:+.2f}"))
    return Row(f"{name}: {label}", " ".join(sentences), tuple(panels), tuple(facts + last))


def _other(
    asked: Question, method: Explainer, seed: int, verdicts: dict[str, bool]
) -> tuple[Panel, tuple[str, str], str, tuple[str, str]]:
    """The other output's map, its value, and what happens when what holds it down is blanked."""
    other = asked.other_label
    absent = method.nontarget(asked.loaded.model, asked.x, asked.target, asked.asked, asked.blank[None])
    negative = split_by_sign(asked.in_cells(absent.attribution[0]))[1]
    removal = remove_suppressor(asked.read_other, asked.x[0], negative, asked.blank, seed=seed)
    assert asked.other is not None
    blue = asked.colors(asked.other)[1]
    panel = asked.signed(absent.attribution, "Non-target", f"Blue: content that {blue}.", asked.other)
    verdicts["non-target"], said = removal.verdict(rises=True)
    sentence = (
        f"Non-target map: blanking the {removal.region} that hold {other} down most changes its output by "
        f"{removal.change:+.2f}; {CONTROL} {removal.random_change:+.2f} ± {removal.random_sd:.2f}. {said}"
    )
    tested = ("Blanking what suppresses", f"{removal.change:+.2f}, elsewhere {removal.random_change:+.2f}")
    return panel, (f"Output of {other}", f"{absent.output:.2f}"), sentence, tested


def _compare(
    asked: Question, method: Explainer, chosen: ChosenReferences, seed: int
) -> tuple[tuple[Panel, ...], PixelTest]:
    """The panels against the references, and the test of what the image lacks."""
    loaded, label, references = asked.loaded, asked.label, chosen.references
    found = method.against(loaded.model, asked.x, asked.target, references)
    nearest = references.nearest(asked.x, asked.own.contrast()[0])
    assert isinstance(nearest, Tensor)
    if chosen.made:
        return _compare_made(asked, found, chosen.made, nearest[0, 0], seed)
    test = insert_missing(asked.read_target, asked.x[0], nearest[0, 0], found.absence[0], seed=seed)
    count = f"the {references.k} nearest references" if references.k > 1 else "the nearest reference"
    nearest_caption = (
        f"{chosen.nearest}: it has what may be missing." if chosen.nearest else "It has what may be missing."
    )
    panels = (
        Panel("image", denormalize(nearest[0, 0], loaded), "The nearest reference", nearest_caption),
        asked.signed(found.attribution, "Reference", f"Against {count}.", asked.own),
        asked.over(
            "absence",
            found.absence[0],
            "Its absence part",
            "Red: what the references have and this lacks, where the map says that its absence raises the output.",
            positive=f"its absence raises {label}",
        ),
    )
    return panels, test


def _compare_made(
    asked: Question, found: Found, kind: str, made: Tensor, seed: int
) -> tuple[tuple[Panel, ...], PixelTest]:
    """As :func:`_compare`, against the image itself without its content: nothing of it is missing, but some of what is
    there holds the target down.
    """
    label = asked.label
    absence = asked.in_cells(found.absence[0])
    test = remove_suppressor(asked.read_target, asked.x[0], absence, made, seed=seed)
    panels = (
        Panel(
            "image", denormalize(made, asked.loaded), f"The image, {kind}", "Made from the image itself: no references."
        ),
        asked.signed(found.attribution, "Reference", f"Against the image itself, {kind}.", asked.own),
        asked.over(
            "absence",
            found.absence[0],
            f"What holds {label} down",
            "Red: content of the image that holds the output down, so that its absence raises it.",
            positive=f"its absence raises {label}",
        ),
    )
    return panels, test

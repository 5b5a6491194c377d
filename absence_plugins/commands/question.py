"""What is asked about one image of ``absence-plugins explain``: the target's output, and others that it may hold
down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.predictions import read_outputs, read_scores
from absence_plugins.core.choices import Choice, choose
from absence_plugins.core.folded_norms import watching_norms
from absence_plugins.core.memory_layout import PLAIN, Way, find_way
from absence_plugins.core.outputs import class_scores, shrunk
from absence_plugins.core.pooling import PHOTOGRAPH, choose_resolution
from absence_plugins.methods.regions import segment
from absence_plugins.report import Panel
from absence_plugins.report.plots.panel import Kind

PIECES = 64  # superpixels of a photograph


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about one image: the target's output, and another one that its content may hold down.

    x: the input [1, C, H, W]. own, other: the two outputs; other is None where the model has a single one, or
    labels that are no rivals. asked: the
    other one as a method takes it, a class or a word. way: how the model runs fast.
    """

    picture: Tensor
    loaded: LoadedModel
    x: Tensor
    outputs: Tensor
    own: Choice
    other: Choice | None
    asked: int | str
    way: Way = PLAIN

    @classmethod
    def ask(cls, picture: Tensor, loaded: LoadedModel, target: int | None, nontarget: int | str | None) -> Question:
        """Choose target and non-target. Raises ValueError for a target that does not exist, and outputs that are no
        logits.
        """
        x = loaded.preprocessing.normalize(picture)[None]
        with torch.no_grad():
            with watching_norms() as seen:
                outputs, ending = read_scores(loaded.model, x)
            columns = class_scores(outputs)
            count = columns.shape[1]
            t = int(columns.argmax(1)) if target is None else target
            own = choose(outputs, t, None, lambda: read_outputs(loaded.model, *shrunk((x,))))
            has_rivals = count > 1 and (nontarget is not None or ending != "sigmoid")
            if nontarget is None:
                nontarget = "auto"
            other = choose(outputs, t, nontarget) if has_rivals or nontarget != "auto" else None  # type: ignore[arg-type]
        is_class = other is not None and other.kind == "nontarget" and other.nontargets is not None
        asked = int(other.nontargets[0]) if is_class else str(nontarget)  # type: ignore[union-attr, index]
        way = find_way(loaded.model, x, outputs, lambda images: read_outputs(loaded.model, images), seen)
        return cls(picture, loaded, x, outputs, own, other, asked, way)

    @property
    def target(self) -> int:
        """The target's number; of a single output 0."""
        return int(self.own.classes[0])

    @property
    def blank(self) -> Tensor:
        """An image without content [C, H, W]."""
        return self.loaded.preprocessing.empty.expand_as(self.x[0])

    @cached_property
    def pieces(self) -> Tensor:
        """The superpixels of a photograph [H, W]."""
        return segment(self.picture, PIECES)

    @property
    def is_photograph(self) -> bool:
        """Whether the image is one of more than 64 pixels, whose single pixels say nothing."""
        return max(self.x.shape[-2:]) > PHOTOGRAPH

    def ask_others(self, count: int) -> list[Question]:
        """The same about each of the ``count`` highest outputs that are not the target, the runner-up first."""
        scores = class_scores(self.outputs)[0].clone()
        scores[self.target] = -torch.inf
        classes = scores.topk(min(count, len(scores) - 1)).indices.tolist()
        return [replace(self, other=choose(self.outputs, self.target, k), asked=k) for k in classes]

    def describe(self, rivals: int = 1) -> str:
        """The explained outputs in a line, for the terminal; of several ``rivals`` one is chosen by measurement."""
        if self.other is not None and self.is_photograph and rivals > 1:
            return f"{self.label} is explained, and the one of the next {rivals} classes that a region holds down most"
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
    def brief(self) -> str:
        """The target's name alone, in quotes; without names its number."""
        return self._quoted(self.label)

    @property
    def other_brief(self) -> str:
        """The other output's."""
        return self._quoted(self.other_label)

    @staticmethod
    def _quoted(label: str) -> str:
        inside = re.fullmatch(r"class \d+ \((.+)\)", label)
        return f"'{inside[1]}'" if inside else label

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

    def read_choices(self, choices: Sequence[Choice], images: Tensor) -> Tensor:
        """Several outputs [N, choices], of one forward."""
        outputs = self.way.read(lambda batch: read_outputs(self.loaded.model, batch), images)
        every = torch.zeros(len(images), dtype=torch.long)
        return torch.stack([choice.of_samples(every).values(outputs) for choice in choices], 1)

    def _read_choice(self, choice: Choice, images: Tensor) -> Tensor:
        return self.read_choices([choice], images)[:, 0]

    def signed(self, attribution: Tensor, title: str, caption: str, choice: Choice) -> Panel:
        """A map of an output over the picture; its colors say which."""
        positive, negative = self.colors(choice)
        return self.panel("signed", attribution[0], title, caption, positive, negative)

    def panel(self, kind: Kind, values: Tensor, title: str, caption: str, positive: str, negative: str = "") -> Panel:
        """A map [C, H, W] over the picture: of a photograph in cells, over itself; else at its pixels, over its
        outline.
        """
        if not self.is_photograph:
            return Panel(kind, values, title, caption, underlay=self.picture, positive=positive, negative=negative)
        cell = choose_resolution(*values.shape[-2:])
        return Panel(
            kind, values, title, caption, positive=positive, negative=negative, resolution=cell, photograph=self.picture
        )

    def colors(self, choice: Choice) -> tuple[str, str]:
        """What red and blue mean in an output's map."""
        if choice.kind == "margin":
            return f"speaks for {self.label}", f"speaks for {self._rival}"
        if choice.kind == "negated":
            return f"holds {self.label} down", f"raises {self.label}"
        label = self.other_label if choice is self.other else self.label
        return f"raises {label}", f"holds {label} down"

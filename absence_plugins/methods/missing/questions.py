"""What has to happen: a decision falls, an output falls by a margin, or (presence) the decision is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.outputs import Logit, Margin, Output, class_scores
from absence_plugins.core.scores import run_scores
from absence_plugins.core.wording import Names, name_of_class

SIGMOID = "sigmoid"


@dataclass(frozen=True, eq=False)
class Question:
    """The number u that is read of every image, and the bound that it must cross.

    Of a decision for a class t, u = z_t - max of the other logits, or z_t - z_foil; of a model with one output, u is
    that output with the sign that makes u(x) positive. Else u is an output, or a hidden unit.

    Attributes:
        target: the class that is decided for; None where ``output`` is asked about, or the model has one output.
        foil: the only class that counts against it; None: the highest other one.
        output: an :class:`~absence_plugins.core.outputs.Output` or a :class:`~absence_plugins.Unit`; None of a
            decision.
        sign: of a model with one output.
        rises: whether u must get above the bound (presence), or below it.
        bound: in the units of u.
        is_strict: whether reaching the bound exactly is not enough.
    """

    target: int | None = None
    foil: int | None = None
    output: Any = None
    sign: int = 1
    rises: bool = False
    bound: float = 0.0
    is_strict: bool = True

    @property
    def is_decision(self) -> bool:
        """Whether a decision is asked about, not an output."""
        return self.output is None

    def read(self, model: Callable[..., Any], images: Tensor) -> Tensor:
        """u of images [M, ...]: [M] float64 on the CPU."""
        with torch.no_grad():
            found: Tensor = self.compute(model, images).detach().double().cpu()
        return found

    def compute(self, model: Callable[..., Any], images: Tensor) -> Tensor:
        """u of images [M, ...]: [M], with its graph.

        Raises:
            ValueError: not one number for each.
        """
        if self.output is not None and not isinstance(self.output, Output):
            values: Tensor = self.output.of(model)(images)
        else:
            values = self._of_scores(run_scores(model, (images,), samples=len(images))[0])
        if values.shape != (len(images),):
            raise ValueError(
                f"the output has shape {tuple(values.shape)} for {len(images)} inputs; there must be one number each"
            )
        return values

    def _of_scores(self, scores: Tensor) -> Tensor:
        if self.output is not None:
            values: Tensor = self.output.values(scores)
            return values
        columns = class_scores(scores).double()
        if self.target is None:
            return self.sign * columns[:, 0]
        own = torch.arange(columns.shape[1], device=columns.device) == self.target
        rival = columns.masked_fill(own, -torch.inf).amax(1) if self.foil is None else columns[:, self.foil]
        return columns[:, self.target] - rival

    def decide(self, model: Callable[..., Any], images: Tensor) -> list[int | None]:
        """The class that the network decides for on every image; None of an output, or where there are no classes."""
        if self.target is None:
            return [None] * len(images)
        with torch.no_grad():
            parts = [class_scores(run_scores(model, (one[None],), samples=1)[0]) for one in images]
        return [int(part[0].argmax()) for part in parts]

    def slack(self, values: Tensor) -> Tensor:
        """How far u is beyond the bound: positive where it is reached."""
        return values - self.bound if self.rises else self.bound - values

    def is_reached(self, values: Tensor) -> Tensor:
        """Of values of u [M], boolean."""
        slack = self.slack(values)
        return slack > 0 if self.is_strict else slack >= 0

    def explained(self, rival: int | None) -> Any:
        """What relevance explains: u with one rival (None: the target alone), or the output itself."""
        if self.output is not None:
            return self.output
        if self.target is None:
            return Logit(0, sign=self.sign)
        foil = self.foil if self.foil is not None else rival
        return Logit(self.target) if foil is None else Margin(self.target, foil)

    def words(self, names: Names = None) -> str:
        """What u is."""
        if self.output is not None:
            said = self.output.describe() if isinstance(self.output, Output) else repr(self.output)
            return str(said)
        if self.target is None:
            return "the output" if self.sign == 1 else "minus the output"
        other = "the highest other logit" if self.foil is None else f"logit {call_class(self.foil, names)}"
        return f"logit {call_class(self.target, names)} minus {other}"


def call_class(index: int, names: Names = None) -> str:
    """A class by its name, else by its number.

    >>> call_class(3), call_class(3, {3: "cup"})
    ('3', 'cup')
    """
    return name_of_class(index, names) or str(index)


def check_rivals(ending: str) -> None:
    """Reject several outputs behind a sigmoid: independent labels, between which nothing is decided.

    Raises:
        ValueError: with the remedy.
    """
    if ending == SIGMOID:
        raise ValueError(
            "several outputs behind a sigmoid are independent labels, between which nothing is decided; ask about one of "
            "them: output=<its number>, margin=<by how much it must fall>"
        )

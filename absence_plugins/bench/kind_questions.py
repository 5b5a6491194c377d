"""What ``bench kinds`` asks on tables, texts, signals, volumes and segmentations, and how answers are scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import evaluating, quiet_forward
from absence_plugins.core.maps import absence_part
from absence_plugins.core.references import ReferenceSet
from absence_plugins.data.planted import Natural, natural
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.claims import Claim, area, deletion, insertion
from absence_plugins.methods.faithfulness.controls import score_controls
from absence_plugins.methods.faithfulness.curves import Curves
from absence_plugins.methods.faithfulness.result import View

BATCH, DRAWS = 256, 4


@dataclass(frozen=True, eq=False)
class KindQuestion:
    """What do these inputs lack (view "reference"), or what holds the unit down in them ("nontarget")?

    N inputs, k references each. A method answers with the signed map of the unit that encodes the key's absence:
    shaped like x, per reference [N, k, ...], or of a text's embedding [N, T, D].

    Attributes:
        form: the problem in its natural shape.
        view: which of the two questions.
        x: [N, ...].
        references: the pool, of this kind.
        drawn: the nearest references [N, k, ...].
        key: the key's things, in every reference [N, k, *things], or in x [N, *things].
        steps: points of the curves.
    """

    form: Natural
    view: View
    x: Tensor
    references: ReferenceSet
    drawn: Tensor
    key: Tensor
    steps: int

    @classmethod
    def of(
        cls, name: str, view: View, *, seed: int = 0, samples: int = 12, k: int = 2, steps: int = 16
    ) -> KindQuestion:
        """The first held-out inputs that the view asks about."""
        form = natural(name, seed)
        label, contrast = form.absence_unit, form.presence_unit
        if view == "nontarget":
            label, contrast = contrast, label
        rows = (form.labels == label).nonzero().flatten()[:samples]
        pool = form.references(k, contrast=contrast)
        indices = pool.nearest_indices(form.inputs[rows])
        key = form.pool_things[indices] if view == "reference" else form.things[rows]
        return cls(form, view, form.inputs[rows], pool, form.pool_inputs[indices], key, steps)

    @property
    def unit(self) -> int:
        """The output that encodes the key's absence."""
        return self.form.absence_unit

    @property
    def label(self) -> int:
        """The class that the inputs belong to."""
        return self.form.presence_unit if self.view == "nontarget" else self.unit

    @cached_property
    def model(self) -> nn.Module:
        """Inputs to logits [N, 2]: of a segmentation with the mean over its positions behind it."""
        if self.form.kind is not None:
            return self.form.model
        return nn.Sequential(self.form.model, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()

    @cached_property
    def blank(self) -> Tensor:
        """Inputs without content, shaped like x."""
        return torch.full_like(self.x, self.form.empty)

    def things(self, maps: Tensor) -> Tensor:
        """Maps [N, ...] summed over the entries of a thing."""
        return maps.sum(1) if self.form.kind is None else self.form.kind.things(maps)

    def locate(self, signed: Tensor) -> tuple[Tensor, Tensor]:
        """Of every answer (input, or input and reference): whether the strongest evidence lies in the key, and whether
        the key's sign is right.
        """
        if self.view == "nontarget":
            evidence = -self.things(signed.double())
            named, key = evidence, self.key
        else:
            many = self.drawn.shape[1]
            signed = signed.flatten(0, 1) if self._is_per_reference(signed) else signed.repeat_interleave(many, 0)
            x, references = self.x.repeat_interleave(many, 0), self.drawn.flatten(0, 1)
            kind, key = self.form.kind, self.key.flatten(0, 1)
            lacks = absence_part(x, references) if kind is None else kind.lacks(x, references, self.form.empty)
            evidence = self.things(signed.double())
            named = evidence * (self.things(lacks.int()) > 0)
        flat, inside = named.flatten(1), key.flatten(1)
        strongest = inside.gather(1, flat.argmax(1, keepdim=True))[:, 0] & (flat.amax(1) > 0)
        return strongest, (evidence.flatten(1) * inside).sum(1) > 0

    def _is_per_reference(self, signed: Tensor) -> bool:
        return signed.shape[: self.drawn.dim()][:2] == self.drawn.shape[:2] and signed.dim() > self.x.dim()

    @cached_property
    def claim(self) -> Claim:
        """The claim that answers make, as a series of changed inputs."""
        cells = Cells.of(self.x, 1, self.form.kind)
        empty = self.references.empty[0].to(self.x)

        def value(inputs: Tensor, samples: Tensor) -> Tensor:
            return self.form.output(inputs)

        if self.view == "nontarget":
            return deletion(self.x, empty, cells, value, BATCH)
        return insertion(self.x, self.drawn, empty, cells, value, BATCH)

    @cached_property
    def curves(self) -> Curves:
        """Of random orders and measured ones."""
        with evaluating(self.model), quiet_forward([self.x]):
            return Curves(self.claim, self.steps, DRAWS, 0)

    @cached_property
    def controls(self) -> dict[str, Tensor]:
        """Mean gains of orders that never saw the network, by name [rows]."""
        with evaluating(self.model), quiet_forward([self.x]):
            orders = {name: self.curves.of_map(scores) for name, scores in score_controls(self.claim).items()}
        return {name: area(curve) for name, curve in {"random": self.curves.random, **orders}.items()}

    def measure_gains(self, signed: Tensor) -> Tensor:
        """The mean gain along the order of a map [rows]."""
        with evaluating(self.model), quiet_forward([self.x]):
            return area(self.curves.of_map(self.claim.scores(signed)))

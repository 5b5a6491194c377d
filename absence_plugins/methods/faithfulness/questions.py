"""One question about one planted absence, as every method of the benchmark is asked it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.empties import blank_value
from absence_plugins.core.maps import absence_part, sum_channels
from absence_plugins.core.references import ReferenceSet
from absence_plugins.data.planted import Planted, dilate
from absence_plugins.methods.faithfulness.controls import measure_held_out, measure_salience
from absence_plugins.methods.faithfulness.located import Located, located
from absence_plugins.methods.faithfulness.result import View


@dataclass(frozen=True, eq=False)
class Question:
    """What holds ``unit`` down in these images (non-target view), or what do they lack (reference view)?

    N images, k references each, C channels of H x W pixels. A method answers with the signed map of ``unit``: R > 0
    raises it, R < 0 holds it down.

    Attributes:
        planted: the problem with its network.
        view: "nontarget": the images have the key, so ``unit`` is not their class; "reference": they lack it, ``unit``
            is.
        x: [N, C, H, W].
        unit: the output that encodes the key's absence.
        other: the output of the class that has the key.
        references: the pool; its nearest are of class ``unit`` (non-target view) or ``other`` (reference view).
        drawn: those nearest references [N, k, C, H, W].
        regions: where the evidence belongs, grown by ``planted.reach`` pixels: the key in x [N, 1, H, W], or in every
            reference [N, k, 1, H, W].
        blank: an empty image for each [N, C, H, W].
    """

    planted: Planted
    view: View
    x: Tensor
    unit: int
    other: int
    references: ReferenceSet
    drawn: Tensor
    regions: Tensor
    blank: Tensor

    @property
    def model(self) -> nn.Module:
        """The network, images to logits."""
        return self.planted.model

    @property
    def label(self) -> int:
        """The class the images belong to."""
        return self.other if self.view == "nontarget" else self.unit

    @classmethod
    def of(cls, planted: Planted, view: View, samples: int, k: int) -> Question:
        """The first ``samples`` held-out images that the view asks about."""
        unit, other = planted.absence_unit, planted.presence_unit
        rows = (planted.labels == (other if view == "nontarget" else unit)).nonzero().flatten()[:samples]
        x = planted.images[rows]
        contrast = unit if view == "nontarget" else other
        pool = ReferenceSet(planted.pool_images, planted.pool_labels, empty=planted.empty, k=k, contrast=contrast)
        indices = pool.nearest_indices(x)
        regions = planted.regions[rows] if view == "nontarget" else planted.pool_regions[indices].flatten(0, 1)
        regions = dilate(regions, planted.reach)
        if view == "reference":
            regions = regions.reshape(len(x), k, *regions.shape[1:])
        blank = blank_value(planted.empty, x).expand_as(x).contiguous()
        return cls(planted, view, x, unit, other, pool, planted.pool_images[indices], regions, blank)

    def copied(self) -> Question:
        """The same question on copies: what a method does to its tensors reaches no other method."""
        return replace(self, x=self.x.clone(), drawn=self.drawn.clone(), blank=self.blank.clone())

    def shaped(self, signed: Tensor) -> Tensor:
        """An answer as [N, C or 1, H, W], or per reference [N, k, C or 1, H, W]; [N, H, W] is read as [N, 1, H, W].

        Raises:
            TypeError: no tensor.
            ValueError: another shape, NaN or infinite values.
        """
        if not isinstance(signed, Tensor):
            raise TypeError(f"the answer must be a tensor, got {type(signed).__name__}")
        signed = signed.detach()
        count, channels, *size = self.x.shape
        given = tuple(signed.shape)
        signed = signed[:, None] if signed.dim() == 3 else signed
        wanted = [(count, many, *size) for many in (1, channels)]
        if self.view == "reference":
            wanted += [(count, self.drawn.shape[1], many, *size) for many in (1, channels)]
        if tuple(signed.shape) not in wanted:
            allowed = sorted({(count, *size), *wanted}, key=lambda shape: (len(shape), shape))
            raise ValueError(f"the answer has shape {given}; it must have one of {allowed}")
        if not bool(torch.isfinite(signed).all()):
            raise ValueError("the answer holds NaN or infinite values")
        return signed

    def locate(self, signed: Tensor) -> Located:
        """Where a map's evidence lies: R < 0 (non-target view), or R > 0 at pixels where only the reference has
        content.

        signed: as :meth:`shaped` gives it.
        """
        if self.view == "nontarget":
            evidence = -sum_channels(signed)[:, None]
            return located(evidence, evidence, self.regions)
        many = self.drawn.shape[1]
        signed = signed.flatten(0, 1) if signed.dim() == 5 else signed.repeat_interleave(many, 0)
        x, references = self.x.repeat_interleave(many, 0), self.drawn.flatten(0, 1)
        absent = absence_part(x, references, self.references.empty[0]).any(1, keepdim=True)
        whole = sum_channels(signed)[:, None]
        return located(whole * absent, whole, self.regions.flatten(0, 1))


Method = Callable[[Question], Tensor | None]


def make_image_only(name: str, measure: Callable[[Tensor, Tensor], Tensor]) -> Method:
    """A method that never sees the network: ``measure`` of the image and of what replaces its content [N, C, H, W], as
    suppressing (non-target view) or missing (reference view).

    Source: this package; sanity checks: Adebayo et al., NeurIPS 2018.
    """

    def show(question: Question) -> Tensor:
        x, many = question.x, question.drawn.shape[1]
        if question.view == "nontarget":
            return -measure(x, question.blank)
        found = measure(question.drawn.flatten(0, 1), x.repeat_interleave(many, 0))
        return found.reshape(len(x), many, *found.shape[1:])

    show.__name__ = name
    return show


def _salience(name: str) -> Method:
    return make_image_only(name, lambda x, other: measure_salience(x, other)[name])


def _held_out(name: str) -> Method:
    return make_image_only(name, lambda x, _other: measure_held_out(x)[name])


IMAGE_ONLY: dict[str, Method] = {
    **{f"Image only: {name}": _salience(name) for name in ("color", "difference", "edges", "center")},
    "Image only: constant": make_image_only("constant", lambda x, _other: torch.ones_like(x[:, :1])),
    **{f"Image only: {name}": _salience(name) for name in ("curvature", "flat", "coarsely flat", "contrast")},
}

HELD_OUT: dict[str, Method] = {
    f"Held out: {name}": _held_out(name) for name in measure_held_out(torch.zeros(1, 1, 1, 1))
}  # image-only maps that are not among the controls


def smooth_random_map(question: Question) -> Tensor:
    """What chance reaches with a smooth map: the noise of :func:`random_map`, averaged twice over 5 x 5 pixels."""
    noise = random_map(question)
    flat = noise.reshape(-1, 1, *noise.shape[-2:])
    for _ in range(2):
        flat = F.avg_pool2d(flat, 5, 1, 2, count_include_pad=False)
    return flat.reshape(noise.shape)


def random_map(question: Question) -> Tensor:
    """What chance reaches: independent noise at every pixel; the same for the same question."""
    generator = torch.Generator().manual_seed(0)
    shape = (*question.drawn.shape[:2], 1, *question.x.shape[2:])
    noise = torch.randn(shape, generator=generator)
    return noise[:, 0] if question.view == "nontarget" else noise

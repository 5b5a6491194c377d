"""The work that the Captum adapters and plain Captum both do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.subjects import subject
from absence_plugins.core.choices import choose_nontarget
from absence_plugins.core.maps import split_by_content
from absence_plugins.core.references import ReferenceSet

NONTARGET_LIMIT = 1.05
REFERENCES_LIMIT = 1.05
NEUTRAL_LIMIT = 1.02
STEPS = 50  # Captum's default


@dataclass(frozen=True)
class Growth:
    """How a work is made at other sizes.

    Attributes:
        counted: what the sizes count, such as "images".
        sizes: three of them, ascending.
        at: from a size to both sides at this size, ours and the host's.
        memory: whether the peak of the memory is measured as well.
    """

    counted: str
    sizes: tuple[int, int, int]
    at: Callable[[int], tuple[Callable[[], Any], Callable[[], Any]]]
    memory: bool = True


@dataclass(frozen=True)
class Work:
    """One task for both sides.

    same: the host's numbers where they need more than what is timed.
    is_same: whether both sides compute the same numbers, which is then checked.
    forward: a forward whose share of the host's time is added to the limit.
    judged: whether the limit is a promise.
    growth: the same work at other sizes.
    """

    what: str
    limit: float | None
    ours: Callable[[], Tensor]
    plain: Callable[[], Tensor]
    same: Callable[[], Tensor] | None = None
    is_same: bool = True
    forward: Callable[[], Tensor] | None = None
    judged: bool = True
    growth: Growth | None = None


@dataclass(frozen=True)
class Size:
    """How much of it: samples, path steps, references per sample, steps per reference, size of the pool, image side."""

    batch: int
    steps: int
    k: int
    reference_steps: int
    pool: int
    pixels: int = 0


SIZES = {
    ("digits", False): Size(batch=16, steps=STEPS, k=4, reference_steps=25, pool=1351),
    ("digits", True): Size(batch=3, steps=3, k=2, reference_steps=2, pool=200),
    ("resnet18", False): Size(batch=1, steps=STEPS, k=4, reference_steps=20, pool=64, pixels=224),
    ("resnet18", True): Size(batch=2, steps=2, k=2, reference_steps=2, pool=6, pixels=32),
}


def build_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """What is measured on one network, by name."""
    from absence_plugins.bench.swap_works import build_swap_works

    case = _Case.of(network, quick, device)
    works = {"nontarget": _nontarget(case), "references": _references(case)}
    if network == "resnet18":
        return works
    return (
        works
        | {
            "absence part": _absence_part(case),
            "neutral": _neutral(case),
        }
        | build_swap_works(case.model, case.images, quick=quick)
    )


@dataclass(frozen=True, eq=False)
class _Case:
    """A network, its images, and what is asked of both sides.

    target: predicted class [N]. runner_up: class with the second largest logit [N]. baselines: nearest references [N,
    k, ...].
    """

    size: Size
    model: nn.Module
    images: Tensor
    target: Tensor
    runner_up: Tensor
    references: ReferenceSet
    baselines: Tensor

    @classmethod
    def of(cls, network: str, quick: bool, device: torch.device) -> _Case:
        size = SIZES[network, quick]
        model, images, pool, labels = subject(network, size.batch, size.pool, size.pixels)
        model, images = model.to(device), images.to(device)
        with torch.no_grad():
            outputs = model(images)
        target = outputs.argmax(1)
        references = ReferenceSet(pool.to(device), labels, k=size.k)
        baselines = references.nearest(images, target)
        assert isinstance(baselines, Tensor)
        return cls(size, model, images, target, choose_nontarget(outputs, target), references, baselines)

    @property
    def against(self) -> str:
        """What both sides of the reference works compute, in words."""
        size = self.size
        return (
            f"IntegratedGradients, {size.reference_steps} steps, against {size.k} of {len(self.references)} references"
        )

    def adapter(self, **options: Any) -> Any:
        """Our class on the network."""
        from absence_plugins.captum import AbsenceIntegratedGradients

        return AbsenceIntegratedGradients(self.model, **options)

    def plain(self, target: Tensor, n_steps: int, baselines: Tensor | None = None) -> Tensor:
        """Captum's map."""
        from captum.attr import IntegratedGradients

        found: Tensor = IntegratedGradients(self.model).attribute(
            self.images, baselines=baselines, target=target, n_steps=n_steps
        )
        return found.detach()

    def against_each(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Captum's map against every reference, and the reference."""
        for baseline in self.baselines.unbind(1):
            yield self.plain(self.target, self.size.reference_steps, baseline), baseline

    def mean_map(self) -> Tensor:
        """The mean of these maps."""
        return _sum(signed for signed, _ in self.against_each()) / self.size.k

    def absence_part(self) -> Tensor:
        """The mean of their absence parts."""
        blank = torch.zeros_like(self.images)
        parts = (split_by_content(signed, self.images, baseline, blank)[1] for signed, baseline in self.against_each())
        return (_sum(parts) / self.size.k).clamp(min=0)


def _nontarget(case: _Case) -> Work:
    steps = case.size.steps
    return Work(
        f"IntegratedGradients, {steps} steps, batch {case.size.batch}: choosing the runner-up, and its map",
        NONTARGET_LIMIT,
        lambda: case.adapter(nontarget="runner_up").attribute(case.images, target=case.target, n_steps=steps),
        lambda: case.plain(case.runner_up, steps),
    )


def _references(case: _Case) -> Work:
    return Work(
        f"{case.against} each: finding them, and the mean map; Captum is given them",
        REFERENCES_LIMIT,
        lambda: case.adapter(reference=case.references).attribute(
            case.images, target=case.target, n_steps=case.size.reference_steps
        ),
        case.mean_map,
    )


def _absence_part(case: _Case) -> Work:
    ours = case.adapter(reference=case.references, evidence="absence")
    return Work(
        f"{case.against}, evidence='absence': also its absence part",
        None,
        lambda: ours.attribute(case.images, target=case.target, n_steps=case.size.reference_steps),
        case.mean_map,
        case.absence_part,
    )


def _neutral(case: _Case) -> Work:
    ours, steps = case.adapter(nontarget=None), case.size.steps
    return Work(
        f"IntegratedGradients, {steps} steps, every option off",
        NEUTRAL_LIMIT,
        lambda: ours.attribute(case.images, target=case.target, n_steps=steps),
        lambda: case.plain(case.target, steps),
    )


def _sum(maps: Iterator[Tensor]) -> Tensor:
    total = next(maps)
    for one in maps:
        total = total + one
    return total

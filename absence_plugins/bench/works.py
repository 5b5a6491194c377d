"""The work that the Captum adapters and plain Captum both do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.bench.subjects import subject

NONTARGET_LIMIT = 1.05
REFERENCES_LIMIT = 1.05
NEUTRAL_LIMIT = 1.02
STEPS = 50  # Captum's default


@dataclass(frozen=True)
class Work:
    """One task for both sides.

    same: the host's numbers where they need more than what is timed.
    is_same: whether both sides compute the same numbers, which is then checked.
    forward: a forward whose share of the host's time is added to the limit.
    judged: whether the limit is a promise.
    """

    what: str
    limit: float | None
    ours: Callable[[], Tensor]
    plain: Callable[[], Tensor]
    same: Callable[[], Tensor] | None = None
    is_same: bool = True
    forward: Callable[[], Tensor] | None = None
    judged: bool = True


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
    from captum.attr import DeepLift, IntegratedGradients

    from absence_plugins import ReferenceSet
    from absence_plugins.captum import AbsenceDeepLift, AbsenceIntegratedGradients
    from absence_plugins.captum.remedies import nonlinearities
    from absence_plugins.core.choices import choose_nontarget
    from absence_plugins.core.hooks import cloned_inputs
    from absence_plugins.core.maps import split_by_content

    size = SIZES[network, quick]
    model, images, pool, labels = subject(network, size.batch, size.pool, size.pixels)
    model, images, pool = model.to(device), images.to(device), pool.to(device)
    with torch.no_grad():
        outputs = model(images)
    target = outputs.argmax(1)
    runner_up = choose_nontarget(outputs, target)
    references = ReferenceSet(pool, labels, k=size.k)
    baselines = references.nearest(images, target)
    assert isinstance(baselines, Tensor)
    plain = IntegratedGradients(model)

    def against_each() -> Iterator[tuple[Tensor, Tensor]]:
        for column in range(size.k):
            baseline = baselines[:, column]
            yield (
                plain.attribute(images, baselines=baseline, target=target, n_steps=size.reference_steps).detach(),
                baseline,
            )

    def mean_map() -> Tensor:
        return _summed(signed for signed, _ in against_each()) / size.k

    def absence_part() -> Tensor:
        blank = torch.zeros_like(images)
        parts = (split_by_content(signed, images, baseline, blank)[1] for signed, baseline in against_each())
        return (_summed(parts) / size.k).clamp(min=0)

    def adapter(**options: Any) -> Any:
        return AbsenceIntegratedGradients(model, **options)

    against = f"IntegratedGradients, {size.reference_steps} steps, against {size.k} of {len(pool)} references"
    works = {
        "nontarget": Work(
            f"IntegratedGradients, {size.steps} steps, batch {size.batch}: choosing the runner-up, and its map",
            NONTARGET_LIMIT,
            lambda: adapter(nontarget="runner_up").attribute(images, target=target, n_steps=size.steps),
            lambda: plain.attribute(images, target=runner_up, n_steps=size.steps),
        ),
        "references": Work(
            f"{against} each: finding them, and the mean map; Captum is given them",
            REFERENCES_LIMIT,
            lambda: adapter(reference=references).attribute(images, target=target, n_steps=size.reference_steps),
            mean_map,
        ),
    }
    if network == "resnet18":
        return works

    shipped = DeepLift(model)

    def mended() -> Tensor:  # as the adapter: every nonlinearity works on its own copy (Captum issue 1104)
        with cloned_inputs(nonlinearities(model)):
            result: Tensor = shipped.attribute(images, target=runner_up)
        return result

    absence = adapter(reference=references, evidence="absence")
    neutral = adapter(nontarget=None)
    return works | {
        "absence part": Work(
            f"{against}, evidence='absence': also its absence part",
            None,
            lambda: absence.attribute(images, target=target, n_steps=size.reference_steps),
            mean_map,
            absence_part,
        ),
        "neutral": Work(
            f"IntegratedGradients, {size.steps} steps, every option off",
            NEUTRAL_LIMIT,
            lambda: neutral.attribute(images, target=target, n_steps=size.steps),
            lambda: plain.attribute(images, target=target, n_steps=size.steps),
        ),
        "DeepLift nontarget": Work(
            "the limit is one more forward; the adapter also copies inputs so that the map is complete",
            1.0,
            lambda: AbsenceDeepLift(model, nontarget="runner_up").attribute(images, target=target),
            lambda: shipped.attribute(images, target=runner_up),
            mended,
            forward=lambda: model(images),
            judged=False,
        ),
    }


def _summed(maps: Iterator[Tensor]) -> Tensor:
    total = next(maps)
    for one in maps:
        total = total + one
    return total

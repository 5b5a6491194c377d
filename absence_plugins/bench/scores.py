"""How much of a composite's relevance lies where it belongs, and whether its sign is right, on one planted problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.maps import absence_part
from absence_plugins.core.references import ReferenceSet
from absence_plugins.data.planted import Planted, Sum, dilate
from absence_plugins.methods.faithfulness.located import Located, located

SHARE_LIMIT, SIGN_LIMIT = 0.8, 0.99
Seed = Literal["+1", "logit"]
View = Literal["nontarget", "reference"]


@dataclass(frozen=True)
class Score:
    """What one composite shows of the planted absence on one problem, all training seeds pooled.

    Attributes:
        problem: name of the problem.
        composite: name of the composite's class.
        seed: what a standard composite is seeded with; "" for ``Absence*`` composites, which know their seed.
        view: "nontarget": images with the key, R < 0 inside its region as a share of all R < 0;
            "reference": images without it against references with it, R > 0 at the place of the reference's key as a
            share of all R > 0 where the reference has content and the image has none.
        share: mean over the samples (in the reference view over samples and references), 0 where there is no such R.
        sign: share of the samples whose R summed over the region is below (reference view: above) zero.
        samples: how many.
        is_exact: whether the region is known; if not, share and sign are only reported.
        judged: whether the limits are a promise.
    """

    problem: str
    composite: str
    seed: str
    view: View
    share: float
    sign: float
    samples: int
    is_exact: bool
    judged: bool

    @property
    def fails(self) -> bool:
        """Whether the absence is not shown: share below 0.8, or the sign wrong in more than 1 % of the samples."""
        return self.is_exact and (self.share < SHARE_LIMIT or self.sign < SIGN_LIMIT)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {**asdict(self), "fails": self.fails}


def composites(*, absence: bool) -> dict[str, Any]:
    """Class name -> class of Zennit's composites, or of ours."""
    import zennit.composites as host

    import absence_plugins.zennit  # noqa: F401  (registers them)

    chosen = [kind for name, kind in host.COMPOSITES.items() if name.startswith("absence_") == absence]
    return {kind.__name__: kind for kind in chosen}


def built(kind: Any, problem: Planted) -> Any:
    """A composite as its documentation asks for it: pixel range, batch norm merged, a rule for sums of branches.

    Ours need nothing. Those that only change gradients get no rule for sums.
    """
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import BetaSmooth, DeconvNet, EpsilonGammaBox, GuidedBackprop
    from zennit.rules import Norm

    from absence_plugins.zennit.composites import AbsenceComposite

    if issubclass(kind, AbsenceComposite):
        return kind()
    options: dict[str, Any] = {"canonizers": [SequentialMergeBatchNorm()]}
    if not issubclass(kind, (BetaSmooth, DeconvNet, GuidedBackprop)):
        options["layer_map"] = [(Sum, Norm())]
    if issubclass(kind, EpsilonGammaBox):
        low, high = problem.pixels  # numbers fit the input of any first layer
        options |= {"low": low, "high": high}
    return kind(**options)


def standard_nontarget(problem: Planted, kind: Any, seed: Seed, samples: int) -> Located:
    """Images with the key, the absence unit explained with Zennit's Gradient: R < 0 belongs on the key."""
    from zennit.attribution import Gradient

    x, regions = _rows(problem, problem.presence_unit, samples)
    unit = _one_hot(problem, problem.absence_unit)
    with Gradient(problem.model, built(kind, problem)) as attributor:
        _, relevance = attributor(x, unit.expand(len(x), -1) if seed == "+1" else lambda output: output.detach() * unit)
    return located(-_map(relevance), -_map(relevance), regions)


def absence_nontarget(problem: Planted, kind: Any, samples: int, k: int) -> Located:
    """Images with the key against its nearest references without it, the absence unit explained: R < 0 on the key."""
    from absence_plugins.zennit import AbsenceGradient

    x, regions = _rows(problem, problem.presence_unit, samples)
    references = ReferenceSet(problem.pool_images, problem.pool_labels, empty=problem.empty, k=k)
    with AbsenceGradient(
        problem.model, built(kind, problem), reference=references, nontarget=problem.absence_unit
    ) as attributor:
        _, relevance = attributor(x, _one_hot(problem, problem.presence_unit))
    return located(-_map(relevance), -_map(relevance), regions)


def absence_reference(problem: Planted, kind: Any, samples: int, k: int) -> Located:
    """Images without the key against its nearest references with it, one by one: R > 0 at the reference's key."""
    from absence_plugins.zennit import AbsenceGradient

    x, _ = _rows(problem, problem.absence_unit, samples)
    references = ReferenceSet(
        problem.pool_images, problem.pool_labels, empty=problem.empty, k=k, contrast=problem.presence_unit
    )
    attributor = AbsenceGradient(problem.model, built(kind, problem), reference=references)
    relevance = attributor.explain(x, _one_hot(problem, problem.absence_unit)).per_reference.flatten(0, 1)
    chosen = references.nearest_indices(x, problem.absence_unit).flatten()
    images, regions = problem.pool_images[chosen], problem.pool_regions[chosen]
    absent = absence_part(x.repeat_interleave(k, 0), images, references.empty[0])
    return located(_map(relevance * absent), _map(relevance), dilate(regions, problem.reach))


def pooled(problem: str, composite: str, seed: str, view: View, found: list[Located], **flags: bool) -> Score:
    """One score of the samples of all training seeds."""
    share, is_right = (torch.cat([getattr(one, name) for one in found]).double() for name in ("share", "is_right"))
    return Score(problem, composite, seed, view, float(share.mean()), float(is_right.mean()), len(share), **flags)


def combinations() -> Iterator[tuple[str, Any, str, View]]:
    """Name, class, seed and view of everything that is scored on a problem."""
    for name, kind in composites(absence=False).items():
        for seed in ("+1", "logit"):
            yield name, kind, seed, "nontarget"
    for name, kind in composites(absence=True).items():
        yield name, kind, "", "nontarget"
        yield name, kind, "", "reference"


def find(problem: Planted, kind: Any, seed: str, view: View, samples: int, k: int) -> Located:
    """What a composite shows on one problem."""
    if seed:
        return standard_nontarget(problem, kind, "+1" if seed == "+1" else "logit", samples)
    return (absence_nontarget if view == "nontarget" else absence_reference)(problem, kind, samples, k)


def _rows(problem: Planted, label: int, samples: int) -> tuple[Tensor, Tensor]:
    """The first images of a class, and what counts as their region."""
    rows = (problem.labels == label).nonzero().flatten()[:samples]
    return problem.images[rows], dilate(problem.regions[rows], problem.reach)


def _one_hot(problem: Planted, unit: int) -> Tensor:
    with torch.no_grad():
        outputs = problem.model(problem.images[:1]).shape[1]
    return torch.eye(outputs)[[unit]]


def _map(relevance: Tensor) -> Tensor:
    """Channels summed, as in a figure: [N, 1, H, W]."""
    return relevance.detach().sum(1, keepdim=True)

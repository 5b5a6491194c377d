"""Trained networks with planted absences: the evidence sits in the true region, with the right sign.

The figures that must be reached are those measured when the method was designed, minus 0.05, for the non-target view with a blank
baseline and the target view against the 8 nearest references; the standard map must not show the absence,
so that the test can tell the two apart. Regions are dilated by 2 pixels, the reach of a 3x3 window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins import ReferenceSet
from absence_plugins.captum import (
    AbsenceDeepLift,
    AbsenceGradientShap,
    AbsenceIntegratedGradients,
    AbsenceOcclusion,
)
from absence_plugins.data import planted
from absence_plugins.data.planted import Planted, dilate

SAMPLES = 12
# method, share for the non-target view, share for the target view (as measured, minus 0.05), its arguments
METHODS = [
    (AbsenceIntegratedGradients, 0.69, 0.70, {"n_steps": 20}),
    (AbsenceDeepLift, 0.82, 0.84, {}),
    (AbsenceGradientShap, 0.65, 0.73, {"n_samples": 6}),
    (AbsenceOcclusion, 0.94, 0.45, {"sliding_window_shapes": (1, 3, 3), "perturbations_per_eval": 64}),
]
PROBLEMS = {
    "batch norm": planted.shape_missing,
    "[-1, 1]": planted.shape_missing_normalized,
    "AND NOT": planted.conjunction,
    "hidden": planted.hidden_unit,
    "green": planted.green_missing,
}
SLOW = {"AND NOT", "hidden", "green"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PROBLEMS]
)
def problem(request: pytest.FixtureRequest) -> Planted:
    return PROBLEMS[request.param](0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def share(evidence: Tensor, region: Tensor) -> Tensor:
    """Part of the evidence inside the region, per sample."""
    return (evidence * region).flatten(1).sum(1) / evidence.flatten(1).sum(1)


def with_shape(problem: Planted) -> tuple[Tensor, Tensor]:
    rows = (problem.labels == problem.presence_unit).nonzero().flatten()[:SAMPLES]
    return problem.images[rows], dilate(problem.regions[rows], 2)


def without_shape(problem: Planted) -> Tensor:
    return problem.images[(problem.labels == problem.absence_unit).nonzero().flatten()[:SAMPLES]]


def blank(problem: Planted, method: type[Any], x: Tensor) -> Tensor:
    image = torch.full_like(x[:1], problem.empty)
    return image.expand(2, *x.shape[1:]) if method is AbsenceGradientShap else image.expand_as(x)


def nontarget_view(problem: Planted, method: type[Any], arguments: dict[str, Any]) -> tuple[float, float]:
    """Images with the key, a blank baseline: the share of the evidence at the key, and of the samples with the right sign."""
    x, region = with_shape(problem)
    call = {"target": problem.presence_unit, "baselines": blank(problem, method, x), **arguments}
    signed = method(problem.model, nontarget=problem.absence_unit).attribute(x, **call)
    absence = method(problem.model, nontarget=problem.absence_unit, evidence="absence").attribute(x, **call)
    right = (signed * region).flatten(1).sum(1) < 0
    return float(share(absence, region).mean()), float(right.float().mean())


def reference_view(problem: Planted, method: type[Any], arguments: dict[str, Any]) -> tuple[float, float, float]:
    """Images without the key against references with it: share and sign per reference, share of the mean map."""
    x = without_shape(problem)
    references = ReferenceSet(
        problem.pool_images, problem.pool_labels, empty=problem.empty, k=8, contrast=problem.presence_unit
    )
    indices = references.nearest_indices(x, target=problem.absence_unit)
    assert (problem.pool_labels[indices] == problem.presence_unit).all()
    found = method(problem.model, reference=references).explain(x, target=problem.absence_unit, **arguments)
    assert (found.reference_output < found.output[:, None]).all()
    regions = torch.stack([dilate(problem.pool_regions[column], 2) for column in indices.T], 1)
    absent = (x[:, None] - problem.empty).abs() < (problem.pool_images[indices] - problem.empty).abs()
    evidence = (found.per_reference * absent).clamp(min=0)
    inside = (found.per_reference * regions).flatten(2).sum(2)
    return (
        float(share(evidence.flatten(0, 1), regions.flatten(0, 1)).mean()),
        float((inside > 0).float().mean()),
        # the mean map of the adapter, against the places where any of the references has its shape
        float(share(found.absence, regions.any(1)).mean()),
    )


@pytest.mark.parametrize(
    ("method", "least", "_target", "arguments"), METHODS, ids=lambda value: getattr(value, "__name__", "")
)
def test_nontarget_view_shows_what_suppresses(
    problem: Planted, method: type[Any], least: float, _target: float, arguments: dict[str, Any]
) -> None:
    part, sign = nontarget_view(problem, method, arguments)
    assert part >= least
    assert sign >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "_nontarget", "least", "arguments"), METHODS, ids=lambda value: getattr(value, "__name__", "")
)
def test_reference_view_shows_what_is_missing(
    problem: Planted, method: type[Any], _nontarget: float, least: float, arguments: dict[str, Any]
) -> None:
    part, sign, mean_part = reference_view(problem, method, arguments)
    assert part >= least
    assert sign >= 0.99
    assert mean_part >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "nontarget", "target", "arguments"),
    [METHODS[0], METHODS[-1]],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_paths_and_windows_see_through_attention(
    method: type[Any], nontarget: float, target: float, arguments: dict[str, Any]
) -> None:
    """The sign at a single reference is a little less sure than elsewhere: 93 to 100 % over the training seeds."""
    problem = planted.shape_missing_attention(0)
    part, sign = nontarget_view(problem, method, arguments)
    assert part >= nontarget
    assert sign >= 0.99
    part, sign, mean_part = reference_view(problem, method, arguments)
    assert min(part, mean_part) >= target
    assert sign >= 0.95


@pytest.mark.slow
def test_deep_lift_is_right_on_attention() -> None:
    """Softmax, layer norm and GELU have their secants."""
    part, sign, mean_part = reference_view(planted.shape_missing_attention(0), AbsenceDeepLift, {})
    assert min(part, mean_part) >= 0.94
    assert sign == 1.0


def test_standard_map_does_not_show_it(problem: Planted) -> None:
    """Within 1.6x of chance at the place of the missing shape: a zero baseline has no absence to show."""
    x = without_shape(problem)
    references = ReferenceSet(problem.pool_images, problem.pool_labels, empty=problem.empty, k=1)
    region = dilate(problem.pool_regions[references.nearest_indices(x, target=problem.absence_unit)[:, 0]], 2)
    chance = region.float().flatten(1).mean(1)
    for method, _, _, arguments in METHODS:
        signed = method(problem.model, nontarget=None).attribute(
            x, target=problem.absence_unit, baselines=blank(problem, method, x), **arguments
        )
        signed = signed.detach()
        ratio = float((share(signed.abs(), region) / chance).mean())
        assert ratio <= 1.6, f"{method.__name__}: {ratio:.2f} of chance"


def test_content_is_measured_from_empty() -> None:
    """With the wrong blank value strokes pass for background: the absence part loses the shape."""
    problem = planted.shape_missing_normalized(0)
    x = without_shape(problem)
    shares = []
    for empty in (problem.empty, 0.0):
        references = ReferenceSet(problem.pool_images, problem.pool_labels, empty=empty, k=1)
        region = dilate(problem.pool_regions[references.nearest_indices(x, target=1)[:, 0]], 2)
        found = AbsenceDeepLift(problem.model, reference=references).explain(x, target=problem.absence_unit)
        total = found.attribution.clamp(min=0).flatten(1).sum(1)
        shares.append(float(((found.absence * region).flatten(1).sum(1) / total).mean()))
    assert shares[0] > shares[1] + 0.1


def test_deep_lift_is_mended_where_pooling_follows_relu() -> None:
    """Captum's DeepLift breaks completeness on conv-bn-relu-maxpool; ours holds it to 1e-4."""
    from captum.attr import DeepLift

    problem = planted.shape_missing(0)
    x, pool = without_shape(problem), problem.pool_images[problem.pool_labels == 0][:SAMPLES]
    with torch.no_grad():
        difference = (problem.model(x) - problem.model(pool))[:, 1]
    plain = DeepLift(problem.model).attribute(x, pool, target=1).flatten(1).sum(1)
    ours = AbsenceDeepLift(problem.model, nontarget=None, evidence="presence").explain(x, pool, target=1)
    assert float((plain - difference).detach().abs().max()) > 0.01
    assert float(ours.completeness_error.abs().max()) < 1e-4 * float(difference.abs().max())

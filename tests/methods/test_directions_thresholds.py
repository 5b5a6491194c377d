"""Thresholds, score functions and relabelling against slow plain writings, and on sources that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.directions.histograms import bin_centers, bin_edges, count_values, find_bins
from absence_plugins.methods.directions.polish import fit_scores, orthogonalize, polish
from absence_plugins.methods.directions.relabel import regress_labels, relabel
from absence_plugins.methods.directions.signals import dual_basis
from absence_plugins.methods.directions.thresholds import Thresholds, best_threshold, fit_thresholds


def made(seed: int, concepts: int = 4, positions: int = 8000, overlap: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Whitened z [P, I], presence [P, I] and the mixing of z [I, I]: one concept per position, sometimes two."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(concepts, (positions,), generator=generator)
    second = (first + torch.randint(1, concepts, (positions,), generator=generator)) % concepts
    present = F.one_hot(first, concepts).bool()
    present |= F.one_hot(second, concepts).bool() & (torch.rand(positions, 1, generator=generator) < overlap)
    a = 2.5 * (present + torch.rand(positions, concepts, generator=generator))
    x = a.double() @ torch.randn(concepts, concepts, generator=generator, dtype=torch.float64)
    variances, axes = torch.linalg.eigh(x.T.cov())
    forward = axes / variances.sqrt()
    mixing = torch.linalg.lstsq(a.double() - a.double().mean(0), (x - x.mean(0)) @ forward).solution
    return ((x - x.mean(0)) @ forward).float(), present, mixing.T.float()


def test_histograms_are_those_of_plain_counting() -> None:
    u = 2 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    edges = bin_edges(u)
    counts, own = count_values(u), count_values(u, u > 1)
    for i in range(3):
        for wanted, found in ((u[:, i], counts[i]), (u[u[:, i] > 1, i], own[i])):
            at = torch.bucketize(wanted.double(), edges, right=True) - 1
            assert int((torch.bincount(at, minlength=len(found)) - found).abs().sum()) <= 4  # rounding at an edge
    assert torch.equal(count_values(u[:200]) + count_values(u[200:]), counts)
    centers = bin_centers(u)[find_bins(u)]
    assert bool(((centers - u).abs() < 0.003 * (1 + u.abs())).all())


def test_a_score_function_is_that_of_the_distribution() -> None:
    """The score of a normal mixture, -p'/p, where there are positions, and its Fisher information."""
    generator = torch.Generator().manual_seed(0)
    side = torch.rand(200_000, generator=generator) < 0.5
    u = torch.where(side, 0.9, -0.9) + 0.19**0.5 * torch.randn(200_000, generator=generator)
    counts = count_values(torch.stack([u, torch.randn(200_000, generator=generator)], 1))
    scores, information = fit_scores(counts)
    x = bin_centers(u)
    parts = torch.stack([torch.exp(-((x - m) ** 2) / (2 * 0.19)) for m in (-0.9, 0.9)])
    expected = torch.stack([(parts * torch.stack([x + 0.9, x - 0.9])).sum(0) / parts.sum(0).clamp(min=1e-30) / 0.19, x])
    share = counts.double() / counts.sum(1, keepdim=True)
    error = (share * (scores - expected) ** 2).sum(1) / (share * expected**2).sum(1)
    assert bool((error < torch.tensor([0.02, 0.005])).all())
    assert float(information[0]) > 2.5
    assert float(information[1]) == pytest.approx(1, abs=0.01)
    assert torch.allclose((share * scores).sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose((share * scores * x).sum(1), torch.ones(2, dtype=torch.float64), atol=1e-3)


def test_polish_finds_independent_sources() -> None:
    generator = torch.Generator().manual_seed(1)
    # float64: in float32 a value at the border of two bins can change the bin with the size of the chunk
    sources = torch.rand(4000, 3, generator=generator, dtype=torch.float64)
    u = (sources - sources.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(sources.T.cov())).T
    turn = orthogonalize(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    start = orthogonalize(turn + 0.3 * torch.randn(3, 3, generator=generator, dtype=torch.float64))
    z = u @ turn.T
    found = polish([z[:1500], z[1500:]], start)
    assert float((found * turn).sum(0).min()) > 0.999
    assert torch.allclose(found, polish([z], start), atol=1e-5)


def test_the_best_threshold_is_that_of_a_search() -> None:
    generator = torch.Generator().manual_seed(2)
    u = torch.randn(400, 3, generator=generator)
    own = u + 0.5 * torch.randn(400, 3, generator=generator) > 1
    found = best_threshold(count_values(u), count_values(u, own))
    for i in range(3):

        def agreement(t: float, i: int = i) -> float:
            fires = u[:, i] > t
            return float((fires & own[:, i]).sum() / (fires | own[:, i]).sum())

        assert agreement(float(found[i])) >= max(agreement(float(t) - 1e-6) for t in u[:, i]) - 0.01


def test_labels_are_the_strongest_and_all_that_are_half_as_strong_as_usual() -> None:
    found = Thresholds(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    u = torch.tensor([[0.0, 0.5], [1.9, 3.5], [2.1, 3.5], [-5.0, 9.0]])
    assert found.label(u).tolist() == [[True, False], [False, True], [True, True], [False, True]]


@pytest.mark.parametrize("overlap", [0.0, 0.2])
def test_thresholds_and_relabelling_find_who_is_present(overlap: float) -> None:
    for seed in range(2):
        z, present, mixing = made(seed, overlap=overlap)
        w = orthogonalize(mixing)

        def measure(
            w: Tensor, z: Tensor = z, present: Tensor = present, mixing: Tensor = mixing
        ) -> tuple[float, float]:
            u = z @ w
            fires = u > fit_thresholds([u]).threshold
            iou = (fires & present).sum(0) / (fires | present).sum(0)
            cosine = F.cosine_similarity(dual_basis(w), mixing, dim=0)
            return float(iou.min()), float(cosine.min())

        label = fit_thresholds([z @ w]).label
        better = relabel([z[:3000], z[3000:]], w, lambda part, w=w, label=label: label(part @ w))
        assert torch.allclose((z @ better).var(0), torch.ones(4), atol=1e-3)
        before, after = measure(w), measure(better)
        assert after[0] > max(0.94, before[0])
        assert after[1] > max(0.995, before[1])


def test_regression_on_labels_is_least_squares() -> None:
    z, present, _ = made(0, positions=500)
    explained, rest = regress_labels(
        [z[:100], z[100:]], lambda part: present[: len(part)] if len(part) < 200 else present[100:]
    )
    inputs = torch.cat([present.float(), torch.ones(500, 1)], 1).double()
    wanted = torch.linalg.lstsq(inputs, z.double()).solution
    residual = z.double() - inputs @ wanted
    assert torch.allclose(explained, wanted, atol=1e-4)
    assert torch.allclose(rest, residual.T @ residual / 500, atol=1e-4)


def test_the_dual_basis_is_joint_least_squares() -> None:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(5000, 6, generator=generator, dtype=torch.float64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / 5000)).T
    w = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    wanted = torch.linalg.lstsq(z @ w, z).solution.T
    assert torch.allclose(dual_basis(w), wanted, atol=1e-8)
    assert torch.allclose(w.T @ dual_basis(w), torch.eye(4, dtype=torch.float64), atol=1e-8)
    twice = dual_basis(w[:, [0, 0]])
    assert torch.allclose(twice[:, 0], twice[:, 1])

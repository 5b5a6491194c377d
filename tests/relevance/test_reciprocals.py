"""Norms written by hand give the relevance of torch's own, which is bounded against a nearly constant reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.relevance import relevance


class Norm(nn.Module):
    """x / sqrt(mean(x^2) + eps), in one of several spellings."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "torch":
            return torch.rms_norm(x, (6,), self.weight, 1e-6)
        variance = x.pow(2).mean(-1, keepdim=True) + 1e-6
        if self.spelling == "x * rsqrt":
            return self.weight * (x * torch.rsqrt(variance))
        if self.spelling == "rsqrt * x":
            return self.weight * (torch.rsqrt(variance) * x)
        if self.spelling == "in place":
            return (x * 1.0).mul_(variance.rsqrt_()) * self.weight
        if self.spelling == "reciprocal":
            return x * variance.sqrt().reciprocal() * self.weight
        return x / variance.sqrt() * self.weight


@pytest.mark.parametrize("spelling", ["x * rsqrt", "rsqrt * x", "in place", "reciprocal", "quotient"])
def test_every_spelling_has_the_relevance_of_rms_norm(spelling: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    for r in (torch.randn(2, 6, dtype=torch.float64, generator=generator), 1e-5 * x.flip(1)):
        found, want = (relevance(Norm(s), x, r, 3) for s in (spelling, "torch"))
        torch.testing.assert_close(found.attribution, want.attribution, atol=1e-12, rtol=1e-9)
        assert torch.equal(found.attribution, -relevance(Norm(spelling), r, x, 3).attribution)


def test_the_relevance_is_bounded_against_a_nearly_blank_reference() -> None:
    x = torch.tensor([[3.0, -1.0, 2.0, 0.5, -2.0, 1.0]], dtype=torch.float64)
    found = relevance(Norm("x * rsqrt"), x, torch.full_like(x, 1e-5), 3)
    assert found.attribution.abs().sum() < 4

"""Channels last and oneDNN where the model gives the same outputs for it, and only there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core.memory_layout import PLAIN, Way, find_way

FAST = Way(torch.channels_last, is_direct=True)
X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Viewing(nn.Module):
    """Looks at the strides, as networks of one's own do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).view(len(x), -1)  # type: ignore[no-any-return]


class ByStride(Viewing):
    """Gives something else for another layout."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sum((2, 3)) * (1 if x.is_contiguous() else 2)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (nn.Conv2d(3, 4, 3), FAST),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), FAST),
        (Viewing(), PLAIN),
        (ByStride(), PLAIN),
        (nn.Flatten(), PLAIN),
    ],
)
def test_a_model_is_asked(net: nn.Module, expected: Way) -> None:
    with torch.no_grad():
        assert find_way(net, X, net(X), net) == expected


def test_coarse_numbers_and_infinite_outputs_stay_plain() -> None:
    net = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        half, nan = X.bfloat16(), torch.full((1, 4, 6, 6), torch.nan)
        assert find_way(net, half, nan, net) == PLAIN
        assert find_way(net, X, nan, net) == PLAIN
        assert find_way(net, X, net(X) * 1.001, net) == PLAIN

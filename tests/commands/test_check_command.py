"""What ``check`` says of a model, and the method that it recommends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.commands.check import recommend_method
from absence_plugins.data import digits_cnn


class Sorted(nn.Module):
    """An operation without an exact relevance of differences; its gradient is right almost everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.special.i0(x).flatten(1))


class Detached(Sorted):
    """Without gradients, only perturbations are left."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Broken(Sorted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (digits_cnn, "relevance"),
        (Sorted, "captum:IntegratedGradients"),
        (Detached, "captum:Occlusion"),
    ],
)
def test_the_default_method_is_the_first_that_is_right(model: type[nn.Module], method: str) -> None:
    torch.manual_seed(0)
    net = model()
    x = torch.rand(1, 1, 32, 32) if model is digits_cnn else torch.rand(1, 3, 4, 4)
    state, training = torch.random.get_rng_state(), net.training
    assert recommend_method(net, x) == method
    assert torch.equal(state, torch.random.get_rng_state())
    assert net.training == training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_what_no_method_explains_is_said() -> None:
    with pytest.raises(ValueError, match=r"no method explains this model on this image; relevance: .*Occlusion: "):
        recommend_method(Broken(), torch.rand(1, 3, 4, 4))

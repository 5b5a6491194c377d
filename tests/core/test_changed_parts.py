"""Images that are others with a rectangle exchanged: what the network says of them is what it says of them whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core import changed_windows
from absence_plugins.core.changed_parts import Changed, holds_scripts, is_close, run_changed
from absence_plugins.core.units import Layer

SIDE = 24


class Through(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def conv(inner: int, outer: int, kernel: int = 3, **options: Any) -> nn.Module:
    return nn.Conv2d(inner, outer, kernel, **{"padding": kernel // 2, **options})


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    made.running_mean.uniform_(-1, 1)
    made.running_var.uniform_(0.5, 2)
    return made


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, step: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inner, outer, stride=step, bias=False),
            norm(outer),
            nn.ReLU(inplace=True),
            conv(outer, outer),
            norm(outer),
        )
        self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, step), norm(outer)) if step > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out += self.short(x)
        return self.relu(out)


def shuffled(x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


def excited(x: Tensor, narrow: nn.Module) -> Tensor:
    return x * torch.sigmoid(narrow(x.mean((2, 3), keepdim=True)))


def next_block(x: Tensor, wide: nn.Module, normed: nn.Module, up: nn.Module, down: nn.Module) -> Tensor:
    """As in ConvNeXt: channels last in between."""
    y = normed(wide(x).permute(0, 2, 3, 1))
    return x + 0.1 * down(F.gelu(up(y))).permute(0, 3, 1, 2)


# (network, whether less than the whole is computed)
FOLLOWED: dict[str, tuple[Any, bool]] = {
    "convolutions": (lambda: nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5, 5), nn.Tanh()), True),
    "strides": (lambda: nn.Sequential(conv(3, 4, stride=2), nn.ReLU(inplace=True), conv(4, 4, 3, stride=(2, 1), padding=0)), True),
    "a stride larger than its kernel": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1, 3), nn.Conv2d(4, 4, 2, 3)), True),
    "dilation": (lambda: nn.Sequential(conv(3, 4, dilation=3, padding=3), conv(4, 4, 4, dilation=2, padding="same")), True),
    "depthwise": (lambda: nn.Sequential(conv(3, 6), conv(6, 6, groups=6), nn.ReLU6(), conv(6, 4, 1), nn.Hardswish(inplace=True)), True),
    "one-sided kernels": (lambda: nn.Sequential(nn.Conv2d(3, 4, (1, 5), padding=(0, 4)), nn.Conv2d(4, 4, (3, 1))), True),
    "pooling": (lambda: nn.Sequential(conv(3, 4), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), norm(4)), True),
    "pooling with ceil": (lambda: nn.Sequential(conv(3, 4), nn.MaxPool2d(5, 3, ceil_mode=True), conv(4, 4)), True),
    "dilated pooling": (lambda: nn.Sequential(nn.MaxPool2d(2, 1, 1, dilation=2), conv(3, 4)), True),
    "averages that leave out the padding": (lambda: nn.Sequential(conv(3, 4), nn.AvgPool2d(3, 2, 1, count_include_pad=False)), False),
    **{
        f"padding with {mode}": (lambda mode=mode: nn.Sequential(conv(3, 4, 5, padding_mode=mode), nn.ReLU(), conv(4, 4, padding_mode=mode)), mode != "circular")
        for mode in ("reflect", "replicate", "circular")
    },
    "padding of its own": (lambda: Through(lambda x, last: last(F.pad(x, (1, 2, 0, 3), value=0.5)), conv(3, 4)), True),
    "padding of channels": (lambda: Through(lambda x, last: last(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))), conv(5, 4)), True),
    "residual blocks": (lambda: nn.Sequential(conv(3, 4), Residual(4, 4, 1), Residual(4, 6, 2)), True),
    "branches of other width": (lambda: Through(lambda x, a, b: torch.cat([a(x), x, b(x)], 1), conv(3, 2, 7), conv(3, 2, 1)), True),
    "dense": (lambda: Through(lambda x, a, b: torch.cat((x, y := F.relu(a(x)), b(torch.cat([x, y], 1))), 1), conv(3, 4), conv(7, 4)), True),
    "parts of the channels": (lambda: Through(lambda x, a, b: torch.cat([(y := a(x).chunk(2, 1))[1], b(y[0])], 1), conv(3, 6), conv(3, 2)), True),
    "gates": (lambda: Through(lambda x, a, b: a(x) * torch.sigmoid(b(x)) + torch.where(x[:, :1] > 0.5, 1.0, -1.0), conv(3, 4), conv(3, 4, 5)), True),
    "shuffled channels": (lambda: Through(lambda x, a, b: b(shuffled(a(x))), conv(3, 6), conv(6, 4, groups=2)), True),
    "slopes": (lambda: nn.Sequential(conv(3, 4), nn.PReLU(4), nn.LeakyReLU(0.1, inplace=True), nn.ELU(), nn.SELU(), nn.Mish(), nn.GELU()), True),
    "dropout": (lambda: nn.Sequential(nn.Dropout2d(), conv(3, 4), nn.Dropout(inplace=True), nn.Softmax(1)), True),
    "a place of its own for every pixel": (lambda: Through(lambda x, a: a(x * torch.linspace(0, 1, SIDE)[:, None] + torch.linspace(0, 1, 3)[:, None, None]), conv(3, 4)), True),
    "as in ConvNeXt": (lambda: nn.Sequential(nn.Conv2d(3, 8, 2, 2), Through(next_block, conv(8, 8, 7, groups=8), nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8))), True),
    "coordinates": (lambda: Through(lambda x, a: a(torch.cat([x, torch.linspace(-1, 1, SIDE).expand(len(x), 1, SIDE, SIDE)], 1)), conv(4, 4)), True),
    "squeeze and excitation": (lambda: nn.Sequential(conv(3, 4, stride=2), Through(excited, conv(4, 4, 1)), conv(4, 4)), False),
    "group norm": (lambda: nn.Sequential(conv(3, 4), nn.GroupNorm(2, 4), nn.ReLU(), conv(4, 4)), False),
    "instance norm": (lambda: nn.Sequential(conv(3, 4), nn.InstanceNorm2d(4), conv(4, 4)), False),
    "layer norm over positions": (lambda: nn.Sequential(conv(3, 4), nn.LayerNorm([4, SIDE, SIDE]), conv(4, 4)), False),
    "a head": (lambda: nn.Sequential(conv(3, 4, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5)), False),
    "larger again": (lambda: nn.Sequential(conv(3, 4, stride=2), nn.Upsample(scale_factor=2), conv(4, 4), nn.UpsamplingBilinear2d(scale_factor=2)), False),
}  # fmt: skip


def count(x: Tensor) -> Tensor:
    return x * float(x.sum())


def branch(x: Tensor) -> Tensor:
    return x * 2 if bool(x.mean() > 0) else x


def seen(x: Tensor) -> Tensor:
    return x * x.numpy().max().item()


def over_batch(x: Tensor) -> Tensor:
    return x - x.mean(0, keepdim=True)


def rolled(x: Tensor) -> Tensor:
    return torch.cat([x[1:], x[:1]])


def written(x: Tensor) -> Tensor:
    into = torch.zeros_like(x)
    into[:, :2] = x[:, :2]
    return into


def through_a_view(x: Tensor) -> Tensor:
    x = x * 1
    x[:, 0].add_(1)
    x.transpose(2, 3).mul_(2)
    return x


def attention(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens)


NOT_FOLLOWED: dict[str, Any] = {
    "a number": count, "a decision": branch, "numpy": seen, "the batch": over_batch, "another image": rolled,
    "written into": written, "a view": through_a_view, "attention": attention, "noise": lambda x: x + torch.rand_like(x),
    "training": lambda x: F.batch_norm(x, None, None, training=True), "dropout": lambda x: F.dropout(x, 0.5, True),
    "transposed": lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 2, 2).double()), "sorted": lambda x: x.sort(-1).values,
    "another batch": lambda x: x.reshape(-1, 3 * SIDE * SIDE // 2), "indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "bits": lambda x: x.view(torch.int64).view(torch.float64),
    "turned": lambda x: x.flip(-1), "fourier": lambda x: torch.fft.rfft2(x).abs(),
}  # fmt: skip


def changes(
    seed: int = 0, size: int = 5, amount: int = 9, side: int = SIDE, kind: torch.dtype = torch.float64
) -> Changed:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, side, side + 1, generator=generator, dtype=kind)[..., :side].contiguous()
    last = side - size
    corners = [(0, 0), (last, 0), (0, last), (last, last), (0, 7)]
    corners += [tuple(torch.randint(last + 1, (2,), generator=generator).tolist()) for _ in range(amount - 5)]  # type: ignore[misc]
    rows = torch.randint(3, (amount,), generator=generator).tolist()
    return Changed(images, rows, corners, torch.rand(amount, 3, size, size, generator=generator, dtype=kind))


@pytest.mark.parametrize("small", [0, 30_000])
@pytest.mark.parametrize("name", FOLLOWED)
def test_windows_give_what_whole_images_give(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of cutting boxes out: one by one, and all at once where they are small."""
    monkeypatch.setattr(changed_windows, "SMALL", small)
    torch.manual_seed(0)
    make, is_less = FOLLOWED[name]
    torch.set_default_dtype(torch.float64)
    try:
        net = make().double().eval()
        for seed, size in ((0, 5), (1, 1), (2, 8)):
            changed = changes(seed, size)
            found = run_changed(net, changed)
            with torch.no_grad():
                expected = net(changed.whole())
            assert found.why == ""
            assert found.values is not None
            torch.testing.assert_close(found.values.clone(), expected, rtol=0, atol=1e-12)
            assert found.work.windows <= 1.6 * found.work.whole
            if is_less and size < 8:
                assert found.work.windows < 0.85 * found.work.whole
            assert is_close(found.values.clone(), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NOT_FOLLOWED)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_cannot_be_followed_is_said(name: str, is_first: bool) -> None:
    torch.manual_seed(0)
    last = Through(NOT_FOLLOWED[name])
    found = run_changed((last if is_first else nn.Sequential(conv(3, 3), last)).double().eval(), changes())
    assert found.values is None
    assert found.why


def test_halves_and_outputs_that_are_no_maps_run_whole() -> None:
    assert run_changed(conv(3, 2), changes(kind=torch.bfloat16)).why == "torch.bfloat16"
    assert "does not depend" in run_changed(lambda x: torch.zeros(len(x), 2), changes()).why
    assert "does not depend" in run_changed(lambda x: (x, x), changes()).why  # type: ignore[arg-type, return-value]
    assert holds_scripts(nn.Sequential(torch.jit.script(nn.ReLU())))
    assert not holds_scripts(nn.Sequential(nn.ReLU()))


def test_in_single_precision_the_last_bits_may_differ_and_no_more() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 32), nn.ReLU(), Residual(32, 32, 1), Residual(32, 48, 2), Residual(48, 48, 1)).eval()
    changed = changes(amount=20, side=48, size=10, kind=torch.float32)
    found = run_changed(net, changed)
    with torch.no_grad():
        expected = net(changed.whole())
    assert found.values is not None
    assert is_close(found.values.clone(), expected)
    assert not is_close(expected + 1e-3, expected)
    assert not is_close(expected[:, :1], expected)


def test_a_window_over_its_whole_map_needs_the_map_no_more() -> None:
    """Behind it the images as they are do not run; and nothing is left of the watching."""
    net = nn.Sequential(
        conv(3, 4, stride=4), nn.ReLU(inplace=True), conv(4, 4, 15, bias=False), nn.ReLU(), conv(4, 4)
    ).double()
    found = run_changed(net.eval(), changes(size=12))
    assert found.work.clean < 0.2 * found.work.whole / 3  # 9 changed images of 3 others
    assert found.values is not None
    with torch.no_grad():
        torch.testing.assert_close(found.values.clone(), net(changes(size=12).whole()), rtol=0, atol=1e-12)
    assert not any(module._forward_hooks for module in net.modules())


def test_layers_are_read_as_ever() -> None:
    """In front of the nonlinearity, stopped at the layer, the model as before."""
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 4), nn.ReLU(), Residual(4, 6, 2), nn.Flatten(0), nn.Linear(2, 2)).double().train()
    layer, changed = Layer("2"), changes()
    with layer.reading(net) as run:
        expected = run(changed.whole())  # the first forward runs on behind the layer, where it fails
        found = run_changed(run, changed)
    assert found.values is not None
    torch.testing.assert_close(found.values.clone(), expected.clone(), rtol=0, atol=1e-12)
    assert net.training
    assert float(expected.min()) < 0


def test_the_images_and_the_callers_tensors_are_as_before() -> None:
    changed = changes()
    before = changed.images.clone(), changed.pixels.clone()
    run_changed(nn.Sequential(nn.ReLU(inplace=True), conv(3, 4).double()), changed)
    run_changed(lambda x: x.mul_(2).add_(x), changed)
    assert torch.equal(changed.images, before[0])
    assert torch.equal(changed.pixels, before[1])

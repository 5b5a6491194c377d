"""One address is one number: `Layer` and `Unit` against hooks that are written here, on every layout of activations."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Direction, Layer, Unit


class Tokens(nn.Module):
    """Images [B, 1, 4, 5] -> 5 tokens of 4 values, of 3 channels in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.embed(x.squeeze(1).transpose(1, 2))).mean(1))  # type: ignore[no-any-return]


class Windows(nn.Module):
    """Channels-last maps [B, H, W, C], as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 6, 2, 2)
        self.block = nn.Sequential(OrderedDict(norm=nn.LayerNorm(6), mlp=nn.Linear(6, 6), drop=nn.Dropout()))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patch(x).permute(0, 2, 3, 1)).mean((1, 2)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A block that ends in a rectifier which works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.conv(x))
        hidden += x
        return self.relu(hidden)  # type: ignore[no-any-return]


@dataclass
class Hidden:
    """What an encoder of transformers returns."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Hidden:
        hidden = self.embed(x.squeeze(1).transpose(1, 2))
        return Hidden(hidden, hidden[:, 0])


class Dataclassed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).last_hidden_state.mean(1))  # type: ignore[no-any-return]


def seeded(build: Any) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = build().eval()
    return net


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), Residual(), nn.Dropout(), nn.Flatten(), nn.Linear(40, 2)
    )


# name -> (network, input shape, [(layer, module, side, axis of the channels)])
CASES: dict[str, tuple[Any, tuple[int, ...], list[tuple[str, str, str, int]]]] = {
    "cnn": (cnn, (1, 4, 5), [("0", "0", "output", 1), ("1", "1", "input", 1), ("2", "2.relu", "input", 1),
                             ("2.norm", "2.norm", "output", 1), ("3", "3", "output", 1), ("5", "5", "output", 1)]),
    "tokens": (Tokens, (1, 4, 5), [("embed", "embed", "output", 2), ("act", "act", "input", 2), ("head", "head", "output", 1)]),
    "windows": (Windows, (1, 8, 4), [("patch", "patch", "output", 1), ("block", "block", "output", 3),
                                     ("block.norm", "block.norm", "output", 3), ("block_drop", "block.drop", "output", 3)]),
    "signal": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 4, 3)), (2, 9),
               [("0", "0", "output", 1), ("1", "1", "input", 1), ("2", "2", "output", 1)]),
    "volume": (lambda: nn.Sequential(nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(24, 2)), (1, 3, 3, 3),
               [("0", "0", "output", 1), ("1", "1", "output", 1)]),
    "dataclass": (Dataclassed, (1, 4, 5), [("encoder", "encoder", "output", 2), ("encoder.embed", "encoder.embed", "output", 2)]),
}  # fmt: skip
ADDRESSES = [(net, *address) for net, (_, _, addresses) in CASES.items() for address in addresses]


def by_hook(model: nn.Module, x: Tensor, module: str, side: str, axis: int) -> Tensor:
    """The activation [B, U, positions], written a second time."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Any, output: Any = None) -> None:
        value = inputs[0] if side == "input" else output
        seen.append((value.last_hidden_state if isinstance(value, Hidden) else value).clone())

    found = dict(model.named_modules())[module]
    handle = found.register_forward_pre_hook(keep) if side == "input" else found.register_forward_hook(keep)
    with torch.no_grad():
        model(x)
    handle.remove()
    moved = seen[-1].movedim(axis, 1)
    return moved.flatten(2) if moved.dim() > 2 else moved[..., None]


@pytest.mark.parametrize(("net", "layer", "module", "side", "axis"), ADDRESSES)
def test_every_layout_is_read_as_an_independent_hook_reads_it(
    net: str, layer: str, module: str, side: str, axis: int
) -> None:
    build, shape, _ = CASES[net]
    model, x = seeded(build), torch.randn(3, *shape)
    expected = by_hook(model, x, module, side, axis)
    units = expected.shape[1]
    assert torch.equal(Layer(layer).activation(model, x), expected)
    values = expected.mean(-1)
    assert torch.equal(Layer(layer).read(model, x), values)
    assert torch.equal(Layer(layer)[units - 1].values(model, x), values[:, -1])
    assert torch.equal(Unit(layer, units - 1).of(model)(x), values[:, -1])
    with Layer(layer).reading(model) as run:
        for _ in range(2):  # the second call stops at the layer
            assert torch.equal(run(x).reshape(expected.shape), expected)
    assert torch.equal(Layer(layer, reduce="max").read(model, x), expected.amax(-1))
    vector = torch.arange(1.0, units + 1)
    along = torch.einsum("u,bu...->b...", vector, expected) - 0.5
    assert torch.allclose(Direction(layer, vector, bias=-0.5).values(model, x), along.mean(-1))
    assert Layer(layer).shape(model, x).channels == units
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match=f"there is no unit {units}: it has {units} channels"):
        Unit(layer, units).values(model, x)


@pytest.mark.parametrize(
    ("layer", "module", "side"), [("1", "1", "input"), ("2", "2.relu", "input"), ("3", "3", "output")]
)
def test_reading_needs_nothing_behind_the_layer(layer: str, module: str, side: str) -> None:
    """Also where the axis of the channels is looked up in the layers around, and a block's last activation found out."""
    model, x = seeded(cnn), torch.randn(2, 1, 4, 5)
    expected = by_hook(model, x, module, side, 1)
    model[5] = nn.Linear(7, 7)  # type: ignore[operator]  # fits no input
    calls: list[int] = []
    with Layer(layer).reading(model) as run:
        model[4].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index,union-attr]
        for _ in range(3):
            assert torch.equal(run(x).flatten(2), expected)
    assert len(calls) <= 2  # the first forward, and once more to see which layers are around
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_one_position() -> None:
    tokens, windows = seeded(Tokens), seeded(Windows)
    x = torch.randn(2, 1, 4, 5)
    assert torch.equal(Unit("embed", 1, 3).values(tokens, x), by_hook(tokens, x, "embed", "output", 2)[:, 1, 3])
    assert torch.equal(
        Unit("embed", 1, reduce="cls").values(tokens, x), by_hook(tokens, x, "embed", "output", 2)[:, 1, 0]
    )
    x = torch.randn(2, 1, 8, 4)
    seen = by_hook(windows, x, "block", "output", 3).unflatten(2, (4, 2))
    assert torch.equal(Unit("block", 5, (3, 1)).values(windows, x), seen[:, 5, 3, 1])
    with pytest.raises(ValueError, match=r"position=\(4, 0\) does not exist: layer 'block' has 4 x 2 positions"):
        Unit("block", 5, (4, 0)).values(windows, x)
    with pytest.raises(ValueError, match="needs tokens"):
        Unit("block", 5, reduce="cls").values(windows, x)


def test_sides_by_name() -> None:
    model, x = seeded(cnn), torch.randn(2, 1, 4, 5)
    for layer, module, side in (("2", "2", "output"), ("1", "1", "output"), ("2", "2", "input")):
        expected = by_hook(model, x, module, side, 1)
        assert torch.equal(Layer(layer, side=side).activation(model, x), expected)  # type: ignore[arg-type]
    assert "before its nonlinearity" in str(Layer("2").shape(model, x))
    assert str(Layer("0").shape(model, x)) == "0: 2 channels x 4 x 5 positions, mean"


class Ambiguous(nn.Module):
    """Nothing tells whether [B, 3, 3] is channels x positions or tokens x channels."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x.flatten(2))  # type: ignore[no-any-return]


def test_an_axis_that_cannot_be_told_is_asked_for() -> None:
    model, x = Ambiguous(), torch.randn(2, 3, 1, 4)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\).*channels='first' \(3 channels\) or channels='last' \(4"):
        Layer("hidden").read(model, x)
    assert Layer("hidden", channels="first").read(model, x).shape == (2, 3)
    assert Layer("hidden", channels="last").read(model, x).shape == (2, 4)


def test_a_first_axis_that_is_not_the_batch_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"\(6, 2\) for 2 samples: its first axis is not the batch"):
        Layer("1").read(model, torch.randn(2, 3, 4))


def test_samples_on_axis_1_are_found() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 5)  # [T, B, C]

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x.transpose(0, 1))[0][-1]  # type: ignore[no-any-return]

    x = torch.randn(2, 7, 3)
    expected = lstm(x.transpose(0, 1))[0].permute(1, 2, 0)
    assert torch.equal(Layer("lstm").activation(Sequence(), x), expected)


def test_keywords_and_mappings_are_the_models_inputs() -> None:
    class Keyworded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(2, 3)

        def forward(self, *, pixel_values: Tensor, scale: Tensor) -> Tensor:
            return self.f(pixel_values * scale)  # type: ignore[no-any-return]

    model, given = Keyworded(), {"pixel_values": torch.randn(4, 2), "scale": torch.tensor([2.0]).expand(4, 1)}
    assert torch.equal(Layer("f").read(model, given), model(**given))
    assert torch.equal(Layer("f").read(model, **given), model(**given))


def test_the_users_images_and_random_state_stay() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return self.f(x)  # type: ignore[no-any-return]

    x = torch.rand(2, 4)
    mine, state = x.clone(), torch.get_rng_state()
    first, second = (Unit("f", 0).values(_made(InPlace), mine) for _ in range(2))
    assert torch.equal(mine, x)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def _made(build: Any) -> nn.Module:
    with torch.random.fork_rng():
        return seeded(build)


def test_a_compiled_model_is_read_as_the_plain_one() -> None:
    plain = seeded(cnn)
    compiled = torch.compile(seeded(cnn), backend="eager")
    x = torch.randn(2, 1, 4, 5)
    compiled(x)
    assert torch.equal(Layer("2").read(compiled, x), Layer("2").read(plain, x))  # type: ignore[arg-type]


def test_an_unknown_layer_lists_near_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict((f"block{i}", Residual()) for i in range(40)))
    with pytest.raises(ValueError, match="no layer 'blok7'") as caught:
        Layer("blok7").read(model, torch.randn(1, 2, 3, 3))
    assert "block7" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Layer("a", channels="middle"), "channels='middle' must be one of auto, first, last"),  # type: ignore[arg-type]
        (lambda: Layer("a", side="both"), "side='both' must be one of auto, input, output"),  # type: ignore[arg-type]
        (lambda: Layer("a", reduce="median"), "reduce='median' must be one of mean"),  # type: ignore[arg-type]
        (lambda: Unit("a", 0, -1), "position=-1"),
        (lambda: Unit("a", 0, (0, True)), "position="),
        (lambda: Direction("a", torch.tensor([1.0, torch.nan])), "NaN"),
        (lambda: Direction("0", torch.ones(3)).values(nn.Sequential(nn.Linear(1, 2)), torch.ones(1, 1)), "3 weights, but layer '0' has 2"),
        (lambda: Layer("0").read(nn.Sequential(Pair(), nn.Identity()), torch.ones(1, 1)), "layer '0' puts out a, b: it cannot be told"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


class Pair(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x, "b": x}


def test_dicts_and_words() -> None:
    unit = Unit(Layer("f", channels="last", reduce="max"), 3, position=2)
    assert Unit(**unit.to_dict()) == unit
    assert repr(unit) == "Unit('f', 3, 2, reduce='max', channels='last')"
    assert unit.describe() == "unit 3 of f at 2"
    assert Unit("f", 1, activation="post").activation == "post"


def test_as_many_tokens_as_channels_behind_a_convolution() -> None:
    class Mix(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens.roll(1, 2) * 2

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.head = nn.Conv2d(1, 4, 2, 2), Mix(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(self.embed(x).flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]

    net, x = Patches().eval(), torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"'mix' has activations of shape \(2, 4, 4\).*channels='last'"):
        Layer("mix").read(net, x)
    expected = net.embed(x).roll(1, 1).mean((2, 3)) * 2
    assert torch.allclose(Layer("mix", channels="last").read(net, x), expected)

"""Features, heads, edits and effects on every layout of activations: each against a hook that is written here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Direction, Layer, Unit
from absence_plugins.core.outputs import Logit, Margin
from absence_plugins.methods.directions import (
    DirectionPairs,
    edited,
    head_of,
    influence,
    layer_features,
    removal_check,
)


@dataclass
class Answer:
    """What a model of transformers returns."""

    loss: Tensor | None
    logits: Tensor
    hidden: Tensor


class Rectified(nn.Module):
    """A block as in torchvision's ResNet: one rectifier, called twice, in place; the second call ends the block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.relu(self.first(x)))
        hidden += x
        return self.relu(hidden)  # type: ignore[no-any-return]


class Network(nn.Module):
    """A stem, a body, and logits of the mean over positions; returns a tensor or a dataclass."""

    def __init__(self, stem: nn.Module, body: nn.Module, back: Callable[[Tensor], Tensor], returns: Any = None) -> None:
        super().__init__()
        self.stem, self.body, self.last, self.back, self.returns = stem, body, nn.Linear(6, 3), back, returns

    def forward(self, x: Tensor) -> Any:
        x = x.clone()
        x -= 0.1  # works in place on what it is given
        hidden = self.back(self.body(self.stem(x)))
        logits = self.last(hidden)
        return logits if self.returns is None else self.returns(logits, hidden)


class ToTokens(nn.Module):
    """[B, C, H, W] -> [B, T, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class ToWindows(nn.Module):
    """[B, C, H, W] -> [B, H, W, C], as in Swin."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def mean_of_maps(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2)


def resnet() -> nn.Module:
    return Network(nn.Conv2d(1, 6, 2, 2), nn.Sequential(Rectified(6), Rectified(6)), mean_of_maps)


def vit() -> nn.Module:
    block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0)
    return Network(nn.Sequential(nn.Conv2d(1, 6, 2, 2), ToTokens()), block, lambda x: x.mean(1))


def swin() -> nn.Module:
    block = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU())
    return Network(nn.Sequential(nn.Conv2d(1, 6, 2, 2), ToWindows()), block, lambda x: x.mean((1, 2)))


def volume() -> nn.Module:
    return Network(nn.Sequential(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 6, (1, 2, 2))), nn.BatchNorm3d(6), mean_of_maps)


def signal() -> nn.Module:
    return Network(nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 6, 3)), nn.Conv1d(6, 6, 2), mean_of_maps)


def hugging() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True))
    return Network(nn.Conv2d(1, 6, 2, 2), body, mean_of_maps, lambda logits, hidden: Answer(None, logits, hidden))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 2, 2), nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True)), nn.Flatten(), nn.Linear(54, 3)
    )


# network, layer, the module whose side is read, side, axis of the channels, shape of the features of 4 images
ADDRESSES = [
    (resnet, "body", "body.1.relu", "input", 1, (4, 3, 3, 6)),
    (resnet, "body.0", "body.0.relu", "input", 1, (4, 3, 3, 6)),
    (resnet, "stem", "stem", "output", 1, (4, 3, 3, 6)),
    (vit, "stem", "stem", "output", 2, (4, 1, 9, 6)),
    (vit, "body", "body", "output", 2, (4, 1, 9, 6)),
    (vit, "body.norm1", "body.norm1", "output", 2, (4, 1, 9, 6)),
    (swin, "body.1", "body.1", "output", 3, (4, 3, 3, 6)),
    (swin, "body", "body.2", "input", 3, (4, 3, 3, 6)),
    (swin, "stem.0", "stem.0", "output", 1, (4, 3, 3, 6)),
    (volume, "body", "body", "output", 1, (4, 1, 25, 6)),
    (signal, "stem", "stem", "output", 1, (4, 1, 34, 6)),
    (signal, "body", "body", "output", 1, (4, 1, 33, 6)),
    (hugging, "body", "body.1", "input", 1, (4, 3, 3, 6)),
    (hugging, "body.1", "body.1", "input", 1, (4, 3, 3, 6)),
    (plain, "1", "1.1", "input", 1, (4, 3, 3, 6)),
    (plain, "1.0", "1.0", "output", 1, (4, 3, 3, 6)),
    (plain, "3", "3", "output", 1, (4, 1, 1, 3)),
]


def made(build: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = build().eval()
    return model, torch.randn(4, 1, 6, 6)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found = model(x)
    return found.logits if isinstance(found, Answer) else found


def by_hook(model: nn.Module, x: Tensor, module: str, side: str, axis: int) -> Tensor:
    """The value [N, D, ...] at a side of a module at its last call, written a second time."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Any, output: Any = None) -> None:
        seen.append((inputs[0] if side == "input" else output).clone())

    found = model.get_submodule(module)
    handle = found.register_forward_pre_hook(keep) if side == "input" else found.register_forward_hook(keep)
    logits(model, x)
    handle.remove()
    return seen[-1].movedim(axis, 1)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(("build", "layer", "module", "side", "axis", "shape"), ADDRESSES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's fused attention
def test_the_head_of_the_features_is_the_model(
    build: Callable[[], nn.Module], layer: str, module: str, side: str, axis: int, shape: tuple[int, ...]
) -> None:
    model, x = made(build)
    mine = x.clone()
    own = by_hook(model, x, module, side, axis)
    expected = logits(model, x)
    features = layer_features(model, layer, x)
    assert features.shape == shape
    assert torch.equal(features, own.movedim(1, -1).reshape(shape))
    if (build, layer) != (vit, "body.norm1"):  # a residual path leads around it
        head = head_of(model, layer, x)
        assert torch.equal(head(features), expected) or torch.allclose(head(features), expected, atol=1e-6)
        whole, (unit, direction) = head.read(
            features, [Unit(layer, 1), Direction(layer, torch.arange(shape[-1]) * 1.0, bias=2.0)]
        )
        assert torch.allclose(whole, expected, atol=1e-6)
        along = own.flatten(2).mean(2) if own.dim() > 2 else own
        assert torch.allclose(unit, along[:, 1], atol=1e-6)
        assert torch.allclose(direction, along @ torch.arange(shape[-1]).float() + 2, atol=1e-5)
        moved = features.detach().requires_grad_()
        head(moved).sum().backward()
        assert moved.grad is not None
        assert bool(moved.grad.any())
    with torch.no_grad(), edited(model, layer, lambda features: features + 0) as same:
        assert torch.allclose(logits(same, x), expected, atol=1e-6)
    with edited(model, layer, lambda features: features * 0 - 1) as changed:
        assert not torch.allclose(logits(changed, x), expected)
        assert torch.equal(layer_features(changed, layer, x), torch.full(shape, -1.0))
    assert hooks(model) == 0
    assert torch.equal(x, mine)


def test_the_axis_can_be_said_and_the_side_chosen() -> None:
    model, x = made(swin)
    found = layer_features(model, "body.1", x)
    assert torch.equal(layer_features(model, "body.1", x, channels_last=True), found)
    assert torch.equal(layer_features(model, Layer("body.1", channels="last"), x), found)
    assert layer_features(model, "body.1", x, channels_last=False).shape == (4, 3, 6, 3)
    resnets, x = made(resnet)
    behind = layer_features(resnets, Layer("body", side="output"), x)
    assert torch.equal(behind, layer_features(resnets, "body", x).relu())
    assert torch.allclose(head_of(resnets, Layer("body", side="output"), x)(behind), logits(resnets, x), atol=1e-6)


def test_a_unit_in_front_of_the_layer_is_refused() -> None:
    model, x = made(resnet)
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "body", torch.randn(60, 1, 6, 6))
    with pytest.raises(ValueError, match="layer 'stem' does not lie behind layer 'body'"):
        influence(pairs, model, "body", x, outputs=[0, Unit("stem", 1)])


def test_a_layer_that_runs_twice_is_refused() -> None:
    model, x = made(resnet)
    with pytest.raises(ValueError, match=r"layer 'body.0.relu' runs 2 times"):
        layer_features(model, "body.0.relu", x)
    with pytest.raises(ValueError, match="runs 2 times"):
        head_of(model, "body.0.relu", x)


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("build", [resnet, vit, swin, hugging])
def test_effects_are_changes_of_what_the_reader_reads(build: Callable[[], nn.Module]) -> None:
    """A step along e_j everywhere changes unit j of the layer by that step, and an output by what the head says."""
    model, _ = made(build)
    x = torch.randn(40, 1, 6, 6)
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "body", x)
    outputs = [1, Logit(1, sign=-1), Margin(0, 2), Unit("body", 2), *pairs.units("body")]
    found = influence(pairs, model, "body", x, outputs=outputs, n_permutations=20)
    assert found.outputs == (
        *("class 1", "minus logit 1", "logit 0 minus logit 2", "body:2"),
        *("direction 0 of body", "direction 1 of body"),
    )
    assert torch.allclose(found.effect[:, 0], -found.effect[:, 1])
    positions = layer_features(model, "body", x)[0, ..., 0].numel()
    step = (pairs.encoding * pairs.step).T.double() / positions  # of one position, in the mean over all
    assert torch.allclose(found.effect[:, 3], step[:, 2], atol=1e-4)
    assert torch.allclose(found.effect[:, 4:], step @ pairs.decoding.double(), atol=1e-3)
    everything = influence(pairs, model, "body", x, n_permutations=20)
    assert everything.outputs == ("class 0", "class 1", "class 2")
    assert torch.allclose(everything.effect[:, 1], found.effect[:, 0], atol=1e-5)
    assert hooks(model) == 0


def test_the_detectors_are_units_of_the_layer() -> None:
    model, _ = made(resnet)
    x = torch.randn(60, 1, 6, 6)
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "body", x)
    own = pairs.logits(by_hook(model, x, "body.1.relu", "input", 1).movedim(1, -1)).flatten(1, 2)
    for i, (mean, most) in enumerate(zip(pairs.units("body"), pairs.units(Layer("body", reduce="max")), strict=True)):
        assert torch.allclose(mean.of(model)(x), own[..., i].mean(1), atol=1e-4)
        assert torch.allclose(most.values(model, x), own[..., i].amax(1), atol=1e-4)
    with pytest.raises(ValueError, match="not fitted"):
        DirectionPairs(2).units("body")


@pytest.mark.parametrize("build", [resnet, vit, hugging])
def test_removal_checks_read_through_the_core(build: Callable[[], nn.Module]) -> None:
    model, x = made(build)
    other = torch.randn(4, 1, 6, 6)
    layer = Layer("body", reduce="max")
    module, side, axis = {
        resnet: ("body.1.relu", "input", 1),
        vit: ("body", "output", 2),
        hugging: ("body.1", "input", 1),
    }[build]
    vector = torch.randn(6)

    def rise(of: Callable[[Tensor], Tensor]) -> float:
        return float((of(other) - of(x)).double().mean())

    def hidden(images: Tensor) -> Tensor:
        return by_hook(model, images, module, side, axis).flatten(2)

    for explained, of in (
        (2, lambda images: logits(model, images)[:, 2]),
        (Margin(0, 1), lambda images: logits(model, images)[:, 0] - logits(model, images)[:, 1]),
        (Unit(layer, 3), lambda images: hidden(images)[:, 3].amax(1)),
        (Direction(layer, vector), lambda images: torch.einsum("u,nup->np", vector, hidden(images)).amax(1)),
    ):
        assert removal_check(model, x, other, explained).mean_rise == pytest.approx(rise(of), abs=1e-5)
    with pytest.raises(ValueError, match="output"):
        removal_check(model, x, other, 3)
    with pytest.raises(TypeError, match="'2'"):
        removal_check(model, x, other, "2")  # type: ignore[arg-type]


def test_segmentations_are_asked_for_an_output() -> None:
    torch.manual_seed(0)

    class Segmentation(nn.Module):
        """As torchvision's: a dictionary with a map per class."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.classifier = nn.Conv2d(1, 6, 2, 2), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.classifier(self.features(x))}

    model, x = Segmentation().eval(), torch.randn(60, 1, 6, 6)
    head = head_of(model, "features", x)
    with torch.no_grad():
        assert torch.equal(head(layer_features(model, "features", x)), model(x)["out"])
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "features", x, use_head=False)
    with pytest.raises(ValueError, match=r"\(2, 3, 3\) behind the batch; name those to test, .*Logit\(\(0, 0, 0\)\)"):
        influence(pairs, model, "features", x)
    found = influence(pairs, model, "features", x, outputs=[Logit((1, 2, 0))], n_permutations=20)
    assert found.outputs == ("logit (1, 2, 0)",)
    assert found.effect.shape == (2, 1)

"""``render_vis``: what is optimized, what is left behind, and what it shows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from lucent.optvis import objectives, param, render
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.randomness import RandomStates
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.data.colored_pixels import colored_pixel_net
from absence_plugins.lucent import (
    absence_channel,
    absence_class,
    absence_contrast,
    absence_neuron,
    render_vis,
)
from absence_plugins.lucent.layers import Activations, as_layer

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK: dict[str, Any] = {"transforms": [], "preprocess": False, "progress": False, "seed": 0}


def small(size: int = 8, **options: Any) -> Any:
    return lambda: param.image(size, decorrelate=False, fft=False, **options)


def plain_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True),
                         nn.Flatten(), nn.Linear(80, 3)).eval()  # fmt: skip


# -- the value that is optimized --------------------------------------------------------------------------------------


def captured(model: nn.Module, name: str, x: Tensor) -> Tensor:
    layer = as_layer(name)
    with Activations(model, lambda: x) as T, torch.no_grad():
        T.watch(layer.name)
        T.run(x)
        return T.maps(layer)


def clean(model: nn.Module, dotted: str, x: Tensor, side: str, call: int = -1) -> Tensor:
    """An independent hook with a clone."""
    seen = []
    module = dict(model.named_modules())[dotted]
    if side == "input":
        handle = module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    else:
        handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[call]


@pytest.mark.parametrize(
    ("name", "dotted", "side"),
    [
        ("conv1", "conv1", "output"),
        ("relu", "relu", "input"),
        ("layer1_0_bn2", "layer1.0.bn2", "output"),  # `out += identity` works on it in place
        ("layer1_0_relu", "layer1.0.relu", "input"),
        ("layer1_0", "layer1.0.relu", "input"),  # the block ends in its ReLU
        ("layer2", "layer2.1.relu", "input"),
        ("layer2.0.downsample", "layer2.0.downsample", "output"),
        ("fc", "fc", "output"),
        ("labels", "fc", "output"),
    ],
)
def test_preactivations_of_a_resnet(name: str, dotted: str, side: str) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model, x = resnet18(weights=None).eval(), torch.randn(1, 3, 64, 64)
    found = captured(model, name, x)
    assert torch.equal(found, clean(model, dotted, x, side))
    assert name in ("fc", "labels") or bool((found < 0).any())


@pytest.fixture(scope="module")
def vgg() -> nn.Module:
    from torchvision.models import vgg11

    torch.manual_seed(0)
    return vgg11(weights=None).eval()


@pytest.mark.parametrize(("name", "dotted", "side"), [("features_0", "features.0", "output"), ("features_1", "features.1", "input"),
                                                      ("features_4", "features.4", "input"), ("classifier_1", "classifier.1", "input")])  # fmt: skip
def test_preactivations_of_a_vgg(vgg: nn.Module, name: str, dotted: str, side: str) -> None:
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(captured(vgg, name, x), clean(vgg, dotted, x, side))


def test_preactivations_of_a_vision_transformer() -> None:
    from torchvision.models import vit_b_16

    torch.manual_seed(0)
    model = vit_b_16(weights=None, image_size=32).eval()
    x = torch.randn(1, 3, 32, 32)
    block = "encoder.layers.encoder_layer_1"
    assert torch.equal(captured(model, "labels", x), clean(model, "heads.head", x, "output"))
    assert torch.equal(captured(model, block.replace(".", "_"), x), clean(model, block, x, "output").transpose(1, 2))
    gelu = f"{block}.mlp.1"
    assert torch.equal(captured(model, gelu.replace(".", "_"), x), clean(model, gelu, x, "input").transpose(1, 2))
    reached = render_vis(model, absence_channel(block, 3), small(32), thresholds=(1, 8), fixed_image_size=32, **QUICK)
    assert reached.reached[0].values[1][0] < reached.reached[0].values[0][0]


def test_the_reached_value_is_that_of_a_clean_forward() -> None:
    model = plain_net()
    found = render_vis(model, absence_channel("3", 2), small(batch=2), thresholds=(1, 40), fixed_image_size=8, **QUICK)
    for images, values in zip(found, found.reached[0].values, strict=True):
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        expected = clean(model, "2", x, "output")[:, 2].mean((1, 2))
        assert torch.allclose(torch.tensor(values), expected, atol=1e-6)
    assert max(found.reached[0].values[1]) < 0  # below what a ReLU's output can reach


class Headed(nn.Module):
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.net, self.head = plain_net(), head

    def forward(self, x: Tensor) -> Any:
        return self.head(self.net(x))


@pytest.mark.parametrize(
    "model",
    [
        plain_net().append(nn.Softmax(1)),
        Headed(lambda z: F.softmax(z, 1)),
        Headed(lambda z: {"logits": torch.sigmoid(z)}),
    ],
    ids=["module", "function", "sigmoid in a dictionary"],
)
def test_a_softmax_is_looked_behind(model: nn.Module) -> None:
    found = render_vis(model, absence_class(1), small(), thresholds=(40,), fixed_image_size=8, **QUICK)
    expected = render_vis(plain_net(), absence_class(1), small(), thresholds=(40,), fixed_image_size=8, **QUICK)
    assert found.reached[0].values == expected.reached[0].values
    assert found.reached[0].values[0][0] < 0  # a probability is never below 0


def test_a_mean_of_softmaxes_is_refused() -> None:
    model = Headed(lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2)
    with pytest.raises(ValueError, match="softmax"):
        render_vis(model, absence_class(1), small(), thresholds=(1,), fixed_image_size=8, **QUICK)


# -- as Lucent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["2:3", "diverse"])
def test_lucents_objectives_give_lucents_images(objective: str) -> None:
    """Bit for bit, with Lucent's transforms, from the same random states."""
    chosen = objectives.channel("2", 1) - objectives.diversity("2") if objective == "diverse" else objective
    options: dict[str, Any] = {"thresholds": (2, 4), "progress": False, "fixed_image_size": 16}

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3)).eval()

    states = RandomStates()
    torch.manual_seed(3), np.random.seed(3)
    expected = render.render_vis(model(), chosen, lambda: param.image(16, batch=2), show_image=False, **options)
    states.restore()
    torch.manual_seed(3), np.random.seed(3)
    found = render_vis(model(), chosen, lambda: param.image(16, batch=2), **options)
    states.restore()
    assert isinstance(found, list)
    assert len(found) == 2
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert found[0].shape == (2, 16, 16, 3)


def test_a_contrast_has_two_sides_of_one_start() -> None:
    model = plain_net()
    early, late = render_vis(model, absence_contrast("3", 2), thresholds=(1, 60), fixed_image_size=8,
                             param_f=small(batch=2), **QUICK)  # fmt: skip
    up, down = render_vis(
        model, absence_contrast("3", 2), small(batch=2), thresholds=(60,), fixed_image_size=8, **QUICK
    ).reached
    assert (up.lowered, down.lowered) == (False, True)
    assert up.values[0][0] > 0 > down.values[0][0]
    assert np.abs(late[0] - late[1]).mean() > 3 * np.abs(early[0] - early[1]).mean()
    with pytest.raises(ValueError, match="needs two images, got 1"):
        render_vis(model, absence_contrast("3", 2), small(), thresholds=(1,), fixed_image_size=8, **QUICK)


def test_the_data_range() -> None:
    data = torch.linspace(-1, 1, 101)
    found = render_vis(plain_net(), absence_channel("3", 2), small(), thresholds=(1, 60), fixed_image_size=8,
                       data_range=data, **QUICK).reached[0]  # fmt: skip
    assert found.data == (-1.0, 1.0)
    assert found.below is not None
    for share, value in zip(found.below, found.values, strict=True):
        assert share[0] == pytest.approx(float((data < value[0]).double().mean()))
    assert "values" in found.to_dict()
    with pytest.raises(ValueError, match="data_range"):
        render_vis(
            plain_net(), "-3:2", small(), thresholds=(1,), fixed_image_size=8, data_range=[float("nan")], **QUICK
        )


# -- nothing left behind ----------------------------------------------------------------------------------------------


def everything(model: nn.Module) -> Any:
    return (
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training) for m in model.modules()],
        [(p.requires_grad, p.grad is None, p.detach().clone()) for p in model.parameters()],
        [b.clone() for b in model.buffers()],
        torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(),
    )  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


class Interrupting(nn.Module):
    """Raises at the n-th call."""

    def __init__(self, error: BaseException, calls: int) -> None:
        super().__init__()
        self.error, self.left = error, calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return x


@pytest.mark.parametrize("end", ["normal", "error", "interrupt", "bad layer"])
@pytest.mark.parametrize("seed", [0, None])
def test_nothing_is_left_behind(end: str, seed: int | None) -> None:
    error = {"error": KeyError("broken"), "interrupt": KeyboardInterrupt()}.get(end, KeyError())
    model = nn.Sequential(Interrupting(error, 6 if end in ("error", "interrupt") else -1), nn.Conv2d(3, 4, 3),
                          nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))  # fmt: skip
    model.train()
    model[1].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = everything(model)
    options = {**QUICK, "seed": seed, "transforms": None, "fixed_image_size": 16}
    layer = "9" if end == "bad layer" else "4"
    if end != "normal":
        with pytest.raises(KeyboardInterrupt if end == "interrupt" else (KeyError, ValueError)):
            render_vis(model, f"-{layer}:1", small(16), thresholds=(8,), **options)
    else:
        found = render_vis(model, f"-{layer}:1", small(16), thresholds=(8,), **options)
        assert len(found) == 1
    assert same(everything(model), before)


def test_the_same_seed_gives_the_same_bits() -> None:
    def run(seed: int) -> np.ndarray:
        options = {**QUICK, "transforms": None, "seed": seed}
        return render_vis(plain_net(), "-3:2", small(), thresholds=(5,), fixed_image_size=8, **options)[0]

    assert np.array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_no_window_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "view", lambda image: pytest.fail("a window"))
    render_vis(plain_net(), "-3:2", small(), thresholds=(1,), fixed_image_size=8, **QUICK)


def test_images_are_on_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lucent takes cuda:0 wherever there is CUDA; a model on the CPU then meets images that are elsewhere."""
    from lucent.optvis import transform
    from lucent.optvis.param import spatial

    monkeypatch.setattr("absence_plugins.lucent.surroundings.lucent_uses_cuda", lambda: True)
    monkeypatch.setattr(spatial, "device", torch.device("meta"))  # stands for cuda:0
    monkeypatch.setattr(transform, "device", torch.device("meta"))
    found = render_vis(plain_net(), absence_channel("3", 2) - objectives.blur_input_each_step(), lambda: param.image(8),
                       thresholds=(2,), fixed_image_size=8, progress=False, seed=0)  # fmt: skip
    assert np.isfinite(found[0]).all()
    assert spatial.device == torch.device("meta")


def test_a_model_that_fails_behind_the_layer() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("image too small")

    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), Failing(), nn.Conv2d(2, 2, 1))
    with pytest.warns(AbsenceWarning, match="image too small"):
        render_vis(model, "-1:1", small(), thresholds=(1,), fixed_image_size=8, **QUICK)
    with pytest.raises(RuntimeError, match="image too small"):
        render_vis(model, "-3:1", small(), thresholds=(1,), fixed_image_size=8, **QUICK)


@pytest.mark.parametrize("thresholds", [(), (0,), (1.5,), (True,), (-1,)])
def test_thresholds(thresholds: Any) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        render_vis(plain_net(), "-3:2", small(), thresholds=thresholds, fixed_image_size=8, **QUICK)


# -- what it shows ----------------------------------------------------------------------------------------------------


def no_green() -> nn.Sequential:
    """Channel 0 of layer 1 fires where green is missing; without a bias it would be 0 everywhere."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(inplace=True)).eval()
    model[0].weight.data = torch.tensor([0.0, -1.0, 0.0]).reshape(1, 3, 1, 1)
    model[0].bias.data = torch.tensor([0.5])
    return model


def green(image: np.ndarray) -> float:
    """Share of green in the energy of an image [H, W, 3]."""
    return float((image[..., 1] ** 2).sum() / (image**2).sum())


def test_what_a_unit_of_missing_green_hates_is_green() -> None:
    both = render_vis(
        no_green(), absence_contrast("1", 0), small(batch=2), thresholds=(128,), fixed_image_size=8, **QUICK
    )[0]
    assert green(both[1]) > 0.6
    assert green(both[0]) < 0.1


@pytest.mark.slow
def test_on_the_trained_colored_pixel_net_the_minimum_turns_green() -> None:
    model = colored_pixel_net(0).model
    both = render_vis(model, absence_contrast("", 1, kind="class"), small(32, batch=2), thresholds=(128,),
                      fixed_image_size=32, **QUICK)[0]  # fmt: skip
    assert green(both[1]) > 0.9
    assert green(both[0]) < 0.1


def test_lucents_own_minimum_behind_a_relu_gets_stuck() -> None:
    """At 0 thousands of images look alike to the ReLU's output, and its gradient is 0; in front of it there is more to say."""
    model = no_green()
    model[0].bias.data -= 0.2  # the unit is inactive at the gray start
    stuck = render.render_vis(model, -objectives.channel("1", 0), small(), thresholds=(1, 128), fixed_image_size=8,
                              transforms=[], preprocess=False, progress=False, show_image=False)  # fmt: skip
    for module in model.modules():
        module._forward_hooks.clear()
    assert np.allclose(stuck[0], stuck[1], atol=1e-3)
    ours = render_vis(model, "-1:0", small(), thresholds=(128,), fixed_image_size=8, **QUICK)
    assert green(ours[0][0]) > 0.6
    assert ours.reached[0].values[0][0] < -0.5


@pytest.mark.parametrize("direction", [1, -1])
def test_a_dead_path_does_not_stop_the_optimization(direction: int) -> None:
    """Behind a ReLU that no start image activates, the gradient is 0 everywhere."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(1, 1, 1)).eval()
    model[0].weight.data, model[0].bias.data = torch.ones(1, 3, 1, 1), torch.tensor([-2.0])
    model[2].weight.data, model[2].bias.data = torch.full((1, 1, 1, 1), -float(direction)), torch.zeros(1)
    objective = direction * absence_channel("2", 0)
    found = render_vis(model, objective, small(), thresholds=(1, 128), fixed_image_size=8, **QUICK).reached[0].values
    assert found[0][0] == 0  # dead at the start
    assert abs(found[1][0]) > 0.5
    assert found[1][0] * direction < 0


@pytest.mark.slow
def test_minimized_logits_of_the_digits_lie_below_all_data() -> None:
    model, digits = digits_cnn(), load_digits()
    with torch.no_grad():
        lowest = model(digits.train_images).amin(0)
    below = 0
    for digit in range(10):
        found = render_vis(model, absence_class(digit), lambda: param.image(32, channels=1), thresholds=(256,),
                           transforms=[], preprocess=False, fixed_image_size=32, progress=False, seed=0)  # fmt: skip
        below += found.reached[0].values[0][0] < float(lowest[digit])
    assert below >= 9


def test_several_minimizers_differ_with_diversity() -> None:
    def spread(objective: Any) -> float:
        images = render_vis(plain_net(), objective, small(batch=3), thresholds=(80,), fixed_image_size=8, **QUICK)[0]
        return float(images.std(0).mean())

    assert spread(absence_neuron("3", 2) - 5 * objectives.diversity("2")) > 1.2 * spread(absence_neuron("3", 2))

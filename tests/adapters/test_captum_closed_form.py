"""Hand-weighted nets whose correct maps are known on paper, sign included, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum import attr
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet

pytestmark = pytest.mark.filterwarnings("ignore")


class Reichardt(nn.Module):
    """Two frames of a row; unit 0 = motion to the right and none to the left.

    What the hand weights compute is written out in `detectors`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, (1, 2), padding=(0, 1), bias=False)
        self.relu = nn.ReLU()
        self.conv2, self.pool = nn.Conv2d(2, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1)
        with torch.no_grad():
            self.conv1.weight.copy_(torch.tensor([[[[0.0, -1.0]], [[1.0, 0.0]]], [[[-1.0, 0.0]], [[0.0, 1.0]]]]))
            self.conv2.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.5]]).reshape(2, 2, 1, 1))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv2(self.relu(self.conv1(x)))).flatten(1)  # type: ignore[no-any-return]


WIDTH = 6


def frames(*bars: tuple[int, int]) -> Tensor:
    """One row of pixels; each bar is at `start` in frame 0 and at `end` in frame 1: [1, 2, 1, 6]."""
    x = torch.zeros(1, 2, 1, WIDTH, dtype=torch.float64)
    for start, end in bars:
        x[0, 0, 0, start], x[0, 1, 0, end] = 1.0, 1.0
    return x


def detectors(x: Tensor) -> Tensor:
    """Second writing, plain loops: at p, D0 = relu(f1[p-1] - f0[p]), D1 = relu(f1[p] - f0[p-1]), f = 0 outside."""
    rows = []
    for sample in x.tolist():
        f0, f1 = ([0.0, *frame[0], 0.0] for frame in sample)
        right = [max(f1[p] - f0[p + 1], 0.0) for p in range(WIDTH + 1)]
        left = [max(f1[p + 1] - f0[p], 0.0) for p in range(WIDTH + 1)]
        count = WIDTH + 1
        rows.append([sum(right) / count - sum(left) / count, 0.5 * (sum(right) + sum(left)) / count])
    return torch.tensor(rows, dtype=torch.float64)


def test_the_net_is_what_the_loops_say() -> None:
    x = torch.rand(5, 2, 1, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(Reichardt()(x), detectors(x))
    # a bar that moves to the left by one cancels in D0; one that moves to the right cancels in D1
    assert Reichardt()(frames((3, 2)))[0, 0].item() == pytest.approx(-1 / 7)
    assert Reichardt()(frames((2, 3)))[0, 0].item() == pytest.approx(1 / 7)


COMPLETE = {
    "IntegratedGradients": {"n_steps": 100},
    "DeepLift": {},
    "FeatureAblation": {},
    "InputXGradient": {},
}


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "FeatureAblation", "InputXGradient", "LRP"])
def test_motion_to_the_left_holds_the_right_unit_down(name: str) -> None:
    """x holds one bar at 3, then 2. D1 sees f1[2] = 1 alone at p = 2 (D1 = 1); in D0 at p = 3 the two cancel.

    The whole value -1/7 of unit 0 comes from the bar's end, f1[2], through D1: evidence held down there.
    """
    x = frames((3, 2))
    found = getattr(adapters, f"Absence{name}")(Reichardt(), nontarget=0).attribute(
        x, target=1, **COMPLETE.get(name, {})
    )
    if name == "FeatureAblation":  # taking f0[3] away sets D0 free: it, too, holds unit 0 down
        expected = torch.zeros_like(x)
        for channel, position in ((0, 3), (1, 2)):
            without = x.clone()
            without[0, channel, 0, position] = 0.0
            expected[0, channel, 0, position] = detectors(x)[0, 0] - detectors(without)[0, 0]
        assert torch.allclose(found, expected, atol=1e-9)
        assert found[0, 0, 0, 3].item() == pytest.approx(-1 / 7)
    else:
        assert found.sum().item() == pytest.approx(-1 / 7, abs=1e-6)
        assert found[0, 1, 0, 2].item() == pytest.approx(-1 / 7, abs=1e-6)
        assert found.abs().sum().item() == pytest.approx(1 / 7, abs=1e-6)


# -- colored pixels: logit 0 = green, logit 1 = absence of green ------------------------------------


class Colored(nn.Module):
    """Two 1x1 convolutions on [B, 3, H, W]: G = relu(g - r - b) per pixel; logits (mean G, 1/4 - mean G)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu, self.conv2 = nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.conv1.weight.copy_(torch.tensor([[-1.0, 1.0, -1.0], [1.0, 0.0, 1.0]]).reshape(2, 3, 1, 1))
            self.conv2.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).reshape(2, 2, 1, 1))
            self.conv2.bias.copy_(torch.tensor([0.0, 0.25]))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.relu(self.conv1(x))).mean((2, 3))  # type: ignore[no-any-return]


def picture(*pixels: tuple[int, int, str]) -> Tensor:
    """A black 2 x 2 image with single colored pixels."""
    x = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    for row, column, color in pixels:
        x[0, "rgb".index(color), row, column] = 1.0
    return x


GREEN = picture((0, 1, "g"), (1, 0, "r"))
PLAIN = picture((1, 0, "r"))
ALL = {
    "IntegratedGradients": {},
    "DeepLift": {},
    "DeepLiftShap": {},
    "GradientShap": {"n_samples": 4},
    "FeatureAblation": {},
    "Occlusion": {"sliding_window_shapes": (1, 1, 1)},
    "ShapleyValueSampling": {"n_samples": 3},
    "ShapleyValues": {"feature_mask": torch.arange(4).reshape(1, 1, 2, 2)},
    "KernelShap": {"feature_mask": torch.arange(4).reshape(1, 1, 2, 2), "n_samples": 60},
}
NO_BASELINE = {"InputXGradient": {}, "GuidedBackprop": {}}


def attribute(name: str, x: Tensor, target: int, call: dict[str, Any], **options: Any) -> Tensor:
    torch.manual_seed(0)
    np.random.seed(0)
    found: Tensor = getattr(adapters, f"Absence{name}")(Colored(), **options).attribute(x, target=target, **call)
    return found


@pytest.mark.parametrize("name", [*ALL, "InputXGradient", "GuidedBackprop"])
def test_green_is_what_holds_the_absence_unit_down(name: str) -> None:
    """Logit 1 on a green image against black: -1/4 at the green pixel, in the green channel, nothing elsewhere."""
    call = dict({**ALL, **NO_BASELINE}[name])
    if name in ("DeepLiftShap", "GradientShap"):
        call["baselines"] = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    found = attribute(name, GREEN, 0, call).double()
    if "feature_mask" in call:  # one value per pixel, the same in all channels
        expected = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
        expected[:, :, 0, 1] = -0.25
    else:
        expected = -0.25 * picture((0, 1, "g"))
    assert torch.allclose(found, expected, atol=1e-4)
    absence = attribute(name, GREEN, 0, call, evidence="absence").double()
    assert torch.allclose(absence, -expected, atol=1e-4)
    presence = attribute(name, GREEN, 0, call, evidence="presence").double()
    assert presence.abs().max() < 1e-4


@pytest.mark.parametrize("name", ALL)
def test_the_missing_green_raises_the_absence_unit_against_a_reference(name: str) -> None:
    """Logit 1 on the image without green, compared with the one that has it: +1/4 where green is missing."""
    given = ReferenceSet(torch.cat([GREEN, picture((0, 0, "b"))]), torch.tensor([0, 1]), k=1)
    call, expected = ALL[name], 0.25 * picture((0, 1, "g"))
    if "feature_mask" in call:
        expected = expected.sum(1, keepdim=True).expand(1, 3, 2, 2)
    found = attribute(name, PLAIN, 1, call, reference=given).double()
    assert torch.allclose(found, expected, atol=1e-4)
    absence = attribute(name, PLAIN, 1, call, reference=given, evidence="absence").double()
    assert torch.allclose(absence, 0.25 * picture((0, 1, "g")), atol=1e-4)  # only where the reference has content
    # a zero baseline cannot show it
    blank = dict(call)
    if name in ("DeepLiftShap", "GradientShap"):
        blank["baselines"] = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    standard = attribute(name, PLAIN, 1, blank, nontarget=None)
    assert standard[0, :, 0, 1].abs().max() < 1e-4


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "FeatureAblation", "GradientShap"])
def test_a_non_target_against_its_own_class(name: str) -> None:
    """Logit 1 on the green image against an image of class 1: what holds "no green" down is the green pixel."""
    given = ReferenceSet(torch.cat([PLAIN, GREEN]), torch.tensor([1, 0]), k=1)
    found = attribute(name, GREEN, 0, ALL[name], reference=given, nontarget="runner_up")
    assert torch.allclose(found, -0.25 * picture((0, 1, "g")), atol=1e-6)


def test_black_that_is_not_zero_needs_its_blank_value() -> None:
    """The same problem normalized to [-1, 1]: with empty=0 the absence part sits nowhere, with -1 at the green pixel."""

    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Colored()

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x + 1) / 2)  # type: ignore[no-any-return]

    parts = []
    for empty in (-1.0, 0.0):
        given = ReferenceSet(GREEN * 2 - 1, torch.tensor([0]), k=1, empty=empty)
        ig = adapters.AbsenceIntegratedGradients(Normalized(), reference=given, evidence="absence")
        parts.append(ig.attribute(PLAIN * 2 - 1, target=1))
    assert torch.allclose(parts[0], 0.25 * picture((0, 1, "g")), atol=1e-6)
    assert not parts[1].any()


# -- the formulas a second time ---------------------------------------------------------------------


class Random(nn.Module):
    """A random two-layer net on 6 numbers with 4 outputs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.relu(self.a(x)))  # type: ignore[no-any-return]


def integrated(net: nn.Module, x: Tensor, reference: Tensor, weights: Tensor, steps: int = 50) -> Tensor:
    """Integrated gradients of `weights . logits` in a plain loop over the Gauss-Legendre points."""
    points, sizes = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(x)
    for point, size in zip((1 + points) / 2, sizes / 2, strict=True):
        at = (reference + point * (x - reference)).requires_grad_()
        (gradient,) = torch.autograd.grad((net(at) * weights).sum(), at)
        total += size * gradient
    return (x - reference) * total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("view", ["runner_up", "others", "reference", "both"])
def test_integrated_gradients_written_again(seed: int, view: str) -> None:
    net, generator = Random(seed), torch.Generator().manual_seed(seed + 50)
    x, pool = torch.randn(3, 6, generator=generator).double(), torch.randn(20, 6, generator=generator).double()
    labels, target = torch.arange(20) % 4, torch.tensor([0, 1, 3])
    given = ReferenceSet(pool, labels, k=3, empty=0.1)
    scores = net(x).detach()
    rows, absences = [], []
    for i in range(3):
        t = int(target[i])
        rest = [k for k in range(4) if k != t]
        runner_up = max(rest, key=lambda k: float(scores[i, k]))
        weights = torch.zeros(4, dtype=torch.float64)
        if view == "others":
            weights[rest] = 1 / 3
        else:
            weights[t if view == "reference" else runner_up] = 1.0
        if view in ("reference", "both"):
            allowed = [
                j for j in range(20) if (int(labels[j]) != t if view == "reference" else int(labels[j]) == runner_up)
            ]
            chosen = sorted(allowed, key=lambda j: float((pool[j] - x[i]).square().sum()))[:3]
            maps = [integrated(net, x[i], pool[j], weights) for j in chosen]
            missing = [(x[i] - 0.1).abs() < (pool[j] - 0.1).abs() for j in chosen]
        else:
            maps, missing = [integrated(net, x[i], torch.zeros(6).double(), weights)], []
        mean = torch.stack(maps).mean(0)
        rows.append(mean)
        if view == "reference":
            parts = [torch.where(m, r, 0.0) for m, r in zip(missing, maps, strict=True)]
            absences.append(torch.stack(parts).mean(0).clamp(min=0))
        elif view == "both":  # what in x holds the non-target down, not what x lacks of it
            parts = [torch.where(m, 0.0, r) for m, r in zip(missing, maps, strict=True)]
            absences.append((-torch.stack(parts).mean(0)).clamp(min=0))
        else:
            absences.append((-mean).clamp(min=0))
    options: dict[str, Any] = {
        "runner_up": {},
        "others": {"nontarget": "others"},
        "reference": {"reference": given},
        "both": {"reference": given, "nontarget": "runner_up"},
    }[view]
    found = adapters.AbsenceIntegratedGradients(net, **options).attribute(x, target=target)
    assert torch.allclose(found, torch.stack(rows), rtol=1e-5, atol=1e-5)  # Captum rounds its step sizes to float32
    absence = adapters.AbsenceIntegratedGradients(net, **options, evidence="absence").attribute(x, target=target)
    assert torch.allclose(
        absence, torch.stack(absences), rtol=1e-5, atol=1e-5
    )  # Captum rounds its step sizes to float32


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift"])
@pytest.mark.parametrize("seed", range(4))
def test_the_two_views_are_one_map(name: str, seed: int) -> None:
    """R_u(x; r) = -R_u(r; x): u as the target of x against r, and as the non-target of r against x."""
    net, generator = Random(seed), torch.Generator().manual_seed(seed)
    x, r = torch.randn(2, 1, 6, generator=generator).double()
    cls = getattr(adapters, f"Absence{name}")
    target = cls(net, reference=ReferenceSet(r, [0], k=1)).attribute(x, target=1)
    nontarget = cls(net, reference=ReferenceSet(x, [1], k=1), nontarget=1).attribute(r, target=0)
    assert torch.allclose(target, -nontarget, rtol=1e-5, atol=1e-5)
    assert target.abs().sum() > 0.1


def test_layer_and_neuron_views_on_paper() -> None:
    """h = (x0 - x1, x1), u = (h0, h1): against r = (1, 2), x = (1, 0) owes +2 of u0 to h0, and h0 to the missing x1."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
        net[1].weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    given = ReferenceSet(torch.tensor([[1.0, 2.0]]), [1], k=1)
    for name in (
        "LayerConductance",
        "LayerIntegratedGradients",
        "LayerDeepLift",
        "LayerFeatureAblation",
        "LayerGradientShap",
    ):
        found = getattr(adapters, f"Absence{name}")(net, net[0], reference=given).attribute(x, target=0)
        assert torch.allclose(found, torch.tensor([[2.0, 0.0]], dtype=torch.float64), atol=0.05), name
    for name in ("NeuronIntegratedGradients", "NeuronDeepLift", "NeuronFeatureAblation", "NeuronGradientShap"):
        for evidence, wanted in (("signed", [0.0, 2.0]), ("absence", [0.0, 2.0]), ("presence", [0.0, 0.0])):
            method = getattr(adapters, f"Absence{name}")(net, net[0], reference=given, evidence=evidence)
            found = method.attribute(x, neuron_selector=0)
            assert torch.allclose(found, torch.tensor([wanted], dtype=torch.float64), atol=1e-6), name


def test_explain_holds_the_numbers() -> None:
    given = ReferenceSet(torch.cat([GREEN, GREEN * 0.5]), [0, 0], k=2)
    found = adapters.AbsenceIntegratedGradients(Colored(), reference=given).explain(PLAIN, target=1)
    assert found.view == "target"
    assert found.target.tolist() == [1]
    assert found.nontarget is None
    assert found.output.tolist() == [0.25]
    assert sorted(found.reference_output[0].tolist()) == [0.0, 0.125]
    assert found.absence.sum().item() == pytest.approx((0.25 + 0.125) / 2)
    assert found.completeness_error.abs().max() < 1e-9
    assert attr.IntegratedGradients in type(adapters.AbsenceIntegratedGradients(Colored())).__mro__

"""Which output is explained: combinations of outputs, single outputs, maps of classes, labels that are no rivals."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from adapter_table import (
    ADAPTERS,
    CLASSES,
    TOLERANCE,
    Net,
    arguments,
    build,
    images,
    linear,
    seeded,
)
from captum import attr
from captum.attr import NoiseTunnel
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning

pytestmark = pytest.mark.filterwarnings("ignore")


# -- combinations of outputs ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IntegratedGradients", "InputXGradient", "FeatureAblation", "LayerConductance"])
def test_others_is_the_mean_of_all_other_maps(name: str) -> None:
    cls, host = ADAPTERS[f"Absence{name}"], getattr(attr, name)
    net, x, options = Net(), images(3), arguments(ADAPTERS[f"Absence{name}"])
    target = [0, 1, 3]
    found = build(cls, net, nontarget="others").attribute(x, target=target, **options)
    for sample, own in enumerate(target):
        one = x[sample : sample + 1]
        others = [build(host, net).attribute(one, target=k, **options) for k in range(CLASSES) if k != own]
        assert torch.allclose(found[sample : sample + 1], torch.stack(others).mean(0).detach(), **TOLERANCE)


@pytest.mark.parametrize("name", ["DeepLift", "LRP"])
def test_others_is_linear_for_rule_based_methods(name: str) -> None:
    cls, net, x = ADAPTERS[f"Absence{name}"], Net(), images(2)
    found = cls(net, nontarget="others").attribute(x, target=0)
    each = [cls(net, nontarget=k).attribute(x, target=0) for k in (1, 2, 3)]
    assert torch.allclose(found, torch.stack(each).mean(0), rtol=1e-6, atol=1e-7)


class Head(nn.Module):
    """Two weights on a flat input, in outputs of any shape."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1, bias=False).double()
        self.shape = shape
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, -2.0]]))

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        if self.shape == "[B]":
            return z[:, 0]  # type: ignore[no-any-return]
        if self.shape == "[B, 1]":
            return z  # type: ignore[no-any-return]
        scale = torch.arange(1.0, 13.0, dtype=x.dtype).reshape(3, 2, 2)
        return z[:, :, None, None] * scale


@pytest.mark.parametrize("shape", ["[B]", "[B, 1]"])
@pytest.mark.parametrize(
    "name",
    ["InputXGradient", "Saliency", "IntegratedGradients", "FeatureAblation", "DeepLift", "Occlusion", "KernelShap"],
)
def test_a_single_output_is_explained_as_the_host_does(shape: str, name: str) -> None:
    x, options = torch.tensor([[3.0, 5.0], [1.0, -1.0]], dtype=torch.float64), {}
    if name == "Occlusion":
        options["sliding_window_shapes"] = (1,)
    target = None if shape == "[B]" else 0
    plain = {"abs": False} if name == "Saliency" else {}
    maps = {}
    for word in ("auto", "target", "negated"):
        seeded()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            maps[word] = ADAPTERS[f"Absence{name}"](Head(shape), nontarget=word).attribute(x, target=target, **options)
        said = [one for one in caught if "single output" in str(one.message)]
        assert len(said) == (word == "auto")
        assert all(one.filename == __file__ for one in said)
    seeded()
    host = getattr(attr, name)(Head(shape)).attribute(x, target=target, **options, **plain)
    assert torch.allclose(maps["auto"], host.detach(), rtol=1e-6, atol=1e-12)
    assert torch.equal(maps["auto"], maps["target"])
    assert torch.allclose(maps["negated"], -host.detach(), rtol=1e-3, atol=1e-4)  # KernelShap draws anew
    with pytest.raises(ValueError, match="nontarget='negated' explains its negative"):
        ADAPTERS[f"Absence{name}"](Head(shape), nontarget="runner_up").attribute(x, target=target, **options)


def test_a_single_output_against_real_inputs_shows_absences_without_a_warning() -> None:
    x, real = torch.tensor([[3.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        found = adapters.AbsenceDeepLift(Head("[B, 1]")).explain(x, baselines=real)
        same = adapters.AbsenceDeepLift(Head("[B, 1]"), reference=ReferenceSet(real, k=1)).explain(x)
    for one in (found, same):
        assert one.attribution.tolist() == [[2.0, 8.0]]
        assert one.absence.tolist() == [[0.0, 8.0]]
        assert one.words() == ["the output"]
        assert one.legend() == ("raises the output", "holds the output down")


def test_one_logit_takes_its_references_from_the_right_class() -> None:
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    pool = ReferenceSet(torch.tensor([[0.0, 4.0], [6.0, 0.0]]), torch.tensor([0, 1]), k=1)  # z = -8, z = +6
    ig = adapters.AbsenceIntegratedGradients
    target = ig(Head("[B, 1]"), reference=pool).attribute(x, target=0)  # +z against class 0
    assert torch.allclose(target, torch.tensor([[1.0, 6.0]], dtype=torch.float64))
    other = ig(Head("[B, 1]"), reference=pool, nontarget="negated").attribute(x, target=0)  # -z against class 0
    assert torch.allclose(other, torch.tensor([[-1.0, -6.0]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "InputXGradient", "FeatureAblation", "LRP"])
def test_margin_negated_and_target_are_combinations_of_the_targets_maps(name: str) -> None:
    cls, net, x = ADAPTERS[f"Absence{name}"], Net(), images(3)
    target = torch.tensor([0, 1, 3])

    def of(word: Any) -> Tensor:
        return build(cls, net, nontarget=word).attribute(x, target=target)  # type: ignore[no-any-return]

    own, runner_up = of("target"), of("runner_up")
    assert torch.allclose(of("margin"), own - runner_up, rtol=1e-6, atol=1e-7)
    assert torch.allclose(of("negated"), -own, rtol=1e-6, atol=1e-7)
    other = net(x).detach().scatter(1, target[:, None], -torch.inf).argmax(1)
    assert torch.allclose(own, build(cls, net, nontarget=target).attribute(x, target=other), rtol=1e-6, atol=1e-7)


def test_margin_takes_its_references_from_the_contrast_of_the_target() -> None:
    net = linear([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    pool = ReferenceSet(torch.tensor([[0.0, 4.0], [6.0, 0.0], [1.0, 1.5]]), torch.tensor([1, 0, 2]), k=1)
    x = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    found = adapters.AbsenceDeepLift(net, nontarget="margin", reference=pool).explain(x, target=0)
    assert found.nontarget.tolist() == [2]
    assert found.words() == ["logit 0 minus logit 2"]
    assert found.attribution.tolist() == [[0.5, 0.25]]  # 0.5 x0 - 0.5 x1 against the nearest of classes 1 and 2
    assert found.view == "target"


class Masked(nn.Module):
    """Three logits, and two that are switched off, in each of the ways that people write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.linear = how, linear([[1.0, -1.0], [0.0, 1.0], [0.5, 0.25], [1.0, 1.0], [2.0, 2.0]])
        self.register_buffer("off", torch.tensor([0, 0, 0, 1, 1]).bool())

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        if self.how == "masked_fill":
            return z.masked_fill(self.off, -torch.inf)  # type: ignore[no-any-return]
        if self.how == "where":
            return torch.where(self.off, torch.full_like(z, -torch.inf), z)
        return z + torch.zeros_like(z).masked_fill(self.off, -torch.inf)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["masked_fill", "where", "added"])
@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "InputXGradient", "FeatureAblation"])
@pytest.mark.parametrize("nontarget", [1, "runner_up", "margin", "negated"])
def test_classes_that_are_switched_off_take_no_part(how: str, name: str, nontarget: Any) -> None:
    x, net = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64), Masked(how)
    found = ADAPTERS[f"Absence{name}"](net, nontarget=nontarget).attribute(x, target=0)
    rows = net.linear.weight.detach()
    runner_up = rows[[2, 1]]
    weights = {1: rows[[1, 1]], "runner_up": runner_up, "margin": rows[[0, 0]] - runner_up, "negated": -rows[[0, 0]]}
    assert torch.allclose(found, weights[nontarget] * x, atol=1e-6)
    with pytest.raises(ValueError, match=r"logit 3 of sample 0 is NaN or infinite \(-inf\)"):
        ADAPTERS[f"Absence{name}"](net, nontarget=3).attribute(x, target=0)


@pytest.mark.parametrize(
    "name", ["IntegratedGradients", "DeepLift", "InputXGradient", "FeatureAblation", "LayerGradCam"]
)
@pytest.mark.parametrize("word", ["target", "runner_up", "others", "margin"])
def test_segmentation_is_the_sum_over_the_image_of_a_wrapper_made_by_hand(name: str, word: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 1)).double()
    by_hand = nn.Sequential(net, nn.Flatten(2), Summed())
    x = torch.rand(2, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cls = ADAPTERS[f"Absence{name}"]
    layer = (net[0],) if name.startswith("Layer") else ()
    found = cls(net, *layer, nontarget=word).attribute(x, target=1)
    assert torch.allclose(found, cls(by_hand, *layer, nontarget=word).attribute(x, target=1), atol=1e-6)


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(2)


def test_a_figure_can_take_its_words_from_the_explanation() -> None:
    x = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    found = adapters.AbsenceIntegratedGradients(linear([[1.0, 0.0], [0.0, 1.0]])).explain(x, target=1)
    assert found.words(["normal", "ill"])[0] == "logit 0 (normal), which is not the target 1 (ill)"
    assert found.title(0, ["normal", "ill"]) == "What holds 'normal' down"
    assert found.legend(0, ["normal", "ill"]) == ("raises logit 0 (normal)", "holds logit 0 (normal) down")
    assert "explained: logit 0, which is not the target 1,\n  red raises logit 0, blue holds logit 0 down" in repr(
        found
    )
    assert found.to_dict()["explained"] == ["logit 0, which is not the target 1"] * 2


@pytest.mark.parametrize(
    "name", ["InputXGradient", "IntegratedGradients", "FeatureAblation", "DeepLift", "GradientShap"]
)
def test_outputs_with_places_take_tuple_targets(name: str) -> None:
    x = torch.tensor([[3.0, 5.0], [4.0, 1.0]], dtype=torch.float64)  # z = -7: the lowest class wins; z = 2: the highest
    options = {"baselines": torch.zeros(1, 2, dtype=torch.float64)} if name == "GradientShap" else {}
    seeded()
    found = ADAPTERS[f"Absence{name}"](Head("[B, 3, 2, 2]")).attribute(x, target=[(0, 0, 1), (2, 1, 0)], **options)
    # runner-up of sample 0 is class 1 at (0, 1): scale 6; of sample 1 class 1 at (1, 0): scale 7
    assert torch.allclose(found, torch.tensor([[18.0, -60.0], [28.0, -14.0]], dtype=torch.float64))


def test_a_neuron_and_its_layer_are_named() -> None:
    net = nn.Sequential(linear([[1.0, -1.0], [0.0, 1.0]]), nn.ReLU(), linear([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    found = adapters.AbsenceNeuronIntegratedGradients(net, net[0]).explain(x, 1)
    assert found.words() == ["neuron 1 of 0"]
    assert found.legend() == ("raises neuron 1 of 0", "holds neuron 1 of 0 down")


def test_a_single_output_in_a_noise_tunnel_is_the_hosts() -> None:
    x = torch.tensor([[3.0, 5.0], [1.0, -1.0]], dtype=torch.float64)
    maps = []
    for cls in (attr.InputXGradient, adapters.AbsenceInputXGradient):
        seeded()
        maps.append(NoiseTunnel(cls(Head("[B]"))).attribute(x, nt_samples=4, stdevs=0.2).detach())
    assert torch.allclose(*maps, atol=1e-12)


# -- labels that are no rivals ----------------------------------------------------------------------


def test_labels_that_are_no_rivals_have_no_runner_up() -> None:
    """Label k reads feature k alone: a map of another label says nothing about the target."""
    net, x = linear([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.9, 0.0]]).double()
    pool = ReferenceSet(torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), torch.tensor([[0, 1, 0], [1, 1, 0]]), k=1)
    for word in ("runner_up", "others", "margin"):
        with pytest.raises(ValueError, match=r"several labels per sample, which are no rivals.*nontarget='target'"):
            adapters.AbsenceDeepLift(net, nontarget=word, reference=pool)
    ig = adapters.AbsenceDeepLift
    assert ig(net, reference=pool).attribute(x, target=0).tolist() == [[1.0, 0.0, 0.0]]  # a sample without label 0
    assert ig(net, reference=pool, nontarget="negated").attribute(x, target=0).tolist() == [[-1.0, 0.0, 0.0]]
    named = ig(net, reference=pool, nontarget=1).explain(x, target=0)
    assert torch.allclose(named.attribution, torch.tensor([[0.0, -0.1, 0.0]]).double())
    assert named.words() == ["logit 1, which is not the target 0"]


@pytest.mark.parametrize("end", [nn.Sigmoid(), torch.sigmoid, lambda z: {"out": torch.sigmoid(z)}])
@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "InputXGradient"])
def test_labels_behind_a_sigmoid_are_explained_themselves(end: Any, name: str) -> None:
    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear([[8.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 8.0]])

        def forward(self, x: Tensor) -> Any:
            return end(self.linear(x))

    x, cls = torch.tensor([[1.0, 0.9, 0.0]], dtype=torch.float64), ADAPTERS[f"Absence{name}"]
    with pytest.warns(AbsenceWarning, match="independent labels, which are no rivals") as seen:
        found = cls(Labels()).explain(x, target=0)
    assert torch.allclose(found.attribution, torch.tensor([[8.0, 0.0, 0.0]]).double(), atol=1e-6)
    assert found.words() == ["logit 0"]
    assert len([one for one in seen if "rivals" in str(one.message)]) == 1
    assert cls(Labels(), nontarget="runner_up").explain(x, target=0).nontarget.tolist() == [1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cls(Labels(), nontarget="target").attribute(x, target=0)
    assert not any("rivals" in str(one.message) for one in caught)

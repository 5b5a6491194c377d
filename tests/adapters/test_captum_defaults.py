"""No option given: nothing raises that Captum does not raise, and what has no sign or cannot show absences says so."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_table import ADAPTERS, REFUSING, Net, arguments, build, has_target, images, linear, random_states, seeded
from captum import attr
from captum.attr import DataLoaderAttribution, NoiseTunnel
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning


def said(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What an action returns, and its AbsenceWarnings, those of constructors must point at their caller."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = action()
    ours = [one for one in seen if issubclass(one.category, AbsenceWarning)]
    assert all(Path(one.filename).parent == Path(__file__).parent for one in ours if "cannot show" in str(one.message))
    return found, [str(one.message) for one in ours]


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.filterwarnings("ignore")
def test_every_class_is_made_and_called_with_its_default_arguments(name: str) -> None:
    cls, host = ADAPTERS[name], getattr(attr, name.removeprefix("Absence"))
    x = images(1 if name == "AbsenceLimeBase" else 8)
    options = {**arguments(cls, baselines=True), **({"target": 1} if has_target(cls) else {})}
    seeded()
    found = build(cls, Net()).attribute(x, **options)
    assert torch.isfinite(found).all()
    assert float(found.abs().sum()) > 0
    if name in REFUSING:
        state = random_states()
        seeded()
        assert torch.equal(found, build(host, Net()).attribute(x, **options))
        assert random_states() == state


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_what_cannot_show_absences_warns_once_and_is_captums(name: str) -> None:
    made, messages = said(lambda: build(ADAPTERS[name], Net()))
    (message,) = messages
    assert message.startswith(f"{name} cannot show absences: it ")
    assert "; use Absence" in message
    assert "Captum's own" in message
    for one in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        options = {**arguments(ADAPTERS[name]), **({"target": 1} if has_target(ADAPTERS[name]) else {})}
        assert said(lambda one=one, options=options: one.attribute(images(2), **options))[1] == []
        assert one.is_neutral
    assert said(lambda: build(ADAPTERS[name], Net(), nontarget=None))[1] == []


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_a_subclass_of_what_cannot_show_absences_is_captums_too(name: str) -> None:
    own = type("Own", (ADAPTERS[name],), {})
    with pytest.warns(AbsenceWarning, match="Own cannot show absences"):
        assert build_as(own, name).is_neutral


def build_as(cls: type, name: str) -> Any:
    net = Net()
    return cls(net) if name == "AbsenceDeconvolution" else cls(net, net.conv)


# -- arguments that delete the sign ------------------------------------------------------------------

STEEP = linear([[1.0, -3.0], [1.0, -2.0], [0.5, 0.0]])
X = torch.tensor([[2.0, 0.1]], dtype=torch.float64)  # logits 1.7, 1.8, 1.0


def test_absolute_values_of_saliency_only_where_they_are_asked_for() -> None:
    saliency = adapters.AbsenceSaliency(STEEP)  # the runner-up of class 0 is class 1
    found, messages = said(lambda: saliency.attribute(X, target=0, abs=True))
    assert found.tolist() == [[1.0, 2.0]]
    assert torch.equal(found, attr.Saliency(STEEP).attribute(X.clone().requires_grad_(), target=1))
    assert messages == [
        "the map of AbsenceSaliency has no sign: abs=True takes absolute values, so what holds the output down looks like "
        "what raises it; leave it out"
    ]
    for options in ({}, {"abs": False}):
        signed, nothing = said(lambda options=options: saliency.attribute(X, target=0, **options))
        assert signed.tolist() == [[1.0, -2.0]]
        assert nothing == []
    assert saliency.attribute(X, 0, False).tolist() == [[1.0, -2.0]]
    with pytest.warns(AbsenceWarning, match="no sign"):
        assert saliency.attribute(X, 0, True).tolist() == [[1.0, 2.0]]
    assert adapters.AbsenceSaliency(STEEP, nontarget=None).attribute(X, target=0).tolist() == [[1.0, 3.0]]  # Captum's


def test_absolute_values_of_saliency_in_a_noise_tunnel() -> None:
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(STEEP))
    with pytest.warns(AbsenceWarning, match="no sign"):
        assert tunnel.attribute(X, target=0, nt_samples=3, stdevs=0.01, abs=True).tolist() == [[1.0, 2.0]]


@pytest.mark.filterwarnings("ignore")
def test_a_rectified_grad_cam_only_where_it_is_asked_for() -> None:
    net, x = Net(), images(4)
    cam = adapters.AbsenceLayerGradCam(net, net.conv)
    signed = cam.attribute(x, target=1)
    found, messages = said(lambda: cam.attribute(x, target=1, relu_attributions=True))
    assert float(signed.min()) < 0 < float(signed.max())
    assert torch.equal(found, signed.relu())
    assert any("no sign: relu_attributions=True deletes what holds the output down" in one for one in messages)


@pytest.mark.parametrize("name", ["AbsenceSaliency", "AbsenceLayerGradCam"])
def test_evidence_is_not_read_from_a_map_without_sign(name: str) -> None:
    deletes = {"abs": True} if name == "AbsenceSaliency" else {"relu_attributions": True}
    for go in (
        lambda: build(ADAPTERS[name], Net(), evidence="absence").attribute(images(1), target=0, **deletes),
        lambda: build(ADAPTERS[name], Net()).explain(images(1), target=0, **deletes),
    ):
        with pytest.raises(ValueError, match=r"evidence is read from the sign of the map, and .*=True .*; leave it"):
            go()


# -- one number of a batch, class numbers, targets from the end -----------------------------------------


@pytest.mark.parametrize("name", ["FeatureAblation", "FeaturePermutation", "ShapleyValueSampling", "Occlusion"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_number_of_a_batch_is_explained_as_captum_does(name: str, shape: tuple[int, ...]) -> None:
    def loss(x: Tensor) -> Tensor:
        return STEEP(x).square().mean().reshape(shape)  # type: ignore[no-any-return]

    x, options = torch.randn(5, 2, dtype=torch.float64), {"n_samples": 3} if name.endswith("Sampling") else {}
    if name == "Occlusion":
        options = {"sliding_window_shapes": (1,)}
    seeded()
    with pytest.warns(AbsenceWarning, match=r"Captum's own: .*one number of the whole batch .*nontarget=None"):
        found = getattr(adapters, f"Absence{name}")(loss).attribute(x, **options)
    seeded()
    assert torch.equal(found, getattr(attr, name)(loss).attribute(x, **options))
    pool = ReferenceSet(torch.randn(6, 2).double(), torch.arange(6) % 2)
    for given in ({"evidence": "absence"}, {"nontarget": "others"}, {"reference": pool}):
        if name != "FeaturePermutation" or "reference" not in given:
            with pytest.raises(ValueError, match="one number of the whole batch"):
                getattr(adapters, f"Absence{name}")(loss, **given).attribute(x, **options)


def test_one_number_of_a_data_set_is_explained_as_captum_does() -> None:
    def error(x: Tensor) -> Tensor:
        return STEEP(x)[:, 1]  # type: ignore[no-any-return]

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(6, 2).double()), batch_size=2)
    with pytest.warns(AbsenceWarning, match="DataLoaderAttribution explains one number of the whole data set"):
        found = DataLoaderAttribution(adapters.AbsenceFeatureAblation(error)).attribute(loader)
    assert torch.equal(found[0], DataLoaderAttribution(attr.FeatureAblation(error)).attribute(loader)[0])


@pytest.mark.parametrize("name", ["FeatureAblation", "IntegratedGradients", "Saliency", "DeepLift", "Lime"])
def test_class_numbers_are_no_outputs(name: str) -> None:
    class Predicted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return STEEP(x).argmax(1)

    with pytest.raises(ValueError, match=r"the model returns int64, which are no scores .*argmax"):
        getattr(adapters, f"Absence{name}")(Predicted()).attribute(X)


@pytest.mark.parametrize("name", [name for name in ADAPTERS if has_target(ADAPTERS[name])])
@pytest.mark.filterwarnings("ignore")
def test_targets_count_from_the_end_as_captums_do(name: str) -> None:
    x = images(1 if name == "AbsenceLimeBase" else 3)
    maps = []
    for target in (3, -1):
        seeded()
        options = arguments(ADAPTERS[name], baselines=True)
        maps.append(build(ADAPTERS[name], Net()).attribute(x, target=target, **options))
    assert torch.equal(maps[0], maps[1])


def test_targets_from_the_end_in_every_form() -> None:
    net, x = Net(), images(2)
    ablation = adapters.AbsenceFeatureAblation(net)
    expected = ablation.attribute(x, target=[3, 1])
    for target in ([-1, -3], torch.tensor([-1, 1]), (-1,), [(-1,), (1,)]):
        found = ablation.attribute(x, target=target)
        assert torch.equal(found[:1], expected[:1])
    assert ablation.explain(x, target=[-1, -3]).target.tolist() == [3, 1]  # type: ignore[union-attr]
    pixels = nn.Conv2d(1, 3, 1).double()
    saliency = adapters.AbsenceSaliency(pixels)
    assert torch.equal(saliency.attribute(x, target=(-1, -1, 0)), saliency.attribute(x, target=(2, 4, 0)))
    with pytest.raises(
        ValueError, match="target -5 of sample 0 does not exist: indices go from 0 to 3, or from -1 to -4"
    ):
        ablation.attribute(x, target=-5)

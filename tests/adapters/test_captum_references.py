"""Which references an adapter draws: nearest in features, and made from the image itself."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import FeatureSpace, MadeReferences, ReferenceSet
from absence_plugins.captum import AbsenceIntegratedGradients, AbsenceLayerIntegratedGradients
from absence_plugins.core.made_references import make_reference


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@pytest.mark.filterwarnings("ignore:samples")
def test_the_references_nearest_in_features_are_the_baselines() -> None:
    net, images, x = network(), noise(12, 2, 6, 6), noise(2, 2, 6, 6, seed=1)
    labels, target = torch.arange(12) % 3, torch.tensor([1, 2])
    near = ReferenceSet(images, labels, k=1, nearest_in=FeatureSpace(net))
    baselines = near.nearest(x, target)
    assert isinstance(baselines, Tensor)
    in_pixels = ReferenceSet(images, labels, k=1).nearest_indices(x, target)
    assert not torch.equal(near.nearest_indices(x, target), in_pixels)
    found = AbsenceIntegratedGradients(net, reference=near).attribute(x, target=target)
    expected = AbsenceIntegratedGradients(net, nontarget=None).attribute(x, baselines=baselines[:, 0], target=target)
    assert torch.equal(found, expected)


def test_made_references_are_a_blank_of_the_image_itself() -> None:
    net, x, made = network(), noise(2, 2, 7, 7, seed=1), MadeReferences("blurred", empty=-1.0)
    blurred = make_reference(x, "blurred")
    method = AbsenceIntegratedGradients(net, reference=made)
    found = method.explain(x, target=1)
    assert found.nontarget is not None  # the runner-up, as against any blank
    plain = AbsenceIntegratedGradients(net).explain(x, baselines=blurred, target=1)
    assert torch.equal(found.attribution, plain.attribution)
    assert torch.equal(found.absence, (-found.attribution).clamp(min=0))
    assert torch.equal(found.presence, found.attribution.clamp(min=0))
    assert torch.equal(
        AbsenceIntegratedGradients(net, reference=made, evidence="absence").attribute(x, target=1), found.absence
    )
    own = AbsenceIntegratedGradients(net, reference=made, nontarget="target").attribute(x, target=1)
    assert torch.equal(
        own, AbsenceIntegratedGradients(net, nontarget="target").attribute(x, baselines=blurred, target=1)
    )
    with pytest.raises(ValueError, match="only what is present"):
        AbsenceIntegratedGradients(net, reference=made, nontarget="target", evidence="absence").attribute(x, target=1)


def test_made_references_at_a_layer() -> None:
    net, x = network(), noise(2, 2, 7, 7, seed=1)
    found = AbsenceLayerIntegratedGradients(net, net[0], reference=MadeReferences("grey")).explain(x, target=1)
    plain = AbsenceLayerIntegratedGradients(net, net[0]).explain(x, baselines=make_reference(x, "grey"), target=1)
    assert torch.equal(found.attribution, plain.attribution)
    assert torch.equal(found.absence, (-found.attribution).clamp(min=0))


def by_color() -> nn.Sequential:
    """Class 0, 1, 2: how high the mean of channel 0, 1, 2 is."""
    last = nn.Linear(3, 3)
    last.weight.data, last.bias.data = torch.eye(3), torch.zeros(3)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


def test_references_of_the_explained_class_in_the_networks_eyes_are_warned_of() -> None:
    """The labels say 1 and 2 (folder numbers, say), the network says 0 of the first: less red, but red."""
    images = torch.zeros(2, 3, 4, 4)
    images[0, 0], images[1, 2] = 0.5, 0.9
    x = torch.zeros(1, 3, 4, 4)
    x[:, 0] = 0.8
    for labels, expected in (([1, 2], True), ([0, 2], False)):
        method = AbsenceIntegratedGradients(by_color(), reference=ReferenceSet(images, labels, k=1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method.attribute(x, target=0)
        said = [str(one.message) for one in caught if "predicts to be of the explained class" in str(one.message)]
        assert [one.startswith("samples [0] have references") for one in said] == [True] * expected
        assert all(one.filename == __file__ for one in caught)

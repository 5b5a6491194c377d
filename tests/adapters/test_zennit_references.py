"""References made from the image itself, and nearest in features, under Zennit's attributors."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import FeatureSpace, MadeReferences, ReferenceSet
from absence_plugins.core.made_references import make_reference
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def test_made_references_are_a_blank_of_the_image_itself() -> None:
    net, x, made = network(), noise(2, 2, 7, 7, seed=1), MadeReferences("inpainted")
    seed = torch.eye(3)[[1, 1]]
    with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=made) as attributor:
        _, signed = attributor(x, seed)
        with pytest.raises(ValueError, match="only what is present"):
            attributor.explain(x, seed)
    with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=make_reference(x, "inpainted")) as plain:
        assert torch.equal(signed, plain(x, seed)[1])
    with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=made, nontarget="runner_up") as attributor:
        found = attributor.explain(x, seed)
    assert torch.equal(found.absence, (-found.attribution).clamp(min=0))
    both = torch.eye(3)[[1, 1]] + torch.eye(3)[[2, 2]]  # no classes are needed
    with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=made) as attributor:
        assert attributor(x, both)[1].shape == x.shape


@pytest.mark.filterwarnings("ignore:samples")
def test_the_nearest_in_features_are_compared_with() -> None:
    net, images, x = network(), noise(12, 2, 6, 6), noise(2, 2, 6, 6, seed=1)
    near = ReferenceSet(images, torch.arange(12) % 3, k=1, nearest_in=FeatureSpace(net))
    drawn = near.nearest(x, torch.tensor([1, 1]))
    assert isinstance(drawn, Tensor)
    seed = torch.eye(3)[[1, 1]]
    with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=near) as attributor:
        signed = attributor(x, seed)[1]
    with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=drawn[:, 0]) as plain:
        assert torch.equal(signed, plain(x, seed)[1])


def test_references_of_the_explained_class_in_the_networks_eyes_are_warned_of() -> None:
    last = nn.Linear(3, 3)
    last.weight.data, last.bias.data = torch.eye(3), torch.zeros(3)
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    net.get_parameter("0.weight").data = torch.eye(3)[..., None, None]
    images, x = torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    images[0, 0], images[1, 2], x[:, 0] = 0.5, 0.9, 0.8
    for labels, expected in (([1, 2], True), ([0, 2], False)):
        with (
            warnings.catch_warnings(record=True) as caught,
            AbsenceGradient(net, AbsenceEpsilonGamma(), reference=ReferenceSet(images, labels, k=1)) as attributor,
        ):
            warnings.simplefilter("always")
            attributor(x, torch.eye(3)[[0]])
        said = [one for one in caught if "predicts to be of the explained class" in str(one.message)]
        assert len(said) == expected

"""References nearest in a network's features: against brute force, computed once, and without a trace."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import FeatureSpace, Layer, ReferenceSet
from absence_plugins.core.hooks import counting


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def features(net: nn.Sequential, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(net.eval()[:5](images))


def test_the_nearest_are_those_of_the_features_that_the_classifier_sees() -> None:
    net, images, x = network(), noise(12, 1, 6, 6), noise(3, 1, 6, 6, seed=1)
    own, there = features(net, images), features(net, x)
    for distance in ("cosine", "euclidean"):
        if distance == "cosine":
            far = -torch.cosine_similarity(there[:, None], own[None], dim=2)
        else:
            far = torch.cdist(there, own)
        references = ReferenceSet(images, k=4, nearest_in=FeatureSpace(net, distance=distance, batch_size=5))
        assert references.nearest_indices(x).tolist() == far.argsort(1)[:, :4].tolist()
        assert "nearest in features" in repr(references)
    pixels = ReferenceSet(images, k=4).nearest_indices(x)
    assert pixels.tolist() != references.nearest_indices(x).tolist()


def test_a_layer_by_name_reduced_as_it_says_and_only_among_the_contrast() -> None:
    net, images, x = network().eval(), noise(12, 1, 6, 6), noise(2, 1, 6, 6, seed=1)
    for layer in ("0", Layer("0", reduce="max")):
        space = FeatureSpace(net, layer, distance="euclidean")
        maps = net[0](torch.cat([images, x])).detach().flatten(2)
        expected = maps.amax(2) if isinstance(layer, Layer) else maps.mean(2)
        torch.testing.assert_close(space.points(torch.cat([images, x])), expected)
        labels = torch.arange(12) % 3
        far = torch.cdist(expected[12:], expected[:12])
        far[:, labels == 1] = torch.inf
        found = ReferenceSet(images, labels, k=3, nearest_in=space).nearest_indices(x, target=1)
        assert found.tolist() == far.argsort(1)[:, :3].tolist()


def test_references_run_once_and_again_after_the_weights_have_changed() -> None:
    net, images, x = network(), noise(12, 1, 6, 6), noise(2, 1, 6, 6, seed=1)
    references = ReferenceSet(images, k=2, nearest_in=FeatureSpace(net, "3"))
    ran: list[int] = []
    with counting(net, ran.append):
        references.nearest(x)
        first = sum(ran)
        references.nearest(x)
        assert (first, sum(ran)) == (14, 16)
        with torch.no_grad():
            net.get_parameter("0.weight").mul_(-1.0)
        changed = references.nearest_indices(x)
        assert sum(ran) == 30
        weight = net.get_parameter("0.weight")
        weight.data = weight.data.clone()  # other memory
        references.nearest(x)
        assert sum(ran) == 44
    fresh = ReferenceSet(images, k=2, nearest_in=FeatureSpace(net, "3"))
    assert torch.equal(changed, fresh.nearest_indices(x))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_before_in_training_mode_too(fails: bool) -> None:
    net = network().train()
    net[2].eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes, random = [one.training for one in net.modules()], torch.get_rng_state()
    shape = (1, 6, 6) if not fails else (2, 6, 6)  # two channels do not fit
    references = ReferenceSet(noise(12, *shape), k=2, nearest_in=FeatureSpace(net))
    if fails:
        with pytest.raises(RuntimeError):
            references.nearest(noise(2, *shape))
    else:
        references.nearest(noise(2, *shape))
    assert [one.training for one in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in net.modules())
    assert all(one.grad is None for one in net.parameters())


def test_several_inputs_and_a_model_without_weights() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([a.sum(1), b.sum(1)], 1)

    a, b = torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.tensor([[2.0], [7.0]])
    space = FeatureSpace(Two(), distance="euclidean")
    assert space.points(a, b).tolist() == [[1.0, 2.0], [5.0, 7.0]]
    found = ReferenceSet((a, b), k=1, nearest_in=space).nearest_indices(
        (torch.tensor([[3.0, 2.0]]), torch.tensor([[6.0]]))
    )
    assert found.tolist() == [[1]]


def test_inside_inference_mode_and_pickled() -> None:
    net, images, x = network(), noise(12, 1, 6, 6), noise(2, 1, 6, 6, seed=1)
    references = ReferenceSet(images, k=2, nearest_in=FeatureSpace(net))
    with torch.inference_mode():
        inside = references.nearest_indices(x.clone())
    assert torch.equal(inside, references.nearest_indices(x))
    assert torch.equal(pickle.loads(pickle.dumps(references)).nearest_indices(x), inside)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: FeatureSpace(network(), "conv"), ValueError, "no layer 'conv'"),
        (lambda: FeatureSpace(network(), distance="manhattan"), ValueError, "cosine, euclidean"),  # type: ignore[arg-type]
        (lambda: FeatureSpace(network(), batch_size=0), ValueError, "batch_size"),
        (lambda: FeatureSpace(lambda x: x), TypeError, "nn.Module"),  # type: ignore[arg-type]
        (lambda: ReferenceSet(noise(3, 2), nearest_in="0"), TypeError, "FeatureSpace"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_space_is_rejected(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_features_that_are_no_numbers_are_named() -> None:
    net, images = network(), noise(3, 1, 6, 6)
    with torch.no_grad():
        net.get_parameter("0.weight").fill_(torch.nan)
    with pytest.raises(ValueError, match="image 0 at layer 5 are NaN"):
        ReferenceSet(images, k=1, nearest_in=FeatureSpace(net)).nearest(images)


def test_weights_changed_behind_the_back_of_autograd_are_noticed() -> None:
    """``weight.data`` has no version: the features of the old network were kept, and other references drawn."""
    net, images, x = network().eval(), noise(40, 1, 6, 6), noise(2, 1, 6, 6, seed=1)
    references = ReferenceSet(images, k=5, nearest_in=FeatureSpace(net))
    before = references.nearest_indices(x)
    next(net.parameters()).data.mul_(-1)
    after = references.nearest_indices(x)
    assert after.tolist() == ReferenceSet(images, k=5, nearest_in=FeatureSpace(net)).nearest_indices(x).tolist()
    assert after.tolist() != before.tolist()


class Elsewhere(nn.Module):
    """A model on another device, which notes where its inputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))
        self.seen: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.device.type)
        return torch.zeros(len(x), 2)


def test_images_follow_the_model_to_its_device() -> None:
    net = Elsewhere()
    assert FeatureSpace(net, distance="euclidean").points(noise(3, 1, 6, 6)).shape == (3, 2)
    assert set(net.seen) == {"meta"}

"""Kept work belongs to its model, with structure and function, to its data by content, and to its settings (F45)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from absence_plugins.methods.identity import (
    Identity,
    describe_differences,
    identify_data,
    identify_model,
)
from absence_plugins.methods.patches import find_extreme_patches

PROBE = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Items(torch.utils.data.Dataset[Any]):
    """Known only by reading."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.read = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Tensor:
        self.read += 1
        return self.images[number]


class Net(nn.Module):
    """A nonlinearity that no module shows."""

    def __init__(self, act: Callable[[Tensor], Tensor], stride: int = 1, name: str = "a") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 3, 3, stride), nn.Conv2d(3, 3, 3)
        self.hidden, self.name, self.calls = [act], name, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # what a forward counts is no setting
        return self.last(self.hidden[0](self.first(x))).mean((2, 3))


def differences(there: nn.Module, here: nn.Module, layer: str | None = None) -> list[str]:
    return describe_differences(identify_model(there, PROBE, layer), identify_model(here, PROBE, layer))


# -- the model --------------------------------------------------------------------------------------------------------


def test_the_same_model_is_the_same_also_after_forwards_and_with_other_threads() -> None:
    net = Net(F.relu)
    before, random, calls = identify_model(net, PROBE, "last"), torch.get_rng_state(), torch.get_num_threads()
    net(PROBE)
    try:
        torch.set_num_threads(1 + (calls == 1))
        assert describe_differences(before, identify_model(net.train(), PROBE, "last")) == []
    finally:
        torch.set_num_threads(calls)
    assert net.training
    assert torch.equal(random, torch.get_rng_state())
    assert not list(net._forward_hooks.values())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Net(F.gelu), "the outputs of the model on the same input differ by"),
        (Net(lambda x: F.leaky_relu(x, 0.03)), "the outputs of the model on the same input differ by"),
        (Net(F.relu, stride=2), r"structure of the model differs: 'first' is Conv2d\(1, 3, .*stride=\(1, 1\)\) there"),
        (Net(F.relu, name="b"), r"the structure of the model differs: '' is Net\(name='a'\) there and Net\(name='b'\)"),
    ],
)
def test_another_function_of_the_same_weights_is_noticed(other: nn.Module, said: str) -> None:
    (found,) = differences(Net(F.relu), other)
    assert re.search(said, found), found


def test_a_change_behind_the_layer_and_one_in_front_of_it_are_noticed() -> None:
    assert "the values of the layer" in differences(Net(F.relu), Net(F.gelu), "last")[0]
    assert "the outputs of the model" in differences(Net(F.relu), Net(F.gelu), "first")[0]


def test_other_weights_and_buffers_are_named() -> None:
    def norm(value: float) -> nn.Module:
        net = nn.Sequential(nn.BatchNorm2d(1))
        net.register_buffer("table", torch.tensor(value), persistent=False)
        return net

    assert differences(norm(0.0), norm(1.0)) == ["the weights of the model differ: 'table' is another tensor"]
    one = nn.Sequential(nn.ReLU())
    assert differences(one, nn.Sequential(nn.ReLU(), nn.Tanh())) == [
        "the structure of the model differs: '1' is missing there and Tanh() here"
    ]


def test_a_model_that_draws_or_does_not_fit_behind_the_layer_is_still_itself() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    assert differences(Noisy(), Noisy()) == []
    torch.manual_seed(0)
    short = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(7, 7))  # behind the layer it does not fit
    assert differences(short, short, "0") == []
    assert "model" not in identify_model(short, PROBE, "0").settings["outputs"]


def test_lazy_modules_are_made_by_the_probe_or_left_out() -> None:
    def lazy(width: int) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.LazyLinear(width))

    assert differences(lazy(3), lazy(3), "0") == []
    assert "the structure of the model differs: '2' is Linear(in_features=128" in differences(lazy(3), lazy(4), "0")[1]
    fails = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(7, 7), nn.LazyLinear(2))
    assert differences(fails, fails, "0") == []


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: torch.compile(net, backend="eager"),
        nn.DataParallel,
        lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
        lambda net: nn.Sequential(torch.compile(net[0], backend="eager"), net[1]),
    ],
    ids=["compiled", "parallel", "both", "a part"],
)
def test_a_compiled_model_is_the_one_inside(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Sequential(Net(F.relu), nn.Linear(3, 2))
    net[1].register_parameter("tied", net[0].first.bias)
    assert differences(net, wrap(net)) == []
    (found,) = differences(net, wrap(nn.Sequential(net[0], nn.Linear(3, 2))))
    assert found.startswith("the weights of the model differ: '1.")


def test_a_model_that_takes_one_sample_or_rejects_noise_is_still_itself(state: Path) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(1, 3, 3), nn.Linear(48, 2)

        def forward(self, x: Tensor) -> Tensor:
            if not (x == x.round(decimals=1)).all():
                raise ValueError("no image")
            return self.last(self.first(x).view(1, -1))

    options = SCAN | {"batch_size": 1}
    images = X.round(decimals=1)
    expected = find_extreme_patches(One(), "last", images, **options).to_dict()
    for _ in range(2):
        assert find_extreme_patches(One(), "last", images, checkpoint=state, **options).to_dict() == expected
    other = One()
    other.last.forward = lambda x: F.linear(x.relu(), other.last.weight, other.last.bias)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="the values of the layer on the same input differ by"):
        find_extreme_patches(other, "last", images, checkpoint=state, **options)


def rounded(x: Tensor) -> Tensor:
    """To the 11 bits of TF32."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_tensor_cores_make_no_other_model_and_another_function_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deep(nn.Module):
        def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(24))
            self.hidden = [act]

        def forward(self, x: Tensor) -> Tensor:
            x = x.expand(-1, 32, -1, -1)
            for layer in self.layers:
                x = self.hidden[0](layer(x)) * 2
            return x

    def run_as_on_a_gpu(layer: nn.Conv2d, x: Tensor) -> Tensor:
        return layer._conv_forward(rounded(x), rounded(layer.weight.detach()), layer.bias)

    here, other = (identify_model(Deep(act), PROBE) for act in (F.relu, F.gelu))
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", run_as_on_a_gpu)
        gpu = identify_model(Deep(F.relu), PROBE)
    assert describe_differences(gpu, here)  # no two CPUs differ so much
    gpu.settings["outputs"]["device"] = "cuda"
    for pair in ((gpu, here), (here, gpu)):
        assert describe_differences(*pair) == []
    assert "the outputs of the model" in describe_differences(gpu, other)[0]


# -- the data ---------------------------------------------------------------------------------------------------------

X = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def changed(number: int) -> Tensor:
    other = X.clone()
    other[number, 0, 7, 7] += 1e-3
    return other


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: TensorDataset(x, torch.arange(len(x))),
        list,
        lambda x: [(one, 0) for one in x],
        lambda x: Subset(TensorDataset(x), range(len(x))),
    ],
    ids=["tensor", "TensorDataset", "list", "list of tuples", "Subset"],
)
def test_data_in_memory_are_known_by_every_byte(wrap: Callable[[Tensor], Any]) -> None:
    there = identify_data(wrap(X))
    assert describe_differences(there, identify_data(wrap(X.clone()))) == []
    found = describe_differences(there, identify_data(wrap(changed(17))))
    assert found == ["the images differ: image 17 is another one"]
    assert describe_differences(there, identify_data(wrap(X[:20]))) == ["the images differ: 24 there and 20 here"]
    chosen = identify_data(wrap(X), [3, 17]), identify_data(wrap(changed(17)), [3, 17])
    assert describe_differences(*chosen) == ["the images differ: image 17 is another one"]


def test_a_data_set_may_say_what_it_is() -> None:
    one, other = Items(X), Items(changed(3))
    one.identity, other.identity = "photos of May", "photos of June"  # type: ignore[attr-defined]
    assert describe_differences(identify_data(one), identify_data(other)) == [
        "identity is 'photos of May' there and 'photos of June' here"
    ]


# -- a scan -----------------------------------------------------------------------------------------------------------

SCAN: dict[str, Any] = {"k": 2, "size": 6, "stride": 2, "batch_size": 8, "progress": False}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_scan_of_other_images_or_of_another_network_is_refused(state: Path) -> None:
    net = Net(F.relu)
    find_extreme_patches(net, "last", X, checkpoint=state, **SCAN)
    with pytest.raises(
        ValueError, match="another scan: the images differ: image 5 is another one; name another folder"
    ):
        find_extreme_patches(net, "last", changed(5), checkpoint=state, **SCAN)
    with pytest.raises(ValueError, match="another scan: the values of the layer on the same input differ by"):
        find_extreme_patches(Net(F.gelu), "last", X, checkpoint=state, **SCAN)


@pytest.mark.parametrize("other", [0, 23, slice(1, None)])
def test_a_data_set_is_known_by_what_was_read_of_it(other: Any, state: Path) -> None:
    net, images = Net(F.relu), X.clone()
    expected = find_extreme_patches(net, "last", Items(X), checkpoint=state, **SCAN)
    same = Items(X)
    assert find_extreme_patches(net, "last", same, checkpoint=state, **SCAN).to_dict() == expected.to_dict()
    assert same.read == 9  # the first one, and eight of those that were read
    images[other] = images[other].flip(-1)
    with pytest.raises(ValueError, match=r"image \d+ is another one|the images differ as the model takes them"):
        find_extreme_patches(net, "last", Items(images), checkpoint=state, **SCAN)
    assert find_extreme_patches(net, "last", X, checkpoint=state, **SCAN).to_dict() == expected.to_dict()


def test_settings_come_before_the_words_on_the_model() -> None:
    one, other = (Identity({"seed": seed, "model": str(seed)}) for seed in (0, 1))
    assert describe_differences(one, other) == ["seed is 0 there and 1 here", "the weights of the model differ"]

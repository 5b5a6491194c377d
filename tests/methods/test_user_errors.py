"""What a user's model or data set raises comes out of every function as it is, with its own type and text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.captum import AbsenceFeatureAblation, AbsenceLayerGradCam, AbsenceSaliency
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.relevance import relevance
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SCAN: dict[str, Any] = {"k": 2, "size": 6, "stride": 2, "progress": False}


class Own(Exception):
    """Of the user."""


class Fails(nn.Module):
    """It fails between its two layers."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.first, self.second, self.error = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), error

    def forward(self, x: Tensor) -> Tensor:
        self.first(x)
        raise self.error


class Data(torch.utils.data.Dataset[Any]):
    """Its fourth sample fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise self.error
        return X[index], index % 2


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "scan": lambda model: find_extreme_patches(model, "second", X, **SCAN),
    "captum": lambda model: AbsenceSaliency(model).attribute(X, target=0),
    "captum, layer": lambda model: AbsenceLayerGradCam(model, model.second).attribute(X, target=0),
    "captum, forwards": lambda model: AbsenceFeatureAblation(model).attribute(X, target=0),
    "zennit": lambda model: AbsenceGradient(model, AbsenceEpsilonGamma())(X, torch.eye(2)[[0] * 6]),
    "relevance": lambda model: relevance(model, X, X * 0, 0),
}
ERRORS = [RuntimeError, KeyError, IndexError, TypeError, AttributeError, StopIteration, NotImplementedError, Own]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_error_of_the_model(name: str, error: type[Exception]) -> None:
    model, own = Fails(error("mine")), None
    try:
        FUNCTIONS[name](model)
    except error as raised:
        own = raised
    assert own is model.error
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


# not StopIteration: in torch's loaders it ends the data
@pytest.mark.parametrize("error", [error for error in ERRORS if error is not StopIteration])
def test_an_error_of_the_data_set(error: type[Exception]) -> None:
    data = Data(error("mine"))
    net = nn.Conv2d(1, 2, 3)
    for work in (lambda: find_extreme_patches(net, "", data, **SCAN), lambda: ReferenceSet.from_dataset(data)):
        with pytest.raises(error) as raised:
            work()
        assert raised.value is data.error


def test_an_error_in_a_worker_names_the_users_line() -> None:
    with pytest.raises(
        KeyError, match=r"(?s)Caught KeyError in DataLoader worker.*in __getitem__.*raise self.error.*mine"
    ):
        find_extreme_patches(nn.Conv2d(1, 2, 3), "", Data(KeyError("mine")), workers=1, **SCAN)

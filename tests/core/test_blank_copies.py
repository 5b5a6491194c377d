"""What a blank is found with are copies: the user's data sets and transforms stay open, and weights are not copied."""

from __future__ import annotations

import gc
import warnings
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from test_blank import BLACK, NORMALIZE, STEPS, TENSOR, Callable_, Pictures, empty_of
from torch import Tensor, nn
from torch.utils.data import Subset

from absence_plugins import ReferenceSet

transforms = pytest.importorskip("torchvision.transforms")
v2 = pytest.importorskip("torchvision.transforms.v2")

ROUNDED = [round(value, 4) for value in BLACK]


class Opened(Pictures):
    """As data sets in HDF5 and LMDB: the last reference closes the file."""

    __slots__ = ("limit",)
    subclasses: ClassVar[list[type]] = []

    def __init__(self, transform: Any) -> None:
        super().__init__(transform)
        self.is_open, self.limit, self.closed = True, 255, []

    def __init_subclass__(cls) -> None:
        Opened.subclasses.append(cls)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert isinstance(self, Opened)
        assert self.limit == 255
        return super().__getitem__(index)

    def __del__(self) -> None:
        self.closed.append(True)


def test_a_data_set_with_del_is_not_closed() -> None:
    dataset = Opened(STEPS)
    assert empty_of(dataset) == ROUNDED
    gc.collect()
    assert dataset.closed == []
    assert Opened.subclasses == []
    whole = Subset(dataset, [0, 1])
    assert empty_of(whole) == ROUNDED
    gc.collect()
    assert dataset.closed == []


class Handle(Callable_):
    """A transform that closes what it holds."""

    closed: ClassVar[list[bool]] = []

    def __del__(self) -> None:
        self.closed.append(True)


def test_a_transform_with_del_is_not_copied() -> None:
    handle = Handle(STEPS)
    assert empty_of(Pictures(Callable_(handle))) == ROUNDED
    gc.collect()
    assert Handle.closed == []


class Final(type):
    """Classes without subclasses."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Final:
        if any(isinstance(base, Final) for base in bases):
            raise TypeError("final")
        return super().__new__(cls, name, bases, body)


class Closing(Pictures, metaclass=Final):
    closed: ClassVar[list[bool]] = []

    def __del__(self) -> None:
        self.closed.append(True)


def test_where_there_can_be_no_subclass_nothing_is_closed() -> None:
    dataset = Closing(STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of black, which is a guess then
        ReferenceSet.from_dataset(dataset, k=1)
    gc.collect()
    assert Closing.closed == []


class Encoder(nn.Module):
    """A large network that a data set keeps, alone or in a transform."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = Heavy(torch.ones(1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.weight.detach()


class Heavy(nn.Parameter):
    """Weights too large to be copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise MemoryError


@pytest.mark.parametrize("hold", [lambda e: e, lambda e: Callable_(e), lambda e: partial(Callable_(e))])
def test_parameters_are_not_copied_and_buffers_stay(hold: Any) -> None:
    encoder = Encoder()
    held = hold(encoder)
    steps = transforms.Compose([TENSOR, NORMALIZE, held])
    assert empty_of(Pictures(steps)) == ROUNDED
    assert int(encoder.calls) == len(Pictures())  # the data set's own reading of its samples

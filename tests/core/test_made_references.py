"""References made from the image itself."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from absence_plugins import MadeReferences
from absence_plugins.core.filling import FILLINGS, Filling, blur, fill
from absence_plugins.core.made_references import make_reference


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("kind", FILLINGS)
def test_a_constant_image_is_its_own_reference(kind: Filling) -> None:
    constant = torch.tensor([0.3, -2.0]).view(2, 1, 1).expand(3, 2, 14, 11)
    assert torch.equal(make_reference(constant, kind), constant)


def test_each_kind_is_what_it_says() -> None:
    x = noise(2, 3, 14, 11)
    torch.testing.assert_close(make_reference(x, "grey"), x.mean((2, 3), keepdim=True).expand_as(x))
    torch.testing.assert_close(make_reference(x, "blurred"), blur(x))
    made = make_reference(x, "inpainted")
    for rows in range(0, 14, 2):
        for columns in range(0, 11, 2):
            where = torch.zeros(14, 11, dtype=torch.bool)
            where[rows : rows + 2, columns : columns + 2] = True
            torch.testing.assert_close(made[..., where], fill(x, where)[..., where], rtol=0, atol=1e-8)


def test_they_stand_where_a_reference_set_stands() -> None:
    x, made = noise(2, 3, 14, 11), MadeReferences("grey", empty=-1.0)
    drawn = made.nearest(x, torch.tensor([0, 1]), label=5)
    assert isinstance(drawn, Tensor)
    assert torch.equal(drawn[:, 0], make_reference(x, "grey"))
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again.random(x), drawn)
    assert (repr(again), len(again), again.k, float(again.empty[0])) == ("MadeReferences('grey')", 1, 1, -1.0)
    two = made.nearest((x, x[:, :1]))
    assert torch.equal(two[1][:, 0], make_reference(x[:, :1], "grey"))
    with pytest.raises(TypeError, match="no indices"):
        made.nearest_indices(x)
    with pytest.raises(ValueError, match="grey, blurred, inpainted"):
        MadeReferences("black")  # type: ignore[arg-type]

"""What the patch search refuses, and what its errors name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_patches import QUIET, net, photos
from torch import Tensor, nn

from absence_plugins.methods.patches import find_extreme_patches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 must be at least 1"),
        ({"size": 2.5}, "size=2.5 must be an integer"),
        ({"stride": True}, "stride=True"),
        ({"mode": "cut"}, "mode='cut' must be one of crop, mask"),
        ({"reduce": "median"}, "reduce='median' must be one of mean, max, min, sum, cls"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"units": [0, 9]}, r"units=\[9\]: layer '2' has units 0 to 4, one for each of its 5 channels"),
        ({"units": []}, "units"),
        ({"images": []}, "no images"),
        ({"images": [3, 99]}, "images must lie between 0 and 6"),
        ({"size": 13}, "image 0 is 12x15: smaller than a patch"),
        ({"reduce": "cls"}, "needs tokens"),
        ({"layer": "9"}, "no layer '9'; it has: 0, 1, 2"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], message: str) -> None:
    chosen = {"layer": "2", "k": 2, "size": 5, "stride": 2, **options}
    with pytest.raises(ValueError, match=message):
        find_extreme_patches(net(), chosen.pop("layer"), photos(), **chosen, **QUIET)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_is_named(value: float) -> None:
    images = photos()
    images[4, 1, 2, 3] = value
    with pytest.raises(ValueError, match="image 4 holds NaN or infinite pixels; leave it out"):
        find_extreme_patches(net(), "2", images, k=2, size=5, stride=2, **QUIET)


def test_a_score_that_is_not_finite_is_named() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt()

    images = torch.ones(6, 1, 4, 4)
    images[5] = -1
    with pytest.raises(ValueError, match="output for image 5 is NaN"):
        find_extreme_patches(nn.Sequential(Root()), "0", images, k=2, size=2, stride=2, **QUIET)


def test_data_sets_that_cannot_be_scanned() -> None:
    with pytest.raises(TypeError, match="image 0 of the data set must be a float tensor"):
        find_extreme_patches(net(), "2", [torch.zeros(3, 9, 9, dtype=torch.uint8)], size=5, **QUIET)
    with pytest.raises(TypeError, match="a generator has none"):
        find_extreme_patches(net(), "2", (image for image in photos()), size=5, **QUIET)
    with pytest.raises(ValueError, match="no images to scan"):
        find_extreme_patches(net(), "2", [], size=5, **QUIET)
    model = net()
    model.add_module("unused", nn.Conv2d(1, 1, 1))
    model.forward = lambda x: model[:3](x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="layer 'unused' does not run"):
        find_extreme_patches(model, "unused", photos(), k=2, size=5, **QUIET)

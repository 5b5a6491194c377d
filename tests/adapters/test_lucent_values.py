"""``unit_values`` and ``preprocess``: what a unit says of given images, on the model's own inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lucent.optvis import transform
from test_lucent_render import QUICK, everything, plain_net, same, small

from absence_plugins.lucent import absence_channel, absence_class, absence_contrast, render_vis, unit_values

pytestmark = pytest.mark.filterwarnings("ignore")


def test_unit_values_are_those_of_a_clean_forward() -> None:
    model, x = plain_net().train(), torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = everything(model)
    expected = model[:3](x)[:, 2].mean((1, 2))
    for objective in (absence_channel("3", 2), -absence_channel("3", 2, batch=4), "-3:2", absence_contrast("3", 2)):
        assert torch.equal(unit_values(model, objective, x, batch_size=7), expected)
        assert torch.allclose(unit_values(model, objective, x, batch_size=3), expected, atol=1e-6)
    assert torch.allclose(unit_values(model, absence_class(1), x), model(x)[:, 1], atol=1e-6)
    assert same(everything(model), before)
    with pytest.raises(TypeError, match="absence_channel"):
        unit_values(model, "3:2", x)
    with pytest.raises(ValueError, match="no images"):
        unit_values(model, "-3:2", x[:0])
    with pytest.raises(ValueError, match="no layer 'x'"):
        unit_values(model, "-x:2", x)
    assert same(everything(model), before)


def test_preprocess_may_be_a_function() -> None:
    """The values reached are those on the model's inputs, and Lucent's own normalization is one such function."""
    model = plain_net()
    options = {**QUICK, "thresholds": (20,), "fixed_image_size": 8}
    found = render_vis(model, "-3:2", small(), **{**options, "preprocess": lambda images: 3 * images - 1})
    x = torch.from_numpy(found[0]).permute(0, 3, 1, 2)
    assert found.reached[0].values[0][0] == pytest.approx(float(model[:3](3 * x - 1)[:, 2].mean()), abs=1e-5)
    own = render_vis(model, "-3:2", small(), **{**options, "preprocess": transform.normalize()})
    lucents = render_vis(model, "-3:2", small(), **{**options, "preprocess": True})
    assert np.array_equal(own[0], lucents[0])

"""Planted tables, texts, signals, volumes and segmentations in the shapes of their users: same outputs, same keys."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from absence_plugins.core.kinds import SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.data.planted import NATURAL, PROBLEMS, natural
from absence_plugins.data.planted.natural_forms import _OneHot

SHAPES = {
    "column_missing": (TableKind, (24,), (24,)),
    "negation_missing": (TextKind, (12,), (12,)),
    "signal_missing": (SignalKind, (1, 64), (64,)),
    "volume_missing": (VolumeKind, (1, 12, 12, 12), (12, 12, 12)),
    "segmentation_missing": (type(None), (1, 24, 24), (24, 24)),
}
LONG = ("volume_missing", "segmentation_missing")  # train for longer
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NATURAL]


@pytest.mark.parametrize("name", NAMES)
def test_the_natural_form_has_the_outputs_of_the_image_form(name: str) -> None:
    """In float64, on held-out inputs and pool; the segmentation's mean over its positions."""
    planted, form = PROBLEMS[name](0), natural(name)
    kind, shape, things = SHAPES[name]
    assert type(form.kind) is kind
    assert tuple(form.inputs.shape[1:]) == shape
    assert tuple(form.things.shape[1:]) == things
    images, model = copy.deepcopy(planted.model).double(), copy.deepcopy(form.model).double()

    def read(inputs: torch.Tensor) -> torch.Tensor:
        outputs = model(inputs.double() if inputs.is_floating_point() else inputs)
        return outputs if outputs.dim() == 2 else outputs.mean((2, 3))

    with torch.no_grad():
        for first, second in ((planted.images, form.inputs), (planted.pool_images, form.pool_inputs)):
            torch.testing.assert_close(read(second), images(first.double()), rtol=0, atol=1e-12)
        alone = form.output(form.inputs)
        torch.testing.assert_close(alone, planted.model(planted.images)[:, form.absence_unit], rtol=0, atol=1e-5)
    if form.kind is not None:
        form.kind.check(form.inputs)
        assert form.references().kind is form.kind


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_where_input_and_twin_differ(name: str) -> None:
    form = natural(name)
    differ = form.inputs != form.twins
    differ = differ.any(1) if differ.dim() > form.things.dim() else differ
    has_key = form.labels == form.presence_unit
    # a text may have had the same word there; all other keys are exactly the difference
    assert torch.equal(differ[has_key], form.things[has_key])
    assert not form.things[~has_key].any()
    assert bool(form.pool_things[form.pool_labels == form.presence_unit].flatten(1).any(1).all())


def test_the_nearest_texts_are_those_of_the_image_form() -> None:
    form, planted = natural("negation_missing"), PROBLEMS["negation_missing"](0)
    texts = form.inputs[:10]
    ours = _OneHot(15).points(texts).reshape(10, 12, 15).transpose(1, 2).flatten(1)
    assert torch.equal(ours, planted.images[:10].flatten(1))
    assert isinstance(form.model.embedding, nn.Embedding)


def test_an_unknown_problem_is_named() -> None:
    with pytest.raises(ValueError, match="'green_missing' has no natural form; there are column_missing"):
        natural("green_missing")

"""References on another scale than the inputs: refused or warned of; ordinary data never (F37)."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.captum import AbsenceFeatureAblation, AbsenceGradientShap, AbsenceIntegratedGradients
from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.relevance import relevance
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=GENERATOR)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


PICTURES = rand(20, 3, 8, 8)
BYTES = (PICTURES * 255).round().to(torch.uint8)
NORMALIZED = (PICTURES - 0.45) / 0.225
DARK = PICTURES[:1] * 0.1
BRIGHT = 0.5 + PICTURES[:1] / 2
CONSTANT = torch.full((1, 3, 8, 8), 0.2)

REFUSED = {
    "bytes for [0, 1]": (PICTURES[:1], BYTES),
    "bytes for a dark picture": (DARK, BYTES),
    "bytes for a constant": (CONSTANT, torch.full((4, 3, 8, 8), 204, dtype=torch.uint8)),
    "bytes for normalized": (NORMALIZED[:1], BYTES),
    "long integers": (PICTURES[:1], BYTES.long()),
    "0 to 255 as floats": (PICTURES[:1], BYTES.float()),
    "0 to 255 for normalized": (NORMALIZED[:1], BYTES.float()),
    "[0, 1] for 0 to 255": (BYTES[:1].float(), PICTURES),
    "normalized for 0 to 255": (BYTES[:1].float(), NORMALIZED),
    "floats for bytes": (BYTES[:1], PICTURES),
    "channels last": (PICTURES[:1].permute(0, 2, 3, 1), BYTES.permute(0, 2, 3, 1)),
    "integers for a standardized table": (randn(1, 5), torch.arange(20).reshape(4, 5)),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("draw", ["nearest", "random", "nearest_indices"])
def test_another_scale_is_refused(name: str, draw: str) -> None:
    x, images = REFUSED[name]
    references = ReferenceSet(images, k=1)
    with pytest.raises(
        ValueError, match=r"the references are .* from .* to .*, the inputs .* from .*: .*prepare both as"
    ) as caught:
        getattr(references, draw)(x)
    assert "\n" not in str(caught.value)


WARNED = {
    "normalized references": (PICTURES[:1], NORMALIZED),
    "normalized inputs": (NORMALIZED[:1], PICTURES),
    "a dark picture": (0.3 * PICTURES[:1], NORMALIZED),
    "a bright picture": (BRIGHT, NORMALIZED),
    "from -1 to 1": (PICTURES[:1], 2 * PICTURES - 1),
}


@pytest.mark.parametrize("name", WARNED)
def test_normalized_against_raw_is_warned_of(name: str) -> None:
    x, images = WARNED[name]
    with pytest.warns(AbsenceWarning, match="seem to be normalized and the others not"):
        ReferenceSet(images, k=1).nearest(x)


RAIN = 150 * rand(20, 1, 8, 8)
DOUBTED = {
    "a dry day": (0.9 * rand(1, 1, 8, 8), RAIN),  # mm; may be 8-bit pictures that were resized
    "a wet day": (RAIN[:1], 0.9 * rand(20, 1, 8, 8)),
    "resized pictures": (PICTURES[:1], 255 * PICTURES),
    "resized inputs": (255 * PICTURES[:1], NORMALIZED),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_values_up_to_255_that_are_not_whole_are_only_warned_of(name: str) -> None:
    x, images = DOUBTED[name]
    with pytest.warns(
        AbsenceWarning, match=r"the references are .*, the inputs .*: if these are pictures, prepare"
    ) as said:
        ReferenceSet(images, k=1).nearest(x)
    assert len(said) == 1


ORDINARY: dict[str, tuple[Tensor, Tensor]] = {
    "pictures": (PICTURES[:1], PICTURES),
    "a dark picture": (DARK, PICTURES),
    "a nearly black picture": (PICTURES[:1] * 1e-3, PICTURES),
    "a bright picture": (BRIGHT, PICTURES),
    "a constant picture": (CONSTANT, PICTURES),
    "a constant normalized picture": (CONSTANT, NORMALIZED),
    "a black picture": (torch.zeros(1, 3, 8, 8), BYTES.float()),
    "black references": (PICTURES[:1], torch.zeros(3, 3, 8, 8)),
    "black references of bytes": (PICTURES[:1], torch.zeros(3, 3, 8, 8, dtype=torch.uint8)),
    "normalized": (NORMALIZED[:1], NORMALIZED),
    "a normalized bright picture": ((BRIGHT - 0.45) / 0.225, NORMALIZED),
    "a normalized dark picture": ((DARK - 0.45) / 0.225, NORMALIZED),
    "bytes": (BYTES[:1], BYTES),
    "bytes for floats of bytes": (255 * PICTURES[:1], BYTES),
    "a dark picture from 0 to 255": (12 * PICTURES[:1], BYTES.float()),
    "a binary picture": ((PICTURES[:1] > 0.5).float(), PICTURES),
    "binary bytes": (PICTURES[:1], (BYTES > 128).to(torch.uint8)),
    "booleans": ((PICTURES[:1] > 0.5), (PICTURES > 0.5)),
    "a standardized table": (randn(1, 6), randn(30, 6)),
    "a table of all sorts": (torch.tensor([[0.3, 0.1]]), torch.tensor([[0.2, 250.0], [0.1, 180.0]])),
    "features behind a ReLU": (randn(1, 64, 4, 4).relu() / 9, 40 * randn(9, 64, 4, 4).relu()),
    "one-hot": (torch.eye(4)[:1], torch.eye(4)),
    "one-hot integers": (torch.eye(4)[:1], torch.eye(4).long()),
    "one-hot maps": (
        torch.eye(4)[:1, :, None, None].expand(1, 4, 3, 3),
        torch.eye(4)[:, :, None, None].expand(4, 4, 3, 3),
    ),
    "tokens": (torch.arange(6)[None], torch.arange(12).reshape(2, 6) * 900),
    "whole floats for integers": (torch.tensor([[3.0, -2.0]]), torch.tensor([[300, -7], [1, 4]])),
    "a silent spectrogram": (0.01 * rand(1, 1, 9, 9), 60 * rand(9, 1, 9, 9)),
    "an anomaly map": (randn(1, 1, 9, 9), randn(9, 1, 9, 9)),
    "rain": (RAIN[:1], RAIN),
    "a dry day, light rain": (0.9 * rand(1, 1, 8, 8), 40 * rand(20, 1, 8, 8)),
    "counts of a quiet day": (rand(1, 1, 8, 8).round(), (200 * rand(20, 1, 8, 8)).round()),
    "temperatures in kelvin": (270 + 9 * rand(1, 1, 8, 8), 260 + 40 * rand(20, 1, 8, 8)),
    "heights above the sea": (0.9 * rand(1, 1, 8, 8), 3000 * rand(20, 1, 8, 8)),
    "double": (PICTURES[:1].double(), PICTURES),
    "half": (PICTURES[:1].half(), PICTURES.half()),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_data_raise_no_alarm(name: str) -> None:
    x, images = ORDINARY[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ReferenceSet(images, k=1).nearest(x)


def test_of_several_inputs_each_is_compared() -> None:
    references = ReferenceSet((PICTURES, BYTES), k=1)
    references.nearest((PICTURES[:1], BYTES[:1]))
    with pytest.raises(ValueError, match="uint8 from 0 to 255"):
        references.nearest((PICTURES[:1], PICTURES[:1]))


NET = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

CALLS: dict[str, Any] = {
    "Captum, a set": lambda r: AbsenceFeatureAblation(NET, reference=ReferenceSet(r, k=1)).explain(
        PICTURES[:1], target=0
    ),
    "Captum, baselines": lambda r: AbsenceIntegratedGradients(NET).attribute(PICTURES[:1], r[:1], target=0),
    "Captum, one baseline": lambda r: AbsenceIntegratedGradients(NET).attribute(PICTURES[:1], r[0][None], target=0),
    "Captum, a distribution": lambda r: AbsenceGradientShap(NET).attribute(PICTURES[:1], r, target=0),
    "Zennit, a set": lambda r: zennit(ReferenceSet(r, k=1)),
    "Zennit, a tensor": lambda r: zennit(r[:1]),
    "Zennit, one image": lambda r: zennit(r[0]),
    "relevance": lambda r: relevance(NET, PICTURES[:1], r[:1], output=0),
    "relevance, several": lambda r: relevance(NET, PICTURES[:1], r[:2], output=0),
    "relevance, a list": lambda r: relevance(NET, PICTURES[:1], [r[:1], r[1:2]], output=0),
    "absence_scores, a tensor": lambda r: scores(r[:4]),
    "absence_scores, several": lambda r: scores(r[:8].reshape(4, 2, 3, 8, 8)),
    "absence_scores, a set": lambda r: scores(ReferenceSet(r, k=1)),
}


def zennit(reference: Any) -> Any:
    with AbsenceGradient(NET, composite=AbsenceEpsilonGamma(), reference=reference) as attributor:
        return attributor(PICTURES[:1], torch.eye(3)[:1])


def scores(reference: Any) -> Any:
    return absence_scores(NET, PICTURES[:4], 0, rand(4, 1, 8, 8), view="reference", reference=reference, steps=3)


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("name", CALLS)
def test_every_way_in_is_checked_before_anything_is_computed(name: str) -> None:
    ran, others = [], rand(20, 3, 8, 8)
    hook = NET[1].register_forward_hook(lambda *_: ran.append(1))
    try:
        for images in (BYTES, (255 * others).round()):
            with pytest.raises(ValueError, match="prepare both as the model's inputs"):
                CALLS[name](images)
        CALLS[name](others)
    finally:
        hook.remove()
    assert ran

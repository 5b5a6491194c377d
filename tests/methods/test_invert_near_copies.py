"""Copies that nobody named: a warning where samples repeat each other, none for ordinary samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.invert import label_units
from absence_plugins.methods.invert.bits import merge_rows
from absence_plugins.methods.invert.near_copies import count_equal_samples, count_near_copies

KINDS = ("dense", "sparse", "tied", "binary", "line", "heavy", "classes")


def ordinary(kind: str, samples: int, units: int) -> torch.Tensor:
    rng = np.random.default_rng([samples, units, KINDS.index(kind)])
    normal = rng.normal(size=(samples, units))
    made = {
        "dense": normal,
        "sparse": np.maximum(normal - 1, 0),
        "tied": np.round(normal, 1),
        "binary": (normal > 0.5).astype(float),
        "line": rng.normal(size=(samples, 1)) * normal[0] + 1e-3 * normal,  # all units say the same
        "heavy": rng.standard_cauchy((samples, units)),
        "classes": 10 * rng.normal(size=(10, units))[rng.integers(0, 10, samples)] + normal,
    }
    return torch.from_numpy(made[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_samples_are_no_near_copies(kind: str) -> None:
    for samples, units in ((20, 8), (100, 3), (400, 8), (400, 64), (5000, 20)):
        assert count_near_copies(ordinary(kind, samples, units)) == 0, (samples, units)
        _, row_of = merge_rows(np.random.default_rng(0).random((samples, 4)) < 0.5)
        assert count_equal_samples(ordinary(kind, samples, units)[:, :2], row_of) == 0


@pytest.mark.parametrize(("images", "copies"), [(20, 20), (200, 2)])
def test_near_copies_are_told_with_their_number_and_the_remedy(images: int, copies: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, c = torch.randn(images, 20, generator=generator), torch.rand(images, 4, generator=generator) < 0.5
    near = a.repeat(copies, 1) + 1e-3 * torch.randn(400, 20, generator=generator)
    with pytest.warns(
        AbsenceWarning, match="about 400 of 400 samples are near copies of others.*--groups auto finds them"
    ):
        label_units(near, c.repeat(copies, 1), list("abcd"), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = torch.arange(images).repeat(copies)
        told = label_units(near, c.repeat(copies, 1), list("abcd"), groups=groups, progress=False)
        label_units(near, c.repeat(copies, 1), list("abcd"), holdout=0, progress=False)  # no p, nothing to warn of
    assert told.settings["groups"] == images


@pytest.mark.parametrize("units", [1, 2])
def test_one_or_two_units_see_copies_with_the_labels(units: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, c = torch.randn(20, units, generator=generator), torch.rand(20, 4, generator=generator) < 0.5
    with pytest.warns(AbsenceWarning, match="about 400 of 400 samples are equal to others in activation and labels"):
        label_units(a.repeat(20, 1), c.repeat(20, 1), list("abcd"), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = torch.rand(400, 4, generator=generator) < 0.5
        label_units(a.repeat(20, 1), other, list("abcd"), progress=False)  # ties of samples with other labels
        label_units(torch.randn(400, units, generator=generator).round(decimals=2), other, list("abcd"), progress=False)

"""The planted problems are what they say: the key holds the absence unit down, and the same seed gives the same bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from absence_plugins.data import planted
from absence_plugins.data.planted import ATTENTION, PROBLEMS, Planted, Sum, dilate
from absence_plugins.data.planted.transformer import SelfAttention

EXACT = [name for name in PROBLEMS if name != "stroke_missing"]
SLOW = {
    "shape_missing_normalized",
    "shape_missing_residual",
    "conjunction",
    "hidden_unit",
    "green_missing",
    "either_missing",
    "segmentation_missing",
    "volume_missing",
    *ATTENTION,
}  # they train for longer


def marked(names: Iterable[str]) -> list[Any]:
    """Names of problems as parameters: those that train for longer are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


def erased(problem: Planted, images: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """The images with the key's pixels blank."""
    blank = torch.tensor(problem.empty).reshape(1, -1, 1, 1).expand_as(images)
    return torch.where(regions, blank, images)


@pytest.mark.slow
def test_all_but_one_have_known_regions() -> None:
    assert len(EXACT) >= 15
    assert all(PROBLEMS[name](0).is_exact == (name in EXACT) for name in PROBLEMS)


@pytest.mark.parametrize("name", marked(PROBLEMS))
def test_labels_regions_and_pixels_fit(name: str) -> None:
    problem = PROBLEMS[name](0)
    low, high = problem.pixels
    for images, labels, regions in (
        (problem.images, problem.labels, problem.regions),
        (problem.pool_images, problem.pool_labels, problem.pool_regions),
    ):
        assert images.shape[0] == len(labels) == len(regions)
        assert regions.shape == (len(images), 1, *images.shape[2:])
        assert regions.dtype == torch.bool
        assert images.min() >= low
        assert images.max() <= high
        with_key = labels == problem.presence_unit
        assert not regions[~with_key].any()
        if problem.is_exact:
            assert regions[with_key].flatten(1).any(1).all()
    assert problem.accuracy >= 0.95
    assert not problem.model.training
    assert "key missing" in repr(problem)


@pytest.mark.parametrize("name", marked(EXACT))
def test_removing_the_key_raises_the_absence_unit(name: str) -> None:
    """The definition of an encoded absence, checked without any attribution; away from the key erasing does not."""
    problem = PROBLEMS[name](0)
    rows = problem.labels == problem.presence_unit
    images, regions = problem.images[rows], problem.regions[rows]
    with torch.no_grad():
        before, after, elsewhere = (
            problem.model(changed)[:, problem.absence_unit]
            for changed in (images, erased(problem, images, regions), erased(problem, images, aside(regions)))
        )
    assert (after > before).float().mean() >= 0.99
    assert (after - before).mean() > 4 * (elsewhere - before).mean()


def aside(regions: torch.Tensor) -> torch.Tensor:
    """The regions half the picture away, along its longest side."""
    axis = 2 if regions.shape[2] > regions.shape[3] else 3
    return regions.roll(regions.shape[axis] // 2, axis)


@pytest.mark.parametrize("name", marked(EXACT))
def test_the_rendered_twin_without_the_key_says_the_same_as_the_region(name: str) -> None:
    """The truth without a rule of ours: the same sample with and without the key."""
    problem = PROBLEMS[name](0)
    assert problem.twins is not None
    has_key = problem.labels == problem.presence_unit
    changed = (problem.twins != problem.images).any(1, keepdim=True)
    with torch.no_grad():
        rise = (problem.model(problem.twins) - problem.model(problem.images))[:, problem.absence_unit]
    assert (rise[has_key] > 0).all()
    assert (rise[~has_key] < 0).all()
    assert changed.flatten(1).any(1).all()
    assert not (changed & ~problem.regions)[has_key].any()  # nothing else changed
    if name != "either_missing":  # there one of two is taken out
        assert (changed == problem.regions)[has_key].float().mean() > 0.99


def with_and_without(problem: Planted) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out images with the key and without it, as many of either."""
    return problem.images[problem.labels == problem.presence_unit], problem.images[
        problem.labels == problem.absence_unit
    ]


@pytest.mark.slow
def test_the_conjunction_needs_the_ring_and_needs_the_cross_missing() -> None:
    """ "ring AND NOT cross": without the ring logit 1 falls, with and without the cross; without the cross it rises."""
    problem = planted.conjunction(0)
    assert problem.needed is not None
    assert problem.needed.flatten(1).any(1).all()
    assert not (problem.needed & problem.regions).any()
    logit = problem.model(problem.images)[:, problem.absence_unit]
    bare = erased(problem, problem.images, problem.needed)
    alone = erased(problem, bare, problem.regions)
    with torch.no_grad():
        logits = problem.model(bare)
        assert (logits[:, problem.absence_unit] < logit).all()
        assert (logits.argmax(1) == 2).float().mean() >= 0.95  # no ring
        assert (problem.model(alone).argmax(1) == 2).float().mean() >= 0.95  # the missing cross alone is not enough
    assert all(problem_.needed is None for problem_ in (planted.shape_missing(0), planted.hidden_unit(0)))


@pytest.mark.slow
def test_the_last_logit_is_the_hidden_unit() -> None:
    problem = planted.hidden_unit(0)
    full, unit = problem.full_model, problem.unit
    assert full is not None
    assert unit is not None
    with torch.no_grad():
        logits, values = problem.model(problem.images), unit.values(full, problem.images)
    assert torch.allclose(logits[:, problem.absence_unit], values, atol=1e-6)
    assert torch.allclose(logits[:, problem.presence_unit], -values, atol=1e-6)
    assert not full.training
    assert "block2" in unit.layer  # the modules are shared, not copied
    assert problem.model.get_submodule("block2_norm1") is full.get_submodule(unit.layer)


@pytest.mark.slow
def test_the_layers_behind_the_hidden_unit_use_it() -> None:
    """Images without the key get the channel of images with it, all else unchanged: the answer follows the channel."""
    problem = planted.hidden_unit(0)
    full, unit = problem.full_model, problem.unit
    assert full is not None
    assert unit is not None
    present, missing = with_and_without(problem)

    def exchanged(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output.index_copy(1, torch.tensor([unit.index]), channel[:, None])

    with torch.no_grad():
        channel = unit.channel(full, present)
        before = full(missing)
        handle = full.get_submodule(unit.layer).register_forward_hook(exchanged)
        after = full(missing)
        handle.remove()
    assert (before.argmax(1) == problem.absence_unit).float().mean() >= 0.95
    assert (after.argmax(1) == problem.presence_unit).float().mean() >= 0.95


@pytest.mark.slow
def test_the_transformer_block_is_that_of_torch() -> None:
    """Written a second time by torch: the same weights give the same tokens, and heads and scaling are right."""
    ours = planted.shape_missing_attention(0).model.get_submodule("block1")
    width = ours.widen.in_features
    with torch.random.fork_rng(devices=[]):
        theirs = torch.nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).eval()
    names = {
        "self_attn.in_proj_": "attention.inwards.",
        "self_attn.out_proj.": "attention.outwards.",
        "linear1.": "widen.",
        "linear2.": "narrow.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    weights = ours.state_dict()
    theirs.load_state_dict({a + end: weights[b + end] for a, b in names.items() for end in ("weight", "bias")})
    tokens = torch.randn(3, 7, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(tokens), atol=1e-5)


@pytest.mark.slow
def test_only_the_named_problems_have_attention() -> None:
    for name in PROBLEMS:
        has_attention = any(isinstance(module, SelfAttention) for module in PROBLEMS[name](0).model.modules())
        assert has_attention == (name in ATTENTION)


@pytest.mark.slow
def test_a_counterfactual_differs_by_the_green_pixel() -> None:
    problem = planted.green_missing(0)
    assert (problem.regions.flatten(1).sum(1) == (problem.labels == problem.presence_unit)).all()
    colored = (problem.images > 0).any(1, keepdim=True)
    assert colored.flatten(1).sum(1).min() >= 8
    assert colored.flatten(1).sum(1).max() <= 12
    present, _ = with_and_without(problem)
    missing = problem.pool_images[problem.pool_labels == problem.absence_unit]
    nearest = missing[torch.cdist(present.flatten(1), missing.flatten(1)).argmin(1)]
    changed = (present - nearest).abs().amax(1, keepdim=True) > 0.1 + 1e-6
    assert torch.equal(changed, problem.regions[problem.labels == problem.presence_unit])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "conjunction",
        "hidden_unit",
        "shape_missing_attention",
        "green_missing",
        *list(PROBLEMS)[10:],
    ],
)
def test_another_seed_is_learned_as_well(name: str) -> None:
    problem = PROBLEMS[name](1)
    assert problem.accuracy >= 0.95
    present, missing = with_and_without(problem)
    regions = problem.regions[problem.labels == problem.presence_unit]
    with torch.no_grad():
        with_key, without, blank = (
            problem.model(images)[:, problem.absence_unit]
            for images in (present, missing, erased(problem, present, regions))
        )
    assert (blank > with_key).float().mean() >= 0.99
    assert with_key.mean() < 0 < without.mean()


SEEDED = [
    "column_missing",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("shape_missing_dead", "shape_missing_attention")),
]


@pytest.mark.parametrize("name", SEEDED)
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(name: str) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    problem: Any = PROBLEMS[name]
    train = problem.__wrapped__
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(train(7))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    one, two = found
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.pool_images, two.pool_images)
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, two.model.state_dict()[name]), name
    assert not torch.equal(one.images, problem(0).images)


def test_sum_adds_up_the_last_axis() -> None:
    assert torch.equal(Sum()(torch.tensor([[1.0, 2.0], [3.0, -3.0]])), torch.tensor([3.0, 0.0]))


def test_dilate_grows_in_all_directions() -> None:
    one = torch.zeros(1, 1, 7, 7, dtype=torch.bool)
    one[0, 0, 3, 3] = True
    assert dilate(one, 2).sum() == 25
    assert dilate(one, 0).sum() == 1

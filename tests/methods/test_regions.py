"""Superpixels, the regions that a map names, and what changing them does to an output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from absence_plugins.core.filling import fill
from absence_plugins.methods.regions import (
    RegionTest,
    RegionTests,
    measure_regions,
    place_elsewhere,
    segment,
    strongest_regions,
)
from absence_plugins.methods.regions.segments import connected_pieces

SUPPRESSOR = (slice(8, 16), slice(16, 24))  # rows and columns


def disk(side: int = 48) -> Tensor:
    """A bright disk on a dark ramp with some grain [3, side, side]."""
    down, right = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inside = (down - 20) ** 2 + (right - 26) ** 2 < 120
    grain = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)) * 0.05
    return right / (4 * side) + 0.6 * inside + grain


def suppressed(images: Tensor) -> Tensor:
    """An output that the suppressor's pixels hold down by their sum, and a target that all pixels raise: [B, 2]."""
    here = images[:, 0, *SUPPRESSOR].flatten(1).sum(1)
    return torch.stack([10 - here + 0.01 * images.flatten(1).sum(1), images.flatten(1).sum(1)], 1)


def box(rows: slice, columns: slice, side: int = 32) -> Tensor:
    where = torch.zeros(side, side, dtype=torch.bool)
    where[rows, columns] = True
    return where


def test_superpixels_are_connected_and_follow_the_color() -> None:
    image = disk()
    labels = segment(image, 36)
    assert sorted(labels.unique().tolist()) == list(range(int(labels.max()) + 1))
    assert 20 <= int(labels.max()) + 1 <= 50
    for label in labels.unique():
        assert ndimage.label((labels == label).numpy())[1] == 1
    inside = image[0] > 0.6
    mixed = [float(inside[labels == label].float().mean()) for label in labels.unique()]
    assert all(min(part, 1 - part) < 0.15 for part in mixed)


def test_superpixels_are_the_same_again_and_of_a_normalized_image() -> None:
    image = disk()
    assert torch.equal(segment(image, 30), segment(image, 30))
    assert torch.equal(segment(image, 30), segment((image - 0.45) / 0.22, 30))
    assert torch.equal(segment(image[0], 30), segment(image[:1], 30))
    assert int(segment(torch.ones(3, 5, 7), 1).max()) == 0
    assert int(segment(torch.zeros(1, 40, 20), 8).max()) == 7  # nothing to follow: a grid


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.zeros(1, 3, 8, 8), {}, "of a batch one sample"),
        (torch.full((8, 8), torch.nan), {}, "NaN"),
        (torch.zeros(8, 8), {"count": 0}, "count=0"),
        (torch.zeros(8, 8), {"compactness": 0.0}, "compactness=0"),
    ],
)
def test_bad_images(image: Tensor, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment(image, **options)  # type: ignore[arg-type]


def test_neighbors_of_strong_evidence_are_one_region() -> None:
    evidence = torch.zeros(32, 32)
    evidence[:8, :8], evidence[:8, 8:12] = 1.0, 0.7  # two cells of one region
    evidence[24:, 24:] = 3.0
    evidence[16:20, 16:20] = -9.0
    first, second = strongest_regions(evidence, 4)
    assert torch.equal(first, box(slice(24, 32), slice(24, 32)))
    assert torch.equal(second, box(slice(0, 8), slice(0, 12)))
    assert torch.equal(strongest_regions(evidence, 4, 1)[0], first)


def test_regions_keep_to_their_size_and_apart() -> None:
    noise = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(1))
    labels = segment(disk(), 64)
    found = strongest_regions(noise, labels, 6, share=(0.03, 0.1))
    assert len(found) == 6
    assert int(found.sum(0).max()) == 1
    sums = [float(noise.sum(0)[where].sum()) for where in found]
    assert sums == sorted(sums, reverse=True)
    assert min(sums) > 0
    for where in found:
        assert ndimage.label(where.numpy())[1] == 1
        assert float(where.float().mean()) <= 0.1


def test_small_pieces_grow_and_large_ones_are_left_out() -> None:
    evidence = torch.zeros(16, 16)
    evidence[4:6, 4:6] = 1.0
    evidence[4:6, 6:12] = 0.1
    assert int(strongest_regions(evidence, 2, 1, share=(0.0, 0.2))[0].sum()) == 4
    assert int(strongest_regions(evidence, 2, 1, share=(0.05, 0.2))[0].sum()) == 16  # at least 12.8 pixels
    assert strongest_regions(torch.ones(16, 16), 16).all()  # larger than allowed, but all there is
    assert strongest_regions(-evidence, 2).shape == (0, 16, 16)


def test_a_suppressor_in_closed_form() -> None:
    """Blanked, it frees its output by its 64 pixels less a hundredth; elsewhere the output falls by a hundredth of 64."""
    x = torch.ones(1, 32, 32)
    regions = torch.stack([box(*SUPPRESSOR), box(slice(24, 32), slice(0, 8))])
    found = measure_regions(suppressed, x, regions, x * 0, target=1)
    own, other = found.tests
    assert own.before == pytest.approx(10 - 64 + 10.24)
    assert own.change == pytest.approx(64 - 0.64)
    assert (own.target_before, own.target_change) == (1024, -64)
    assert own.random_change == pytest.approx(-0.64, abs=1e-4)  # no place shares a pixel with the region itself
    assert own.random_sd == pytest.approx(0, abs=1e-4)
    assert own.is_borne
    assert not other.is_borne
    assert other.verdict().startswith("The network does not bear the map out: the output fell")
    assert found.best == 0
    assert torch.equal(own.image[0] == 0, regions[0])


def test_missing_content_in_closed_form() -> None:
    x, reference = torch.zeros(1, 32, 32), torch.ones(1, 32, 32)
    found = measure_regions(suppressed, x, box(*SUPPRESSOR)[None], reference, rises=False)
    assert found.tests[0].change == pytest.approx(-64 + 0.64)
    assert found.tests[0].is_borne
    assert found.is_borne
    assert found.p == pytest.approx(1 / 20)
    assert found.how == "pasted"


@pytest.mark.parametrize("kind", ["grey", "blurred", "inpainted"])
def test_fillings_are_made_anew_at_every_place(kind: str) -> None:
    x = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(2))
    where = box(slice(3, 9), slice(4, 10), 24)
    found = measure_regions(lambda images: images.flatten(1)[:, ::7].sum(1), x, where[None], kind, draws=11, seed=3)  # type: ignore[arg-type]
    values = []
    for shift in place_elsewhere(where, 11, 3):
        values.append(float(fill(x, where.roll(shift, (0, 1)), kind).flatten()[::7].sum()))  # type: ignore[arg-type]
    assert found.tests[0].random_values.tolist() == pytest.approx(values, abs=1e-3)
    assert torch.allclose(found.tests[0].image, fill(x, where, kind), atol=1e-4)  # type: ignore[arg-type]


def test_each_region_is_about_its_own_output() -> None:
    x = torch.ones(1, 32, 32)
    both = torch.stack([box(*SUPPRESSOR)] * 2)
    found = measure_regions(suppressed, x, both, x * 0, columns=[0, 1], target=1)
    assert [test.column for test in found.tests] == [0, 1]
    assert found.tests[1].change == found.tests[1].target_change == -64
    assert [test.is_borne for test in found.tests] == [True, False]


def test_other_fillings_can_disagree() -> None:
    x = torch.zeros(1, 32, 32)
    x[:, *SUPPRESSOR] = 1.0
    where = box(slice(8, 16), slice(16, 28))
    found = measure_regions(
        lambda images: -images[:, 0, 10, 26], x, where[None], x * 0 - 1, others=("grey", "inpainted")
    )
    test = found.tests[0]
    assert test.change == 1.0
    assert test.others["grey"] == pytest.approx(-float(x.mean()))
    assert test.disagreeing == ("grey", "inpainted")


def make(gain: float, elsewhere: list[float]) -> RegionTest:
    return RegionTest(
        torch.ones(2, 2, dtype=torch.bool), torch.zeros(1, 2, 2), True, 0.0, gain, torch.tensor(elsewhere)
    )


def test_the_strongest_of_many_needs_more_than_one_alone() -> None:
    """Elsewhere each region moves its output far in one of twenty draws: never together, so the maximum does often."""
    quiet = make(1.0, [3.0 * (draw == 0) for draw in range(19)])
    assert RegionTests((quiet,), "grey").p == pytest.approx(2 / 20)
    own = make(1.0, [0.4 * (-1) ** draw for draw in range(19)])
    several = [make(0.1, [3.0 * (draw == place) for draw in range(19)]) for place in range(1, 10)]
    found = RegionTests((own, *several), "grey")
    assert own.is_borne
    assert found.best == 0
    assert found.p == pytest.approx(10 / 20)
    assert not found.is_borne
    assert "the strongest of 10 regions elsewhere" in found.verdict()
    alone = RegionTests((own,), "grey")
    assert alone.is_borne
    assert alone.verdict() == "The network bears the map out."


def test_p_values_written_a_second_time() -> None:
    generator = torch.Generator().manual_seed(4)
    tests = [make(float(gain), torch.randn(29, generator=generator).tolist()) for gain in (0.5, 2.0, 3.5)]
    expected = []
    for test in tests:
        reached = 0
        for draw in range(29):
            scores = []
            for other in tests:
                values = np.array([other.gain, *other.gains.tolist()])
                scores.append((values[draw + 1] - values.mean()) / values.std())
            values = np.array([test.gain, *test.gains.tolist()])
            reached += max(scores) >= (test.gain - values.mean()) / values.std()
        expected.append((1 + reached) / 30)
    assert RegionTests(tuple(tests), "grey").p_values == pytest.approx(expected)
    assert expected[0] > expected[2]


def test_under_the_null_few_are_borne_out() -> None:
    """Of 200 images whose regions are like any others, about one in twenty has a region with p of 0.05."""
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(200, 4, 20, generator=generator).exp()
    found = [RegionTests(tuple(make(float(row[0]), row[1:].tolist()) for row in image), "grey") for image in values]
    assert 2 <= sum(min(tests.p_values) <= 0.05 for tests in found) <= 18


def test_the_verdict_on_one_region_goes_by_its_p_value() -> None:
    """Far beyond two standard deviations, but one of 19 places goes further: p = 0.1."""
    found = RegionTests((make(3.0, [5.0] + [0.0] * 18),), "grey")
    assert found.tests[0].is_borne
    assert (found.p, found.is_borne) == (pytest.approx(0.1), False)
    assert found.verdict().startswith("That is no more than chance")
    few = RegionTests((make(3.0, [0.1 * draw for draw in range(10)]),) * 2, "grey")
    assert (few.p, few.is_borne) == (pytest.approx(1 / 11), False)
    assert few.verdict() == "Undecided: with 10 other places p cannot be 0.05 (p = 0.09)."


def test_a_place_is_drawn_once() -> None:
    where = torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.1  # nearly every shift shares a pixel
    shifts = place_elsewhere(where, 100, 0)
    assert len(set(shifts)) == 100
    shared = [int((where & where.roll(shift, (0, 1))).sum()) for shift in shifts]
    assert shared == sorted(shared)
    rows = box(slice(0, 2), slice(0, 4), 4)
    assert sorted({down for down, _ in place_elsewhere(rows, 99, 0)}) == [1, 2, 3]  # sideways the rows stay the same
    assert place_elsewhere(torch.ones(4, 4, dtype=torch.bool), 9, 0) == [(0, 0)]


def test_few_places_cannot_bear_a_map_out() -> None:
    """Of 15 other places on 4 x 4 pixels, each once: p = 1/16, where 19 draws of them would have said 1/20."""
    x = torch.ones(1, 4, 4)
    found = measure_regions(
        lambda images: -images[:, 0, 0, 0], x, box(slice(0, 1), slice(0, 1), 4)[None], x * 0, draws=99
    )
    assert len(found.tests[0].random_values) == 15
    assert (found.p, found.is_borne) == (1 / 16, False)


def test_a_change_of_rounding_bears_nothing_out() -> None:
    """The output hangs on the region alone, by a hundred-thousandth of its value."""
    x = torch.ones(1, 32, 32)

    def output(size: float) -> RegionTests:
        return measure_regions(
            lambda images: 10 - size * images[:, 0, *SUPPRESSOR].flatten(1).mean(1), x, box(*SUPPRESSOR)[None], x * 0
        )

    assert not output(1e-4).is_borne
    assert "the output did not move" in output(1e-4).verdict()
    assert output(0.1).is_borne
    assert output(0.1).tests[0].least == pytest.approx(1e-3 * 10)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_are_refused(value: float) -> None:
    """A NaN of one region made every other one of the same image significant."""
    x = torch.ones(1, 32, 32)

    def output(images: Tensor) -> Tensor:
        values = images.flatten(1).sum(1)
        return torch.stack([values, torch.where(images[:, 0, 0, 0] == 0, value, values)], 1)

    regions = torch.stack([box(slice(0, 8), slice(0, 8)), box(*SUPPRESSOR)])
    assert len(measure_regions(output, x, regions, x * 0).tests) == 2  # the second output is not asked for
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure_regions(output, x, regions, x * 0, columns=[1, 0])


def test_no_region() -> None:
    x = torch.zeros(1, 8, 8)
    found = measure_regions(lambda images: images.sum((1, 2, 3)), x, torch.zeros(0, 8, 8, dtype=torch.bool), x)
    assert (found.best, found.p, found.is_borne) == (None, 1.0, False)
    assert found.verdict() == "The map names no region, so there is nothing to test."
    empty = measure_regions(lambda images: images.sum((1, 2, 3)), x, torch.zeros(1, 8, 8, dtype=torch.bool), x)
    assert empty.tests[0].verdict() == "The map names no place, so there is nothing to test."


def test_results_read_as_numbers_and_words() -> None:
    x = torch.ones(1, 32, 32)
    found = measure_regions(suppressed, x, box(*SUPPRESSOR)[None], "grey", target=1)
    assert found.table().splitlines()[0].split()[:2] == ["region", "of"]
    plain = found.to_dict()
    assert plain["how"] == "grey"
    assert plain["tests"][0]["pixels"] == 64
    assert "6.2%" in repr(found.tests[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "black"}, "source='black'"),
        ({"source": torch.zeros(1, 4, 4)}, "source has shape"),
        ({"columns": [0, 1]}, "2 columns for 1 regions"),
        ({"columns": [5]}, "output 5 does not exist"),
        ({"target": 2}, "output 2 does not exist"),
        ({"draws": 0}, "draws=0"),
        ({"regions": torch.ones(32, 32, dtype=torch.bool)}, "regions have shape"),
        ({"regions": torch.ones(1, 32, 32)}, "must be boolean"),
    ],
)
def test_bad_questions(options: dict[str, object], message: str) -> None:
    x = torch.ones(1, 32, 32)
    arguments = {"regions": box(*SUPPRESSOR)[None], "source": "grey", **options}
    with pytest.raises((ValueError, TypeError), match=message):
        measure_regions(suppressed, x, **arguments)  # type: ignore[arg-type]


def test_no_gradient_hangs_on_the_result() -> None:
    x = torch.ones(1, 32, 32, requires_grad=True)
    test = measure_regions(suppressed, x, box(*SUPPRESSOR)[None], "inpainted").tests[0]
    assert not test.image.requires_grad
    assert x.grad is None


def test_inputs_and_random_state_are_as_before() -> None:
    x = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    kept, state, numpy_state = x.clone(), torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    measure_regions(suppressed, x, box(*SUPPRESSOR)[None], "inpainted")
    segment(x, 9)
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.random.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("values", [2, 3, 60])
def test_connected_pieces_are_those_of_scipy_in_their_order(values: int) -> None:
    sparse, csgraph = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.sparse.csgraph")
    draw = np.random.default_rng(values)
    for shape in ((1, 9), (30, 1), (5, 7), (64, 50)):
        labels = np.kron(draw.integers(0, values, shape), np.ones(draw.integers(1, 4, 2), int))
        number = np.arange(labels.size).reshape(labels.shape)
        down, right = labels[1:] == labels[:-1], labels[:, 1:] == labels[:, :-1]
        one = np.concatenate([number[:-1][down], number[:, :-1][right]])
        other = np.concatenate([number[1:][down], number[:, 1:][right]])
        graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(labels.size, labels.size))
        expected = csgraph.connected_components(graph, directed=False)[1].reshape(labels.shape)
        assert np.array_equal(connected_pieces(labels), expected)

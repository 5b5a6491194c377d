"""``insertion_test``: lowest patches pasted into images on which a unit is high, beside every control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from absence_plugins.core.checks import check_choice, check_integer, check_number, check_running, check_seed
from absence_plugins.core.devices import device_of
from absence_plugins.core.empties import blank_value
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import keep_state
from absence_plugins.methods.identity import (
    check_seen,
    digest_of,
    identify_data,
    identify_model,
)
from absence_plugins.methods.insertion.copies import FEWEST_IMAGES, choose_disjoint, find_members
from absence_plugins.methods.insertion.measure import Measure
from absence_plugins.methods.insertion.passes import Passes
from absence_plugins.methods.insertion.progress import FILE, Progress, identify_patches, open_test
from absence_plugins.methods.insertion.result import InsertionResult
from absence_plugins.methods.insertion.statistics import ARMS, PROTOCOLS, unit_results
from absence_plugins.methods.patches import ExtremePatches
from absence_plugins.methods.patches.images import image_at
from absence_plugins.methods.ranks import own_share, ranks, wait


def insertion_test(
    model: nn.Module,
    layer: str | Layer,
    dataset: Any,
    patches: ExtremePatches,
    *,
    images_per_unit: int = 100,
    protocol: str = "controlled",
    test: str = "t",
    alpha: float = 0.05,
    blank: Any = 0.0,
    split_seed: int = 0,
    seed: int = 0,
    groups: Any = None,
    batch_size: int = 64,
    checkpoint: Path | str | None = None,
    save_every: float = 60.0,
    workers: int = 0,
    progress: bool = True,
) -> InsertionResult:
    """Does a unit's lowest patch, pasted into images on which the unit is high, pull it down more than other patches
    do?

    For every unit the ``images_per_unit`` images on which it is highest get, at the same place, one patch per arm: one
    of the unit's lowest, of its highest, a random one, one of its median ones, a blank one. The unit is flagged as an
    encoded absence if the lowest patch pulls it further down than *every* control, over images (paired) and over
    patches, after Benjamini-Hochberg over the units, and if painting the lowest patches over in their own images
    raises the unit more than painting over other places (the mirror test). Of every image at most one patch is used.

    Source: Hesse et al., ICML 2026, section 5; ``protocol="paper"`` is theirs: hard edges, corners, patches and images
    from the same data, an unpaired two-sided t-test of random against lowest in half precision, no correction.

    Args:
        model: runs in evaluation mode up to the layer; it is as before afterwards.
        layer: the one that was scanned; it is read as the scan read it.
        dataset: the one that was scanned.
        patches: of :func:`find_extreme_patches`. Images that it did not scan are tested on; if it scanned all, one
            half of the data set (``split_seed``) is scanned again for patches, and the other half is tested on.
        images_per_unit: fewer are used where there are fewer.
        protocol: "controlled" or "paper".
        test: over images: "t" (paired t) or "wilcoxon".
        alpha: false discovery rate of the flagged units.
        blank: an empty pixel as the model sees it: a number, one per channel, or a torchvision ``Normalize``.
        split_seed: of the halves.
        seed: of places and random patches.
        groups: [N] integers or strings, equal for images that are not independent: copies, crops, frames of one video.
            A group lies in one half, one of its images is tested on, and its patches count once ("controlled"). Without
            groups exact copies in a tensor are found, with an :class:`~absence_plugins.core.AbsenceWarning`.
        batch_size: images per forward.
        checkpoint: a folder for the state of the test (it may be the scan's); a test that was stopped is resumed,
            to the same bits. ``test`` and ``alpha`` come after it and may change.
        save_every: seconds between two saves of the state.
        workers: processes that read images ahead.
        progress: show progress bars.

    Returns:
        An :class:`InsertionResult`: one :class:`UnitInsertion` per unit.

    Sign: ``effect`` = mean(random) - mean(lowest); positive: the lowest patch pulls the unit down.

    Raises:
        ValueError: another layer than was scanned, a setting that does not exist, fewer than three images to test on,
            a checkpoint of another test.

    >>> generator = torch.Generator().manual_seed(0)
    >>> images = (torch.rand(40, 1, 8, 8, generator=generator) > 0.97).float()  # few bright dots
    >>> from absence_plugins.methods.patches import find_extreme_patches
    >>> hates_dots = nn.Conv2d(1, 1, 1)
    >>> hates_dots.weight.data, hates_dots.bias.data = torch.full((1, 1, 1, 1), -1.0), torch.ones(1)
    >>> found = find_extreme_patches(hates_dots, "", images, k=4, size=3, stride=1, images=range(20), progress=False)
    >>> result = insertion_test(hates_dots, "", images, found, images_per_unit=20, progress=False)
    >>> result[0].flagged, result[0].effect > 0
    (True, True)
    """
    images_per_unit = _check(layer, patches, images_per_unit, protocol, test)
    check_running(seed, workers, save_every)
    check_seed(split_seed, "split_seed")
    check_integer("batch_size", batch_size)
    check_number("alpha", alpha, 0, 1)
    members = find_members(dataset, groups)
    with own_folder(checkpoint):
        if protocol == "paper":
            chosen, numbers = patches, list(range(len(dataset)))
        else:
            rescan = None if checkpoint is None else Path(checkpoint) / "rescan"
            chosen, numbers = choose_disjoint(
                model, dataset, patches, members, split_seed, batch_size, rescan, save_every, workers, progress
            )
        if len(numbers) < FEWEST_IMAGES:
            independent = "" if len(torch.unique(members)) == len(members) else " independent"
            raise ValueError(
                f"{len(numbers)}{independent} images are left to test on; at least {FEWEST_IMAGES} are needed"
            )
        first = image_at(dataset, numbers[0])
        device, at = device_of(model, first), patches.at
        slots, arms = min(images_per_unit, len(numbers)), ARMS[protocol]
        empty = blank_value(blank, first[None])
        blocks = [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
        state = Progress.empty(chosen, len(numbers), len(blocks), slots, len(arms) - 1)
        if protocol == "paper":
            state.mirrored.fill_(1)  # it has no mirror test
        keeper = None
        if checkpoint is not None:
            settings = {
                "layer": at.name,
                "protocol": protocol,
                "images": f"{len(numbers)} of {len(dataset)}, {digest_of(torch.tensor(numbers))}",
                **dict(images_per_unit=images_per_unit, batch_size=batch_size, seed=seed),
                **{name: chosen.settings[name] for name in ("size", "reduce", "channels", "side")},
                "blank": digest_of(empty),
            }
            belongs = identify_patches(chosen) | identify_model(model, first[None], at)
            belongs |= identify_data(dataset, pixels=first)
            keeper = open_test(checkpoint, settings, belongs, state, save_every)
            if not keeper.has_compared("data", "identity"):
                check_seen(state.seen, lambda number: image_at(dataset, number), numbers, checkpoint)
            wait()  # all ranks have read before anyone writes: they share out the same rest
        with (
            keep_state(keeper, f"{FILE}-rank-{ranks()[0]:05d}", state.tensors) as save,
            at.reading(model) as run,
            own_share(),
        ):
            measure = Measure(run, at, chosen.units, device, batch_size)
            if not state.is_done:
                measure.settle(model, first, int(chosen.settings["size"]))
            passes = Passes(measure, chosen, dataset, empty, protocol, seed, workers, progress, save, state)
            passes.find_highest(blocks)
            state.share()
            plans = [passes.test_part(part) for part in range(len(state.cut))]
            state.share()
    values = torch.cat([state.best.scores[:, :, None], state.values], 2)
    sources = {arm: torch.cat([plan.sources[arm] for plan in plans]) for arm in plans[0].sources}
    if protocol != "paper":
        sources = {arm: members[images] for arm, images in sources.items()}  # patches of one group are one sample
    mirror = state.mirror if protocol == "controlled" else None
    units = unit_results(chosen.units, values, sources, mirror, protocol, test, alpha)
    return InsertionResult(tuple(units), values, state.best.keys, arms, protocol, at.name, alpha, chosen)


def _check(layer: str | Layer, patches: ExtremePatches, images_per_unit: int, protocol: str, test: str) -> int:
    """The checked ``images_per_unit``."""
    if Layer.of(layer).name != patches.layer:
        raise ValueError(f"the patches are those of layer {patches.layer!r}, not of {Layer.of(layer).name!r}")
    if isinstance(layer, Layer) and layer != patches.at:
        raise ValueError(f"the patches were scanned with {patches.at!r}, not with {layer!r}; pass the same layer")
    check_choice("protocol", protocol, PROTOCOLS)
    check_choice("test", test, ("t", "wilcoxon"))
    return check_integer("images_per_unit", images_per_unit, least=FEWEST_IMAGES)

"""``absence-plugins experiment reichardt`` and ``colored-pixels``: the published toy problems, with their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from absence_plugins.commands.provenance import provenance
from absence_plugins.core.files import write_json
from absence_plugins.core.shell import write_command
from absence_plugins.data.colored_pixels import colored_pixel_net, colored_pixels
from absence_plugins.data.reichardt import reichardt_detector, reichardt_frames
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.report import Page, write_page
from absence_plugins.report.pages.patch_rows import HOW_TO_READ, unit_row

LAYER = "2"  # the second convolution, of both networks
FIRST_FRAME, SECOND_FRAME = (0.25, 0.55, 1.0), (1.0, 0.45, 0.2)  # blue, then orange
PUBLISHED_PIXELS = {"lowest": (-3.21, -6.88), "highest": (6.99, 3.18)}
IMAGES, PIXEL_SEEDS = 160, 5


def run_reichardt(out: Path, *, seed: int = 0, progress: bool = True) -> Path:
    """The motion detector written by hand: scores of its extreme patches, exactly those that are published."""
    model = reichardt_detector()
    frames, _ = reichardt_frames()
    patches = find_extreme_patches(model, LAYER, frames, k=8, size=6, stride=1, seed=seed, progress=progress)
    tested = insertion_test(model, LAYER, frames, patches, images_per_unit=20, seed=seed, progress=progress)
    names = ("Unit 0: no motion from right to left", "Unit 1: motion")
    page = Page(
        title="A motion detector that encodes an absence",
        lead="Two frames go in; blue is where the bar was, orange where it is. Unit 0 is highest for bars that move right or enter, and "
        "falls below zero only for bars that move left: it encodes that nothing moves from right to left. Unit 1 is "
        "high for motion of any kind, and its lowest patches are empty.",
        rows=tuple(
            unit_row(patches, unit, frames, _two_frames, tested=tested, name=names[unit]) for unit in patches.units
        ),
        how_to_read=HOW_TO_READ,
        footer="Weights by hand: Hesse et al., ICML 2026. Published extremes with 6x6 patches: unit 0 0.142857 and -0.142857, unit 1 "
        "0.142857 and 0.",
        provenance=provenance(seed=seed, command=write_command("experiment", "reichardt", seed=seed)),
    )
    path = write_page(page, out)
    _write(out, {"patches": patches.to_dict(), "insertion": tested.to_dict()})
    return path


def run_colored_pixels(out: Path, *, seed: int = 0, progress: bool = True) -> Path:
    """Networks trained to see whether green is missing: the absence of green, from every seed."""
    seeds = range(seed, seed + PIXEL_SEEDS)
    runs = [pixel_run(number) for number in tqdm(seeds, desc="training and scanning", disable=not progress)]
    first = runs[0]
    rows = [
        unit_row(first["patches"], unit, first["images"], lambda pixels: pixels, tested=first["tested"], name=name)
        for unit, name in enumerate(("Unit 0: green", "Unit 1: no green"))
    ]
    recovered = sum(run["recovered"] for run in runs)
    lines = "; ".join(
        f"seed {number}: {run['lowest'][0]:.2f} and {run['lowest'][1]:.2f}, {run['highest'][0]:.2f} and "
        f"{run['highest'][1]:.2f}"
        for number, run in zip(seeds, runs, strict=True)
    )
    low, high = PUBLISHED_PIXELS["lowest"], PUBLISHED_PIXELS["highest"]
    page = Page(
        title="Colored pixels: a unit that fires because green is missing",
        lead=f"Class 0 has a green pixel among its colored ones, class 1 has none. There is nothing to see in class 1, so its unit can only "
        f"encode an absence: its lowest patches are those with green. Recovered in {recovered} of {len(runs)} "
        f"trainings.\n\nMeans of the three lowest patches of units 0 and 1, then of the three highest: {lines}. "
        f"Published run: {low[0]} and {low[1]}, {high[0]} and {high[1]}. Ours are larger because training continues "
        "until every start has either converged or died; the signs and their order are what counts.",
        rows=tuple(rows),
        how_to_read=HOW_TO_READ,
        footer="Set-up: Hesse et al., ICML 2026. Shown: the first seed.",
        provenance=provenance(seed=seed, command=write_command("experiment", "colored-pixels", seed=seed)),
    )
    path = write_page(page, out)
    numbers = [
        {key: run[key] for key in ("seed", "accuracy", "starts", "recovered", "lowest", "highest", "q")} for run in runs
    ]
    _write(out, {"runs": numbers, "published": PUBLISHED_PIXELS})
    return path


def pixel_run(seed: int) -> dict[str, Any]:
    """Train one network and look at its extreme patches; ``recovered``: only unit 1 is lowest on green."""
    network = colored_pixel_net(seed)
    images, _ = colored_pixels(IMAGES, seed=seed + 17)
    patches = find_extreme_patches(network.model, LAYER, images, k=8, size=7, stride=1, seed=seed, progress=False)
    tested = insertion_test(network.model, LAYER, images, patches, images_per_unit=50, seed=seed, progress=False)
    high, low = (has_green(side).float().mean(1).tolist() for side in patches.cut(images))
    return {
        "seed": seed,
        "accuracy": network.accuracy,
        "starts": network.starts,
        "patches": patches,
        "tested": tested,
        "images": images,
        "recovered": low[1] == 1.0 and high[1] == 0.0 and low[0] == 0.0 and tested.of(1).flagged,
        "lowest": patches.lowest.scores[:, :3].mean(1).tolist(),
        "highest": patches.highest.scores[:, :3].mean(1).tolist(),
        "q": [one.q for one in tested],
    }


def has_green(patches: Tensor) -> Tensor:
    """Whether a patch [..., 3, H, W] has a green pixel.

    >>> has_green(torch.tensor([0.0, 1.0, 0.0]).reshape(3, 1, 1)).item()
    True
    """
    green = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    return (patches == green).all(-3).flatten(-2).any(-1)


def _two_frames(patches: Tensor) -> Tensor:
    """Two frames [N, 2, H, W] as one picture [N, 3, H, W]: first blue, then orange."""
    colors = torch.tensor([FIRST_FRAME, SECOND_FRAME])
    return torch.einsum("nfhw,fc->nchw", patches, colors).clamp(0, 1)


def _write(out: Path, results: dict[str, Any]) -> None:
    write_json(out / "results.json", results)

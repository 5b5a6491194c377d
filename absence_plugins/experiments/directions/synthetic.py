"""``absence-plugins experiment directions-synthetic``: known concepts, and who recovers them.

The published set-up (16 dimensions, 3 concepts, 2 distractors, 3,000 images of 2 positions), fresh data per seed:
the default recipe and the baselines, on the same data in the same run.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.commands.provenance import provenance
from absence_plugins.core.checks import check_integer
from absence_plugins.core.files import write_json
from absence_plugins.data.synthetic_directions import synthetic_directions
from absence_plugins.experiments.directions.compare import MethodResult, compare_methods
from absence_plugins.experiments.directions.recovery import COSINE, IOU, RMSE
from absence_plugins.report import Page, Panel, Row, write_page

LEAD = """Features are built from three concepts along random directions, two distractors and a constant; every position
shows one concept. A method sees the features and, ours only, a linear head that was trained to name the pair of
concepts of an image. It has to find, without labels, where each concept is, the direction that encodes it, and how
much of it there is.

Recovered means: for all three concepts intersection over union at least {iou}, cosine with the true direction at
least {cosine}, and an error of the signal values of at most {rmse}, where a concept's signal goes from 0 to 5. The
baselines were given the threshold, the sign and the scale of every component that fit the truth best, and Pattern-CAV
the labels."""


def run_synthetic(
    out: Path | str, *, seeds: int = 5, quick: bool = False, progress: bool = True, command: str = ""
) -> Path:
    """Compare all methods on fresh data sets and write ``index.html`` and ``results.json`` into a folder.

    Args:
        out: the folder.
        seeds: number of data sets, numbered from 0.
        quick: small data, to see that it runs.
        progress: show a progress bar.
        command: how to make the page again, for its foot.

    Returns:
        The page's path.

    Raises:
        ValueError: fewer than one data set.
    """
    check_integer("seeds", seeds)
    result = compare_methods(range(seeds), quick=quick, progress=progress)
    lead = LEAD.format(iou=IOU, cosine=COSINE, rmse=RMSE)
    if quick:
        lead += "\n\nThis was a quick run on small data, which shows that it works, not how well."
    truth = synthetic_directions(0, images=3).encoding
    rows = [
        _row(one, truth.T @ truth) for one in sorted(result.methods, key=lambda one: (-one.success, -one.medians[1]))
    ]
    page = Page(
        "Who recovers known directions?",
        lead,
        tuple(rows),
        how_to_read=(
            (
                "Cosines",
                "Rows: true concepts. Columns: the directions found for them, in the same order. A perfect result is "
                "red on the diagonal and looks like the truth beside it.",
            ),
            (
                "IoU",
                "Intersection over union of the positions at which a detector fires and those that show its concept.",
            ),
        ),
        provenance=provenance(
            seed=0, command=command or f"absence-plugins experiment directions-synthetic --seeds {seeds}"
        ),
    )
    path = write_page(page, out)
    write_json(Path(out) / "results.json", result.to_dict())
    return path


def _row(one: MethodResult, truth: Tensor) -> Row:
    iou, cosine, rmse = one.medians
    first = one.recoveries[0]
    order = torch.tensor(first.matched)
    words: dict[str, Any] = {"positive": "along the concept", "negative": "against it", "limit": 1.0}
    found = Panel("signed", first.cosines[:, order], "Found", "cosines of true and found, first data set", **words)
    wanted = Panel("signed", truth, "Truth", "cosines of the true directions", **words)
    count = len(one.recoveries)
    return Row(
        one.name[0].upper() + one.name[1:],
        f"All three concepts recovered in {sum(r.ok for r in one.recoveries)} of {count} data sets.",
        (found, wanted),
        facts=(
            ("recovered", f"{100 * one.success:.0f} % of {count}"),
            ("IoU, worst concept", f"{iou:.3f}"),
            ("cosine, worst concept", f"{cosine:.3f}"),
            ("RMSE, worst concept", f"{rmse:.2f}"),
            ("seconds", f"{statistics.median(one.seconds):.1f}"),
        ),
    )

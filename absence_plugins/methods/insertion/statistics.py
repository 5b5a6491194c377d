"""From the values of every arm to what is said of every unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.insertion.evidence import corrected, effect_size, paired_p, patch_p, published_p, verdict
from absence_plugins.methods.insertion.result import UnitInsertion

PROTOCOLS = ("controlled", "paper")
ARMS = {
    "controlled": ("clean", "lowest", "highest", "random", "median", "blank"),
    "paper": ("clean", "lowest", "highest", "random"),
}
CONTROLS = ("random", "median", "blank")


def unit_results(
    units: Sequence[int],
    values: Tensor,
    sources: dict[str, Tensor],
    mirror: Tensor | None,
    protocol: str,
    test: str,
    alpha: float,
) -> list[UnitInsertion]:
    """Statistics of every unit, corrected over all of them.

    Args:
        units: their numbers in the layer.
        values: [units, slots, arms], what each unit said of each image with what was pasted.
        sources: by arm, [units, slots]: the number of the image that the patch comes from.
        mirror: [units, patches, 2], or None with the paper's protocol.
        protocol: which arms there are, and how they are compared.
        test: over images.
        alpha: false discovery rate.

    Sign: ``effect`` above 0 is a unit that its lowest patches pull down.
    """
    arms = ARMS[protocol]
    table = values.double().numpy()
    found = []
    for row in range(len(units)):
        value = {arm: table[row, :, column] for column, arm in enumerate(arms)}
        if protocol == "paper":
            parts = {"published": published_p(value["lowest"], value["random"])}
        else:
            parts = {control: paired_p(value["lowest"], value[control], test) for control in CONTROLS}
            # against the blank patch at the same place: what any patch covers there falls out
            falls = {arm: value[arm] - value["blank"] for arm in ("lowest", "random")}
            parts["patches"] = patch_p(
                falls["lowest"], sources["lowest"][row].numpy(), falls["random"], sources["random"][row].numpy()
            )
        found.append((value, parts))
    p = np.array([verdict(parts) for _, parts in found])
    q = corrected(p)
    made = []
    for row, (value, parts) in enumerate(found):
        rise = None if mirror is None else (mirror[row, :, 0] - mirror[row, :, 1]).double().numpy()
        mean_rise = None if rise is None else float(rise.mean())
        is_flagged = p[row] <= alpha if protocol == "paper" else bool(q[row] <= alpha and (mean_rise or 0) > 0)
        made.append(
            UnitInsertion(
                unit=units[row],
                means={arm: float(series.mean()) for arm, series in value.items()},
                effect=float((value["random"] - value["lowest"]).mean()),
                d=effect_size(value["lowest"], value["random"]),
                p=float(p[row]),
                q=float(q[row]),
                parts=parts,
                mirror=mean_rise,
                mirror_p=None if rise is None else paired_p(np.zeros_like(rise), rise),
                images=len(value["clean"]),
                patches=len(torch.unique(sources["lowest"][row])),
                flagged=bool(is_flagged),
            )
        )
    return made

"""What holds a class down in a photograph: every claim of a relevance map is measured, those that hold best are kept.

A claim is a photograph, a class that the network nearly says, and the region of which the map says that it holds that
class down. The region is made grey: the class must rise, and further than where regions of the same shape are made grey
elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.filling import fill
from absence_plugins.data.photographs import PHOTOGRAPHS, photograph
from absence_plugins.methods.regions import RegionTest, measure_regions, segment, strongest_regions
from absence_plugins.relevance import relevance

RIVALS = 4  # classes behind the winner
SUPERPIXELS = 48
SHARE = (0.02, 0.12)  # the smallest and the largest region, as shares of the image
DRAWS = 19  # places of the control
PARTS = 8  # of a photograph, made grey one after the other


@dataclass(frozen=True, eq=False)
class Finding:
    """A claim of a map and its test.

    Attributes:
        name: of the photograph.
        x: the network's input [1, 3, H, W].
        labels: its superpixels [H, W].
        winner, rival: the class that the network says, and the one that the region is said to hold down.
        attribution: the rival's map [3, H, W]; negative: holds the rival down.
        test: of the region, on the rival alone; its target is the winner.
    """

    name: str
    x: Tensor
    labels: Tensor
    winner: int
    rival: int
    attribution: Tensor
    test: RegionTest

    @property
    def largest_elsewhere(self) -> float:
        """How far the rival rises at the most favorable place of the control."""
        return float(self.test.gains.max())

    @property
    def lead(self) -> float:
        """How much further the rival rises than at the most favorable place of the control."""
        return self.test.change - self.largest_elsewhere

    @property
    def holds(self) -> bool:
        """Whether the rival rises, further than at every place of the control, and with the region inpainted, too."""
        return self.test.change > 0 and self.lead > 0 and self.test.others["inpainted"] > 0

    def to_dict(self) -> dict[str, Any]:
        """The numbers."""
        return {
            "photograph": self.name,
            "winner": self.winner,
            "rival": self.rival,
            "largest_elsewhere": self.largest_elsewhere,
            "lead": self.lead,
            "holds": self.holds,
            **self.test.to_dict(),
        }


def draw_maps(model: nn.Module, x: Tensor, labels: Tensor, outputs: Sequence[int], *, seed: int = 0) -> Tensor:
    """What every part of a photograph [1, 3, H, W] does to each of some outputs [K]: maps [K, 3, H, W].

    Relevance of differences against the photograph itself with an eighth of its superpixels made grey, eight times, so
    that each is grey once. A map adds the eight: what an output loses with each part (positive: it raises the output).
    Against one empty image a map answers another question, in which the content that makes the output possible at all
    covers what holds it down.
    """
    order = torch.randperm(int(labels.max()) + 1, generator=torch.Generator().manual_seed(seed))
    batch = x.expand(len(outputs), -1, -1, -1)
    references = [fill(x, torch.isin(labels, order[part::PARTS]), "grey").expand_as(batch) for part in range(PARTS)]
    found: Tensor = relevance(model, batch, references, list(outputs)).attribution.detach()
    return PARTS * found


def measure_photograph(model: nn.Module, name: str, *, rivals: int = RIVALS, seed: int = 0) -> list[Finding]:
    """One claim for each of the classes behind the winner, measured."""
    x = photograph(name)
    with torch.no_grad():
        winner, *others = model(x)[0].topk(1 + rivals).indices.tolist()
    labels = segment(x[0], SUPERPIXELS)
    maps = draw_maps(model, x, labels, others, seed=seed)
    named = [(i, strongest_regions(-one, labels, 1, share=SHARE)) for i, one in enumerate(maps)]
    named = [(i, regions[0]) for i, regions in named if len(regions)]
    if not named:
        return []
    tests = measure_regions(
        model,
        x[0],
        torch.stack([region for _, region in named]),
        "grey",
        columns=[others[i] for i, _ in named],
        target=winner,
        others=("inpainted",),
        draws=DRAWS,
        seed=seed,
    ).tests
    return [
        Finding(name, x, labels, winner, others[i], maps[i], test) for (i, _), test in zip(named, tests, strict=True)
    ]


def measure_all(
    model: nn.Module, names: Sequence[str] = tuple(PHOTOGRAPHS), *, seed: int = 0, progress: bool = True
) -> list[Finding]:
    """All claims on all photographs, the largest lead over the control first."""
    found: list[Finding] = []
    for name in tqdm(names, desc="measuring", unit="photograph", disable=not progress):
        found += measure_photograph(model, name, seed=seed)
    return sorted(found, key=lambda finding: -finding.lead)


def lead_elsewhere(found: Sequence[Finding]) -> Tensor:
    """The control of the choice itself: the largest lead among all claims if another place takes the region's part.

    One value for every place of the control [DRAWS]: each claim's place against its 18 others, the largest over claims.
    """
    leads = []
    for finding in found:
        first, second = finding.test.gains.topk(2).values
        others = torch.where(finding.test.gains == first, second, first)
        leads.append(finding.test.gains - others)
    return torch.stack(leads).amax(0)


def choose_findings(found: Sequence[Finding], count: int) -> list[Finding]:
    """The first ``count`` that hold, one of each photograph."""
    chosen: dict[str, Finding] = {}
    for finding in found:
        if finding.holds:
            chosen.setdefault(finding.name, finding)
    return list(chosen.values())[:count]

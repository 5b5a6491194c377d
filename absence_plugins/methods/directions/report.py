"""What became of every direction of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Status = Literal["active", "inactive", "split", "unresolved"]
RARE_BELOW, FEW = 0.01, 8  # share of positions below which one of few directions may be none
INACTIVE_BELOW = 0.005  # share of positions
SPLIT_ABOVE = 0.7  # cosine of two encoding directions, in standard deviations of the features
EVERYWHERE = 0.95  # of the positions
STABLE = 0.97  # cosine in two halves; of right directions at least .99, down to 600 positions and up to noise of .2
ALONE_BELOW = (
    0.1  # of the positions at which a detector fires; for "split": of those at which independent ones fire alone
)
NAMED = 8  # directions in a note, and groups of directions
AT_A_TIME = 512  # directions compared with all


@dataclass(frozen=True)
class DirectionReport(Result):
    """Whether each direction is used, and whether some share one concept.

    Attributes:
        active_share: per direction, the share of positions at which its detector fires (y > 0.5).
        exclusive_share: ... at which it fires alone.
        n_signal: ... the number of positions that its encoding direction is estimated from.
        status: ... ``"active"``; ``"inactive"``: fires at less than 0.5 % of the positions (a given
            direction: at fewer than 8 positions); ``"split"``: reads a part
            of what others read: it fires alone at less than a tenth of its positions, or its encoding direction has a
            cosine above 0.7 with another's (in standard deviations of the features); ``"unresolved"``: too few
            positions to tell the direction.
        groups: the directions whose encodings are alike, as tuples of numbers.
        n_positions: of the features.
        effect: per direction, how much a typical step along its encoding moves the head's logits (root mean square over
            images and classes, without what all classes share); None without a head. The largest comes first.
        stability: ... the cosine of its encodings in two halves of the images, each relabelled by itself; None where
            the recipe does not measure it. Well below 1: the positions do not determine the direction.
        open_sign: ... whether the detector's logits are not more spread where it fires than where it is silent, so that
            it may as well detect the absence of a concept that most positions hold; None for up to 8 directions of
            concepts that exclude each other.
    """

    active_share: tuple[float, ...]
    exclusive_share: tuple[float, ...]
    n_signal: tuple[int, ...]
    status: tuple[Status, ...]
    groups: tuple[tuple[int, ...], ...]
    n_positions: int
    effect: tuple[float, ...] | None = None
    stability: tuple[float, ...] | None = None
    open_sign: tuple[bool, ...] | None = None

    def __repr__(self) -> str:
        lines = [
            f"  {number}: {status}, fires at {100 * share:.1f} % of the positions, alone at {100 * alone:.1f} %"
            for number, (status, share, alone) in enumerate(
                zip(self.status, self.active_share, self.exclusive_share, strict=True)
            )
        ]
        groups = [f"  directions {', '.join(map(str, group))} split one concept" for group in self.groups]
        return "\n".join(
            [f"DirectionReport({len(self.status)} directions, {self.n_positions} positions)", *lines, *groups]
        )

    def _heading(self) -> str:
        return f"DirectionReport of {len(self.status)} directions, {self.n_positions} positions"

    def _grid(self) -> Grid:
        return self.grid()

    def grid(self, notes: tuple[str, ...] = ()) -> Grid:
        """One line per direction; below it groups that split one concept, or the notes of a fit, which name them."""
        shares = zip(self.status, self.active_share, self.exclusive_share, strict=True)
        rows = [(str(i), status, f"{share:.1%}", f"{alone:.1%}") for i, (status, share, alone) in enumerate(shares)]
        groups = tuple(_note_groups(self.groups, "split one concept"))
        head: tuple[str, ...] = ("direction", "status", "fires at", "alone at")
        table: list[tuple[str, ...]] = [head, *rows]
        if self.effect is not None:
            table = [
                (*row, said) for row, said in zip(table, ("effect", *map("{:.3g}".format, self.effect)), strict=True)
            ]
        return Grid(tuple(table), left=(0, 1), foot=notes or groups)

    def figure(self, ax: Any = None) -> Figure:
        """The share of positions at which each direction's detector fires; gray: it hardly ever fires alone, or at all.

        Needs matplotlib. ax: axes to draw into.
        """
        from absence_plugins.report.plots.palette import INK, PALE
        from absence_plugins.report.plots.placing import draw_bars

        names = [f"direction {i} ({status})" for i, status in enumerate(self.status)]
        colors = [INK if status == "active" else PALE for status in self.status]
        return draw_bars(ax, names, self.active_share, "share of positions at which it fires", colors=colors)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        plain = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DirectionReport:
        """The way back from :meth:`to_dict`."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        return cls(**(values | {"groups": tuple(tuple(group) for group in plain["groups"])}))


def describe(
    fires: Tensor,
    alone: Tensor,
    used: Tensor,
    encoding: Tensor,
    positions: int,
    effect: Tensor | None = None,
    stability: Tensor | None = None,
    fewest: int | None = None,
) -> DirectionReport:
    """Counts [I] of positions (firing, firing alone, behind the signal), encodings [D, I] and what else is known [I].

    ``fewest``: the number of positions below which a direction is inactive, however many there are in all.
    """
    share = fires.double() / positions
    inactive = share < INACTIVE_BELOW if fewest is None else fires < fewest
    groups = _find_groups(encoding, ~inactive)
    members = {one for group in groups for one in group}
    silent = (1 - share).clamp(min=1e-12)
    expected = fires * silent.prod() / silent
    members |= set(torch.nonzero(alone < ALONE_BELOW * expected).flatten().tolist())
    status: list[Status] = [
        "inactive" if inactive[i] else "split" if i in members else "active" for i in range(len(share))
    ]
    return DirectionReport(
        tuple(share.tolist()),
        tuple((alone.double() / positions).tolist()),
        tuple(int(n) for n in used),
        tuple(status),
        tuple(groups),
        positions,
        None if effect is None else tuple(effect.tolist()),
        None if stability is None else tuple(stability.tolist()),
    )


def _find_groups(encoding: Tensor, usable: Tensor) -> list[tuple[int, ...]]:
    """Directions that a chain of alike encodings joins: [D, I], and which of them count, bool [I]."""
    encoding, usable, parts = encoding.cpu(), usable.cpu(), []
    for chosen in torch.split(torch.arange(encoding.shape[1]), AT_A_TIME):
        alike = encoding[:, chosen].T @ encoding > SPLIT_ABOVE
        pairs = torch.nonzero(alike & usable & usable[chosen, None]) + torch.tensor([int(chosen[0]), 0])
        parts.append(pairs[pairs[:, 0] != pairs[:, 1]])
    others: dict[int, list[int]] = {}
    for one, other in torch.cat(parts).tolist():
        others.setdefault(one, []).append(other)
    groups, seen = [], set[int]()
    for first in others:
        if first in seen:
            continue
        group, new = set[int](), {first}
        while new:
            group |= new
            new = {other for one in new for other in others[one]} - group
        seen |= group
        groups.append(tuple(sorted(group)))
    return groups


def name_some(numbers: Sequence[int] | Tensor) -> str:
    """The first of many numbers, and how many more there are.

    >>> name_some(range(3)), name_some(torch.arange(100))
    ('0, 1, 2', '0, 1, 2, 3, 4, 5, 6, 7 and 92 more')
    """
    shown = ", ".join(str(int(number)) for number in numbers[:NAMED])
    return f"{shown} and {len(numbers) - NAMED} more" if len(numbers) > NAMED else shown


def _note_groups(groups: tuple[tuple[int, ...], ...], words: str) -> list[str]:
    notes = [f"directions {name_some(group)} {words}" for group in groups[:NAMED]]
    if len(groups) > NAMED:
        notes.append(f"{len(groups) - NAMED} more groups of directions {words}; see report_.groups")
    return notes


def mark_unresolved(report: DirectionReport, resolved: Tensor | None) -> DirectionReport:
    """The report with the status of directions that the data do not resolve; resolved [I] bool, None where not asked.

    A resolved one that fires anywhere is no "inactive" one, however rare it is.

    >>> report = DirectionReport((0.3, 0.2), (0.3, 0.2), (9, 9), ("active", "active"), (), 30)
    >>> mark_unresolved(report, torch.tensor([True, False])).status
    ('active', 'unresolved')
    """
    if resolved is None:
        return report
    status: list[Status] = []
    for one, share, known in zip(report.status, report.active_share, resolved.tolist(), strict=True):
        rare = one == "inactive" and share > 0
        status.append(("active" if rare else one) if known else "unresolved")
    return replace(report, status=tuple(status))


def note_directions(report: DirectionReport, *, has_head: bool, alike: str = "split one concept") -> tuple[str, ...]:
    """What the reader of a fit must know: no head, directions that stay inactive or split a concept."""
    notes = []
    if not has_head:
        notes.append(
            "no head was given: the directions follow the features' structure, whether or not the network uses them"
        )
    inactive = [i for i, status in enumerate(report.status) if status == "inactive"]
    if inactive:
        notes.append(f"inactive directions: {name_some(inactive)}; the layer may hold fewer concepts")
    rare = [i for i, share in enumerate(report.active_share) if share < RARE_BELOW and report.status[i] == "active"]
    if rare and len(report.status) <= FEW:
        notes.append(
            f"directions that fire at less than {RARE_BELOW:.0%} of the positions: {name_some(rare)}; they may be tails of "
            "distractors: the layer may hold fewer concepts"
        )
    split = [i for i, status in enumerate(report.status) if status == "split"]
    members = {one for group in report.groups for one in group}
    split = [i for i in split if i not in members]
    if split:
        notes.append(f"directions that hardly ever fire alone: {name_some(split)}; they read parts of what others read")
    notes += _note_groups(report.groups, alike)
    everywhere = [i for i, share in enumerate(report.active_share) if share > EVERYWHERE]
    if everywhere:
        notes.append(f"directions that fire at nearly all positions: {name_some(everywhere)}; they tell nothing apart")
    if named := [i for i, unsure in enumerate(report.open_sign or ()) if unsure and report.status[i] != "unresolved"]:
        which = "all" if len(named) == len(report.status) else name_some(named)
        notes.append(
            f"directions whose sign the positions leave open: {which}; fires is the rarer of two groups of equal "
            "spread, so that a concept at more than half of the positions is found as its absence: look at patches"
        )
    unstable = {i: cosine for i, cosine in enumerate(report.stability or ()) if not cosine >= STABLE}
    if unstable:
        which = ", ".join(f"{i} (cosine {cosine:.2f})" for i, cosine in list(unstable.items())[:NAMED])
        which += f" and {len(unstable) - NAMED} more" if len(unstable) > NAMED else ""
        notes.append(
            f"directions that differ between two halves of the images: {which}; the positions do not determine them: too "
            "few, too noisy, more concepts than dimensions, or no such concept"
        )
    return tuple(notes)

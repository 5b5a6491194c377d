"""Is what a map says of a column, token, span or region true? Replace it by the reference's, read the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from absence_plugins.core.checks import check_choice, check_integers
from absence_plugins.core.kinds import Kind, TableKind, TextKind
from absence_plugins.methods.regions.measure import (
    DRAWS,
    Output,
    check_about,
    check_columns,
    check_finite,
    find_least,
    read_outputs,
)
from absence_plugins.methods.regions.places import draw_places, place_elsewhere
from absence_plugins.methods.regions.thing_names import name_thing
from absence_plugins.methods.regions.thing_tests import Control, ThingTest, ThingTests

MOST, ENTRIES = 256, 2**20  # inputs in a forward, and entries of all of them
ENUMERATED = 4  # times the draws: up to so many sets all are listed, above it they are drawn
Change = tuple[Tensor, tuple[int, ...]]  # which things are replaced, and by how much the reference is moved


def measure_things(
    output: Output,
    x: Tensor,
    reference: Tensor,
    kind: Kind,
    things: Tensor,
    *,
    rises: bool = False,
    control: Control = "others",
    draws: int = DRAWS,
    seed: int = 0,
    columns: Sequence[int] | None = None,
) -> ThingTests:
    """Replace the named things of x by the reference's, and as many others as a control, and read the output.

    Control: as many *others* in which x and the reference differ, none of those that are named: other columns or
    tokens, the same span at other times, the same shape at other places, each with what the reference has there. All
    are equally likely and each is drawn once. With others p = (1 + others that go as far) / (1 + others), exact for one
    thing like any other; of N named things Holm's correction takes it times N for the strongest (Holm, Scandinavian
    Journal of Statistics 1979). Moved things are compared as those of :class:`RegionTests`.

    Sign: what is missing raises u, so u must fall when it is put in (``rises=False``). What is there and suppresses u
    is replaced by what the reference has instead: u must rise (``rises=True``).

    Args:
        output: inputs ``[B, *entries]`` -> u [B], or several outputs [B, K]; no gradient is asked for.
        x: one sample ``[*entries]`` as the kind has it: row [E], token ids [T], signal [C, T] or [T], volume [C, D, H,
            W] or [D, H, W].
        reference: shaped like x; of a text the aligned one. Token ids stay integers, and the length stays the same.
        kind: what the entries are.
        things: boolean [N, columns], [N, T] or [N, D, H, W], as of :func:`strongest_things`; each row is replaced at
            once.
        rises: whether the map says that u rises, or falls.
        control: "others"; or "moved", which asks whether it matters *where* the content stands: the reference's own
            tokens, span or region are put at other places of x. So for a text whose reference differs in one phrase,
            where there are no others. A network that looks for an event at any time answers that it does not matter.
        draws: of the control, and with others N times as many, for Holm's correction; as many as there are where those
            are fewer. With fewer than 19 (N times as many) nothing is borne out.
        seed: of the control.
        columns: of several outputs, the one that each thing is about [N]; default: 0.

    Places of a text where both have padding or a special token are never replaced.

    Raises:
        TypeError: no kind, things that are not boolean, a reference of another type than x.
        ValueError: shapes that do not fit, special tokens among the things, a control that the kind does not have, a
            column that does not exist, outputs that are NaN or infinite.

    >>> from absence_plugins.core.columns import Column
    >>> kind = TableKind(tuple(Column(f"c{number}") for number in range(24)))
    >>> x, reference = torch.zeros(24), torch.ones(24)
    >>> found = measure_things(lambda rows: 5 - 3 * rows[:, 7], x, reference, kind, torch.eye(24).bool()[[7]])
    >>> found
    ThingTests(1 column, replaced by the reference's; p = 0.05)
    column  replaced  before  after  change  other columns  borne out
    c7      0 -> 1      5.00   2.00   -3.00   +0.00 ± 0.00        yes
    """
    x, reference = _checked_inputs(kind, x, reference)
    _check_things(kind, x, reference, things)
    about = check_about(columns, len(things), _plural(kind))
    check_integers(draws=draws)
    _check_control(kind, control)
    changes = _Changes(kind, x, reference, control, things.any(0).cpu())
    still = (0,) * (things.dim() - 1)
    most = (draws + 1) * len(things) - 1 if control == "others" else draws
    plans = [changes.plan(where, most, seed + number) for number, where in enumerate(things)]
    fewest = min((len(plan) for plan, _ in plans if plan), default=0)
    drawn = [plan if control == "others" else plan[:fewest] for plan, _ in plans]
    own, step = changes.read(
        output, [(things.new_zeros(things.shape[1:]), still), *((where, still) for where in things)]
    )
    check_columns(about, own)
    read = [changes.read(output, plan)[0] if plan else own[:0] for plan in drawn]
    check_finite([own[:, about], *(values[:, column] for values, column in zip(read, about, strict=True))])
    tests = []
    for number, (where, column, values) in enumerate(zip(things, about, read, strict=True)):
        name, replaced = name_thing(kind, where.cpu(), x.cpu(), reference.cpu())
        tests.append(
            ThingTest(
                where=where.cpu(),
                image=changes.make([(where, still)])[0],
                rises=rises,
                before=float(own[0, column]),
                after=float(own[number + 1, column]),
                random_values=values[:, column],
                column=column,
                least=find_least(step, own[[0, number + 1], column], values[:, column]),
                kind=kind,
                name=name,
                replaced=replaced,
                control=control,
                available=plans[number][1],
            )
        )
    return ThingTests(tests=tuple(tests), how="replaced by the reference's", kind=kind, control=control)


@dataclass(frozen=True, eq=False)
class _Changes:
    """Copies of x with things replaced by the reference's, or by those of another place of the reference."""

    kind: Kind
    x: Tensor
    reference: Tensor
    control: Control
    named: Tensor  # all things that are

    def make(self, changes: Sequence[Change]) -> Tensor:
        """One copy per change ``[N, *entries]``."""
        masks = torch.stack([spread_things(self.kind, where, self.x) for where, _ in changes]).to(self.x.device)
        moved = [self.reference.roll(s, tuple(range(-len(s), 0))) if any(s) else self.reference for _, s in changes]
        return torch.where(masks, torch.stack(moved), self.x)

    def read(self, output: Output, changes: Sequence[Change]) -> tuple[Tensor, float]:
        """The outputs [N, K] of the copies, a few at a time; and the relative size of their rounding."""
        size = max(1, min(MOST, ENTRIES // self.x.numel()))
        parts = [
            read_outputs(output, self.make(changes[start : start + size]), size)
            for start in range(0, len(changes), size)
        ]
        return torch.cat([values for values, _ in parts]), parts[0][1]

    def plan(self, where: Tensor, draws: int, seed: int) -> tuple[list[Change], int]:
        """The control of one thing, and how many others there are to draw it from."""
        if not bool(where.any()):
            return [], 0
        if self.control == "others":
            return self._plan_others(where.cpu(), draws, seed)
        if isinstance(self.kind, TextKind):
            shifts = self._find_shifts(where.cpu())
            order = torch.randperm(len(shifts), generator=torch.Generator().manual_seed(seed)).tolist()
            return [(where.roll(shifts[i], 0), (shifts[i],)) for i in order[:draws]], len(shifts)
        moves = [shift for shift in place_elsewhere(where, where.numel(), seed) if any(shift)]
        axes = tuple(range(where.dim()))
        return [(where.roll(shift, axes), shift) for shift in moves[:draws]], len(moves)

    def _plan_others(self, where: Tensor, draws: int, seed: int) -> tuple[list[Change], int]:
        """Other sets of columns or tokens; of a span or region those of its shape."""
        differ = find_changed(self.kind, self.x, self.reference).cpu()
        still = (0,) * where.dim()
        if isinstance(self.kind, (TableKind, TextKind)):
            others = differ & ~self.named
            sets = draw_sets(others.nonzero().flatten(), int((where & differ).sum()), draws, seed)
            return [(torch.zeros_like(others).index_fill(0, one, True), still) for one in sets], int(others.sum())
        masks, many = draw_places(where, differ, self.named, draws, seed)
        return [(mask, still) for mask in masks], many

    def _find_shifts(self, where: Tensor) -> list[int]:
        """By how much named tokens [T] can move to places that have other tokens, none of them special."""
        assert isinstance(self.kind, TextKind)
        x, reference = self.x.cpu(), self.reference.cpu()
        named = where.nonzero().flatten()
        if not len(named):
            return []
        free = ~where & ~self.kind.is_special(x)
        found = []
        for shift in range(-int(named[0]), len(x) - int(named[-1])):
            there = named + shift
            if bool(free[there].all()) and bool((x[there] != reference[named]).any()):
                found.append(shift)
        return found


def spread_things(kind: Kind, where: Tensor, x: Tensor) -> Tensor:
    """Which entries of one sample x belong to things, shaped like x.

    >>> from absence_plugins.core.kinds import Column
    >>> kind = TableKind((Column("age"), Column("color", ("red", "blue"))))
    >>> spread_things(kind, torch.tensor([False, True]), torch.zeros(3))
    tensor([False,  True,  True])
    """
    if isinstance(kind, TableKind):
        return where.repeat_interleave(torch.tensor([column.entries for column in kind.columns], device=where.device))
    return where.expand(x.shape)


def find_changed(kind: Kind, x: Tensor, reference: Tensor) -> Tensor:
    """The things in which one sample x and its reference differ; of a text not where both have a special token."""
    differ = kind.things((x != reference)[None].int())[0] > 0
    if isinstance(kind, TextKind):
        differ &= ~(kind.is_special(x) & kind.is_special(reference))
    return differ


def draw_sets(others: Tensor, size: int, draws: int, seed: int) -> list[Tensor]:
    """Different sets of ``size`` of the numbers ``others`` [M], as many as there are and at most ``draws``.

    >>> sorted(int(one) for one in draw_sets(torch.tensor([2, 5]), 1, 19, 0))
    [2, 5]
    """
    if not 0 < size <= len(others):
        return []
    generator = torch.Generator().manual_seed(seed)
    many = comb(len(others), size)
    if many <= ENUMERATED * draws:
        every = torch.tensor(list(combinations(others.tolist(), size)))
        return list(every[torch.randperm(many, generator=generator)[:draws]])
    found: dict[tuple[int, ...], None] = {}
    while len(found) < draws:
        rows = torch.randperm(len(others), generator=generator)[:size].sort().values
        found[tuple(others[rows].tolist())] = None
    return [torch.tensor(one) for one in found]


def _plural(kind: Kind) -> str:
    return f"{kind.thing}s"


def _check_control(kind: Kind, control: str) -> None:
    """Raise ValueError for a control that does not exist, or that the kind does not have."""
    check_choice("control", control, ("others", "moved"))
    if control == "moved" and isinstance(kind, TableKind):
        raise ValueError("control='moved' does not fit a table, whose columns cannot be moved; leave control out")


def _checked_inputs(kind: Kind, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """x and its reference, on one device and of one type."""
    if not isinstance(kind, Kind):
        raise TypeError(
            f"kind must be a TableKind, TextKind, SignalKind or VolumeKind, got a {type(kind).__name__}; of images use "
            "measure_regions"
        )
    for name, value in (("x", x), ("reference", reference)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got a {type(value).__name__}")
    try:
        kind.check(x[None])
    except ValueError as error:
        raise ValueError(f"x must be one sample, without the axis of the batch: {error}") from None
    if reference.shape != x.shape:
        raise ValueError(
            f"reference has shape {tuple(reference.shape)}, x {tuple(x.shape)}; they must be the same: pass one "
            f"reference{', aligned with x' * isinstance(kind, TextKind)}"
        )
    if reference.is_floating_point() != x.is_floating_point():
        raise TypeError(f"reference is {reference.dtype}, x {x.dtype}; they must be of one type")
    return x.detach(), reference.detach().to(x)


def _check_things(kind: Kind, x: Tensor, reference: Tensor, things: Tensor) -> None:
    if not isinstance(things, Tensor) or things.dtype != torch.bool:
        raise TypeError(f"things must be boolean, True where a {kind.thing} is named")
    shape = tuple(kind.things(torch.zeros_like(x)[None])[0].shape)
    if things.dim() != len(shape) + 1 or tuple(things.shape[1:]) != shape:
        wanted = ", ".join(map(str, ("N", *shape)))
        raise ValueError(
            f"things have shape {tuple(things.shape)}; they must be [{wanted}], True where a {kind.thing} is named"
        )
    if isinstance(kind, TextKind):
        special = (kind.is_special(x) & kind.is_special(reference)).to(things.device)
        wrong = (things & special).nonzero()
        if len(wrong):
            number, place = wrong[0].tolist()
            raise ValueError(
                f"thing {number} names place {place}, where both texts have padding or a special token "
                f"({kind.tokens(x[place : place + 1])[0]!r}); those are never evidence: leave them out"
            )

"""What changing regions of an input does to an output, and whether that bears out what a map says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from absence_plugins.core.table import align

BEYOND = 2  # standard deviations of the control
LEVEL = 0.05  # of the p value of the strongest of several regions


@dataclass(frozen=True, eq=False, repr=False)
class RegionTest:
    """The explained output before and after changing a region, and after changing regions of its shape elsewhere.

    Attributes:
        where: the region, boolean [H, W].
        image: the changed image [C, H, W].
        rises: what the map says of the output: it rises, or (False) falls.
        before, after: the explained output u.
        random_values: u after the same change at other places, one value per draw [D] float64.
        target_before, target_after, target_random: the same of the target, where that is another output.
        column: which of several outputs u is.
        others: the change of u under other fillings, by their names.
        least: a change of u that is not larger counts as none, such as rounding.
    """

    _noun: ClassVar[str] = "place"
    _elsewhere: ClassVar[tuple[str, str]] = ("at random places", "random places")  # where, against what

    where: Tensor
    image: Tensor
    rises: bool
    before: float
    after: float
    random_values: Tensor
    target_before: float | None = None
    target_after: float | None = None
    target_random: Tensor | None = None
    column: int = 0
    others: Mapping[str, float] = field(default_factory=dict)
    least: float = 0.0

    @property
    def pixels(self) -> int:
        """How many pixels were changed."""
        return int(self.where.sum())

    @property
    def share(self) -> float:
        """The part of the image that was changed."""
        return self.pixels / self.where.numel()

    @property
    def change(self) -> float:
        """u after minus u before: negative if the output fell."""
        return self.after - self.before

    @property
    def random_change(self) -> float:
        """The same elsewhere, the mean over the draws."""
        return float(self.random_values.mean()) - self.before

    @property
    def random_sd(self) -> float:
        """The standard deviation of u over the draws; 0 for a single one."""
        return float(self.random_values.std(correction=int(len(self.random_values) > 1)))

    @property
    def target_change(self) -> float | None:
        """The target after minus before."""
        if self.target_after is None or self.target_before is None:
            return None
        return self.target_after - self.target_before

    @property
    def gains(self) -> Tensor:
        """How far u moved the way the map says, elsewhere [D]."""
        return (1 if self.rises else -1) * (self.random_values - self.before)

    @property
    def gain(self) -> float:
        """How far u moved the way the map says: negative if it moved the other way."""
        return self.change if self.rises else -self.change

    @property
    def moved(self) -> bool:
        """Whether u moved the way the map says, by more than ``least``."""
        return self.gain > self.least

    @property
    def went_further(self) -> bool:
        """Whether u moved further that way than elsewhere, by two standard deviations of the control."""
        return self.gain - float(self.gains.mean()) > max(BEYOND * self.random_sd, self.least)

    @property
    def is_borne(self) -> bool:
        """Whether the network bears the map out: u moved the claimed way, and further than elsewhere."""
        return bool(self.pixels) and self.moved and self.went_further

    @property
    def disagreeing(self) -> tuple[str, ...]:
        """The other fillings under which u moves the other way, or not at all."""
        sign = 1 if self.rises else -1
        return tuple(name for name, change in self.others.items() if (sign * change > self.least) != self.moved)

    def describe_draws(self) -> str:
        """How many draws the control has, as in "with 3 other places"."""
        draws = len(self.random_values)
        return f"with {draws} other place{'s' * (draws > 1)}"

    def verdict(self) -> str:
        """In a sentence; of a map that is not borne out, which of the two conditions failed.

        >>> RegionTest(torch.ones(3, 3, dtype=torch.bool), torch.zeros(3, 3, 3), True, 9.0, 7.93,
        ...            torch.tensor([6.83, 7.03, 7.23])).verdict()  # doctest: +ELLIPSIS
        'The network does not bear the map out: the output fell, and the map says that it rises ...
        """
        if not self.pixels:
            return f"The map names no {self._noun}, so there is nothing to test."
        at, against = self._elsewhere
        if self.is_borne:
            return "The network bears the map out."
        if self.moved:
            return f"That is no more than chance: the output moves as the map says, but not further than {at}."
        claimed, opposite = ("rises", "fell") if self.rises else ("falls", "rose")
        way = f"the output {opposite if abs(self.change) > self.least else 'did not move'}, and the map says that it {claimed}"
        if self.went_further:
            return f"The network does not bear the map out: {way} ({at} it {opposite} further)."
        return f"The network does not bear the map out: {way}, and against {against} it is no more than chance."

    def __repr__(self) -> str:
        return (
            f"RegionTest({self.share:.1%} of the image: {self.before:.2f} -> {self.after:.2f}, elsewhere "
            f"{self.random_change:+.2f} ± {self.random_sd:.2f}; {'borne out' if self.is_borne else 'not borne out'})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the images."""
        found = {
            name: getattr(self, name)
            for name in ("pixels", "share", "before", "after", "change", "random_change", "random_sd", "rises")
        }
        return found | {
            "random": float(self.random_values.mean()),
            "target_before": self.target_before,
            "target_after": self.target_after,
            "target_change": self.target_change,
            "column": self.column,
            "least": self.least,
            "others": dict(self.others),
            "is_borne": self.is_borne,
        }


@dataclass(frozen=True, eq=False, repr=False)
class RegionTests:
    """Several regions, changed one by one; the control of the strongest of them looked for the strongest as well.

    Attributes:
        tests: one per region, in the order in which they were passed.
        how: what was done to them: a filling, or "pasted".
    """

    _nouns: ClassVar[tuple[str, str]] = ("region", "regions elsewhere")

    tests: tuple[RegionTest, ...]
    how: str

    @property
    def best(self) -> int | None:
        """The number of the region that moved its output furthest the claimed way; None without regions.

        Of those that are borne out, if there are any.
        """
        order = [(*borne, test.gain) for borne, test in zip(self._borne, self.tests, strict=True)]
        return order.index(max(order)) if order else None

    @property
    def p_values(self) -> tuple[float, ...]:
        """One per region: how often the strongest of as many regions elsewhere goes as far as this one does here.

        Every draw moves all regions and takes the largest movement among them, in standard deviations of each region's
        own movements: so that several regions were looked at is in the control, too (Westfall and Young's maxT). (1 +
        draws that reach it) / (1 + draws): 0.05 at least with 19 draws.
        """
        if not self.tests:
            return ()
        gains = torch.stack([torch.cat([torch.tensor([test.gain]).double(), test.gains]) for test in self.tests])
        z = (gains - gains.mean(1, keepdim=True)) / gains.std(1, correction=0, keepdim=True).clamp(min=1e-12)
        strongest = z[:, 1:].amax(0)
        return tuple((1 + int((strongest >= own - 1e-9).sum())) / z.shape[1] for own in z[:, 0])

    @property
    def p(self) -> float:
        """The p value of the best region; 1 without regions."""
        return 1.0 if self.best is None else self.p_values[self.best]

    @property
    def borne(self) -> tuple[bool, ...]:
        """Of every region whether the network bears it out, as one of several: its p value is at most 0.05, too."""
        return tuple(each for each, _ in self._borne)

    @property
    def is_borne(self) -> bool:
        """Whether the network bears out the best region."""
        return self.best is not None and self.borne[self.best]

    @property
    def _borne(self) -> list[tuple[bool, bool]]:
        return [
            (test.is_borne and p <= LEVEL, test.is_borne) for test, p in zip(self.tests, self.p_values, strict=True)
        ]

    def verdict(self) -> str:
        """On the strongest region, in a sentence."""
        if self.best is None:
            return f"The map names no {self._nouns[0]}, so there is nothing to test."
        own = self.tests[self.best]
        if not own.is_borne or self.is_borne:
            return own.verdict()
        draws = len(own.random_values)
        if (1 + draws) * LEVEL < 1:
            return f"Undecided: {own.describe_draws()} p cannot be {LEVEL} (p = {self.p:.2f})."
        if len(self.tests) == 1:
            return f"That is no more than chance: elsewhere the output moves as far too often (p = {self.p:.2f})."
        return (
            f"That is no more than chance: the strongest of {len(self.tests)} {self._nouns[1]} moves its output as far, by "
            f"its own standard (p = {self.p:.2f})."
        )

    def table(self) -> str:
        """One line per region."""
        rows = [("region", "of the image", "before", "after", "change", "elsewhere", "target", "borne out")]
        for number, (test, is_borne) in enumerate(zip(self.tests, self.borne, strict=True), 1):
            target = "" if test.target_change is None else f"{test.target_change:+.2f}"
            rows.append(
                (
                    str(number),
                    f"{test.share:.1%}",
                    f"{test.before:.2f}",
                    f"{test.after:.2f}",
                    f"{test.change:+.2f}",
                    f"{test.random_change:+.2f} ± {test.random_sd:.2f}",
                    target,
                    "yes" if is_borne else "no",
                )
            )
        return "\n".join(align(rows))

    def __repr__(self) -> str:
        return f"RegionTests({len(self.tests)} regions, {self.how}; p = {self.p:.2f})\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the images."""
        return {
            "how": self.how,
            "p": self.p,
            "best": self.best,
            "is_borne": self.is_borne,
            "tests": [test.to_dict() for test in self.tests],
        }

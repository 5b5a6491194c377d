"""What a report will cost, said before it begins: counted from its settings, timed on one image of the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from absence_plugins.commands.layers import Scan
from absence_plugins.commands.maps.unit import CHANGE_STEPS, PICTURE_STEPS
from absence_plugins.commands.pace import Pace, estimating, say_expected, say_line
from absence_plugins.commands.scan_estimate import ScanTime
from absence_plugins.core.durations import describe_time
from absence_plugins.core.hooks import counting
from absence_plugins.core.maps import sum_channels
from absence_plugins.methods.ranks import ranks
from absence_plugins.report.pages.pictures import PagePicture, draw_for_page
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.costs import UnitCost
from absence_plugins.report.unit.maps import drawn
from absence_plugins.report.unit.plugins import provider
from absence_plugins.report.unit.study import Study

RENDERED = 2 * PICTURE_STEPS + CHANGE_STEPS  # forwards and backwards of one picture
TEXT = 120_000  # bytes of a page beside its pictures


@dataclass(frozen=True)
class Trial:
    """One image, and what was measured on it.

    Attributes:
        pace: seconds of a forward to the layer, and of a forward and backward.
        map: seconds of one map, map_forwards: images that went through the model for it.
        drawn: seconds of one map and of one picture on a page.
        sizes: their bytes.
    """

    pace: Pace
    map: float
    map_forwards: int
    drawn: tuple[float, float]
    sizes: tuple[int, int]

    @classmethod
    def run(cls, study: Study) -> Trial:
        """A few forwards, one map against blank, two pictures drawn."""
        x, unit = study.images([0]), study.units[0]
        pace = Pace.measure(study.neuron(unit), x)
        signed, map_seconds, forwards = torch.randn_like(x), 0.0, [0]
        if study.maps is not None:

            def count(images: int) -> None:
                forwards[0] += images

            maps = provider("maps", study.maps)
            start = time.perf_counter()
            with counting(study.model, count):
                signed = drawn(study, unit, maps, x, study.blank(x))
            map_seconds = time.perf_counter() - start
        picture = study.picture(x[0])
        panels = (Panel.over(picture, "signed", sum_channels(signed[0].cpu()), "map"), Panel("image", picture, "image"))
        draw_for_page(panels[0])  # the first figure loads matplotlib's parts
        pages = [_draw(panel) for panel in panels]
        drawn_seconds, sizes = zip(*pages, strict=True)
        return cls(pace, map_seconds, forwards[0], (drawn_seconds[0], drawn_seconds[1]), (sizes[0], sizes[1]))


@dataclass(frozen=True)
class ReportEstimate:
    """What is to be done, in parts; seconds and bytes are estimates, counts are those of the settings.

    Attributes:
        scan: times of scan and insertion test.
        images: of the data set.
        units: whose pages are to be made.
        unit: what one of them asks for.
        trial: what was measured on one image.
        made: units whose pages an earlier run has finished, beside those.
    """

    scan: ScanTime
    images: int
    units: int
    unit: UnitCost
    trial: Trial
    made: int = 0

    @property
    def forwards(self) -> dict[str, int]:
        """Images that go through the model, by part: those of the scan are windows."""
        one = self.unit
        rest = one.others + one.maps * self.trial.map_forwards
        return {
            "scan": self.scan.count.scanned * self.scan.count.windows,
            "test": self.scan.count.forwards,
            "values": self.images,
            "scores": self.units * one.scores,
            "pages": self.units * rest,
        }

    @property
    def seconds(self) -> dict[str, float]:
        """By part; several ranks share out all of them."""
        one, trial, forward = self.unit, self.trial, self.scan.whole
        drawing = sum(count * each for count, each in zip(one.shown, trial.drawn, strict=True))
        made = RENDERED * trial.pace.backward if one.pictures else 0.0
        page = one.others * forward + one.maps * trial.map + one.reads * self.scan.reading + drawing
        parts = {
            "scan": self.scan.scanning,
            "test": self.scan.testing,
            "values": self.images * (forward + self.scan.reading) + self.scan.loading,
            "scores": self.units * one.scores * forward,
            "pictures": self.units * made,
            "pages": self.units * page,
        }
        return {name: value / ranks()[1] for name, value in parts.items()}

    @property
    def bytes(self) -> int:
        """On disk, of all pages."""
        return (self.units + self.made) * (
            TEXT + sum(n * size for n, size in zip(self.unit.shown, self.trial.sizes, strict=True))
        )

    def lines(self, scan: Scan, out: Any) -> list[str]:
        """What it consists of, one line per part."""
        counts, times = self.forwards, {name: describe_time(value) for name, value in self.seconds.items()}
        found, before = self.scan.count, self.scan.finished
        said = [
            f"scan: {found.scanned:,} images x {found.windows} windows = {counts['scan']:,} forwards of "
            f"{self._window(scan)}{_done(before.scan)}: {times['scan']}",
            f"insertion test of {found.units:,} units: {counts['test']:,} forwards{self._changed()}{_done(before.test)}: "
            f"{times['test']}",
            f"their values on all images: {counts['values']:,} forwards, and all reading before the pages: {times['values']}",
        ]
        if counts["scores"]:
            said.append(f"whether the maps are true: {self.units:,} x {self.unit.scores:,} forwards: {times['scores']}")
        if self.unit.pictures:
            said.append(f"pictures: {self.units:,} x {RENDERED} forwards and backwards: {times['pictures']}")
        each = self.unit.others + self.unit.maps * self.trial.map_forwards
        ready = f" ({self.made:,} more are finished)" if self.made else ""
        said.append(
            f"pages{ready}: {self.units:,} x {each:,} forwards, {self.unit.maps} maps, figures: {times['pages']}"
        )
        said.append(f"disk: {max(1, round(self.bytes / 1e6)):,} MB in {out}")
        return said

    def _changed(self) -> str:
        share = self.scan.share
        return "" if share == 1 else f", of which only what a patch changes is computed ({share:.0%})"

    @staticmethod
    def _window(scan: Scan) -> str:
        return f"{scan.size} x {scan.size} pixels" if scan.mode == "crop" else "whole images"


def say_estimate(
    study: Study,
    scan: Scan,
    units: int,
    pages: int,
    out: Any,
    shorter: Sequence[str],
    count_made: Callable[[], int] | None = None,
) -> None:
    """Say on stderr how long the report takes and what of.

    units: that are tested; pages: units that are reported; count_made: counts how many of these are finished, None where
    it is not known before the test which units they are.
    """
    with estimating():
        times = ScanTime.measure(study.model, study.dataset, study.at, scan, units)
        made = count_made() if count_made is not None else 0
        found = ReportEstimate(times, len(study.dataset), pages - made, UnitCost.of(study), Trial.run(study), made)
        where = f"{study.layer or 'the output'} on {len(study.dataset):,} images"
        units_word = "unit" if pages == 1 else "units"
        say_expected(sum(found.seconds.values()), f"report of {pages:,} {units_word} of {where}", shorter)
        for line in found.lines(scan, out):
            say_line(f"  {line}")
        if isinstance(study.pairs, int):
            say_line("  directions: the fit says its own time when it begins")
        if count_made is None:
            say_line("  Pages that a former run of the same command finished are kept, and not made again.")


def _done(share: float) -> str:
    return f" ({share:.0%} finished)" if share else ""


def _draw(panel: Panel) -> tuple[float, int]:
    start = time.perf_counter()
    picture: PagePicture = draw_for_page(panel)
    values = 0 if picture.values is None else len(picture.values.text)
    return time.perf_counter() - start, len(picture.uri) + values

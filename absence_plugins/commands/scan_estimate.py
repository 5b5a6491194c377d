"""What a scan and its insertion test cost: counted from the settings, timed on one image."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.pace import AT_ONCE, time_forward
from absence_plugins.core.devices import device_of
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import read_tensors
from absence_plugins.methods.insertion.measure import Measure
from absence_plugins.methods.insertion.progress import FILE, UNITS_AT_ONCE
from absence_plugins.methods.insertion.statistics import ARMS
from absence_plugins.methods.patches.images import image_at
from absence_plugins.methods.patches.windows import corners, windows_of

if TYPE_CHECKING:
    from absence_plugins.commands.layers import Scan


@dataclass(frozen=True)
class ScanCount:
    """What goes through the model.

    Attributes:
        scanned: images whose windows are scored; windows: of each.
        units: that are tested.
        forwards: of whole images, in the test.
        reads: images that are read.
    """

    scanned: int
    windows: int
    units: int
    forwards: int
    reads: int

    @classmethod
    def of(cls, images: int, windows: int, units: int, scan: Scan) -> ScanCount:
        """Of a data set of so many images: half of it is scanned and the other half tested on, or in the paper's
        protocol all of it twice.

        Forwards of the test are images as they are, and each with every patch that is pasted in; of these fewer are
        computed whole.
        """
        is_paper = scan.protocol == "paper"
        scanned = images if is_paper else images // 2
        tested = images if is_paper else images - scanned
        slots, pasted = min(scan.images_per_unit, tested), len(ARMS[scan.protocol]) - 1
        parts = [min(UNITS_AT_ONCE, units - first) for first in range(0, units, UNITS_AT_ONCE)]
        into = sum(min(tested, part * slots) for part in parts)
        mirrored = 0 if is_paper else min(scan.k, scanned)  # of every image at most one patch
        forwards = tested + units * (slots * pasted + 2 * mirrored)
        return cls(scanned, windows, units, forwards, scanned + tested + into + len(parts) * scanned)


@dataclass(frozen=True)
class Finished:
    """What earlier runs have kept, from 0 to 1: of the scan's images, and of the test's pasted images."""

    scan: float = 0.0
    test: float = 0.0

    @classmethod
    def of(cls, folder: Path | None) -> Finished:
        """What the states of all ranks say together; whose they are is compared when the work begins.

        Raises:
            ValueError: a state is damaged.
        """
        if folder is None:
            return cls()
        return cls(_share_done(folder, "rank-*", "done"), _share_done(folder, f"{FILE}-rank-*", "pasted"))


@dataclass(frozen=True)
class ScanTime:
    """Seconds of one window, one whole image (to the layer), and reading one image; ``count``: of what; ``share``: of a
    whole image's multiplications, what a pasted one takes; ``finished``: what is left out of the seconds.

    >>> ScanTime(ScanCount(10, 4, 2, 100, 30), 0.5, 1.0, 0.1).seconds
    123.0
    >>> ScanTime(ScanCount(10, 4, 2, 100, 30), 0.5, 1.0, 0.1, finished=Finished(1.0, 0.5)).seconds
    51.0
    """

    count: ScanCount
    window: float
    whole: float
    reading: float
    share: float = 1.0
    finished: Finished = Finished()

    @classmethod
    def measure(cls, model: nn.Module, dataset: Any, at: Layer, scan: Scan, units: int) -> ScanTime:
        """On the data set's first image."""
        with at.reading(model) as run:
            start = time.perf_counter()
            image = image_at(dataset, 0)
            reading = time.perf_counter() - start
            places = corners(int(image.shape[1]), int(image.shape[2]), scan.size, scan.stride)
            pasted = Measure(run, at, (0,), device_of(model, image), scan.batch_size)
            pasted.settle(model, image, scan.size)

            def timed(images: Tensor) -> float:
                return time_forward(run, images.to(pasted.device).contiguous(memory_format=pasted.layout))

            window = timed(windows_of(image, places[: scan.batch_size], scan.size, scan.mode))
            whole = timed(image.expand(AT_ONCE, *image.shape))
        count = ScanCount.of(len(dataset), len(places), units, scan)
        together = len(ARMS[scan.protocol]) - 1  # at least as many are made of each image
        share = pasted.share_of(-(-scan.batch_size // together), scan.batch_size)
        kept = None if scan.checkpoint is None else scan.checkpoint / (at.name or "output")
        return cls(count, window, whole, reading, share, Finished.of(kept))

    @property
    def scanning(self) -> float:
        """Seconds of the scan's forwards that are left."""
        return (1 - self.finished.scan) * self.count.scanned * self.count.windows * self.window

    @property
    def testing(self) -> float:
        """Seconds of the test's forwards that are left."""
        return (1 - self.finished.test) * self.count.forwards * self.whole * self.share

    @property
    def loading(self) -> float:
        """Seconds of reading images that are left: those of the scan, and those of the test."""
        scanned = self.count.scanned
        left = (1 - self.finished.scan) * scanned + (1 - self.finished.test) * (self.count.reads - scanned)
        return left * self.reading

    @property
    def seconds(self) -> float:
        """All of it that is left."""
        return self.scanning + self.testing + self.loading


def _share_done(folder: Path, files: str, name: str) -> float:
    """The mean of what is marked as done in any of the files; 0 without files."""
    marked = [read_tensors(path)[name].bool() for path in sorted(folder.glob(f"{files}.safetensors"))]
    return float(torch.stack(marked).any(0).float().mean()) if marked and marked[0].numel() else 0.0

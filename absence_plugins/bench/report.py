"""``absence-plugins bench report``: what a report costs beyond the forwards and backwards that it asks for."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.replay import recording, replay
from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, has_torchvision
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.randomness import seeded
from absence_plugins.core.units import Layer

if TYPE_CHECKING:
    from absence_plugins.commands.layers import Scan
    from absence_plugins.commands.models import LoadedModel

LIMIT = 1.5
DIGITS_LAYER, LAYER = "conv3", "layer4.1.conv2"
Sides = tuple[Callable[[], Any], Callable[[], Any]]


@dataclass(frozen=True)
class Amount:
    """How much: pixels a side, images, units, images on which maps are scored, and the sizes at which growth is seen."""

    pixels: int
    images: int
    units: int
    scored: int
    grown_units: tuple[int, int, int]
    grown_images: tuple[int, int, int]


FULL = Amount(64, 24, 1, 1, (1, 2, 4), (12, 36, 108))
LARGE = Amount(128, 48, 2, 0, (1, 2, 4), (12, 24, 48))  # of a ResNet-50
QUICK = Amount(32, 12, 2, 1, (1, 2, 3), (8, 10, 12))


def run_report_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time a report of some units of a ResNet-18 and a ResNet-50 on photographs (JPEG files) against the forwards and
    backwards alone.

    The report is made as the command makes it: files are read, scanned and tested, pages drawn and written. The calls
    of the model are recorded once and then run on random images of the same shapes, with nothing around them; of an
    image with a patch only what was computed is run. Growth is measured
    over units and over images, without scores and pictures, which are nearly all forwards.

    Args:
        rounds: rounds per measured ratio; long work gets as few as three.
        quick: the digits' network, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: torchvision, or without ``quick`` Captum or Lucent, is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    if not has_torchvision():
        raise ImportError('bench report needs torchvision; pip install "absence-plugins[report]"')
    networks = ["digits"] if quick else ["resnet18", "resnet50"]
    measured = run.time("bench report", build_report_works, networks)
    return BenchResult(tuple(measured), describe_environment("torch", run, networks), "its forwards", "report")


def build_report_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """A whole report, and how it grows with units and with images."""
    amount = QUICK if quick else LARGE if network == "resnet50" else FULL
    case = _Case.of(network, amount, device)
    skip = ("faithfulness", "pictures")
    what = f"{amount.pixels} pixels, {case.layer}"
    if network == "resnet50":  # scores and pictures take minutes, and are nearly all forwards; how it grows is the same
        parts = "without scores and pictures, and its forwards"
        about = f"report of {amount.units} units on {amount.images} JPEG files of {what}, {parts}"
        return {"units": Work(about, LIMIT, *case.sides(amount.images, amount.units, 0, skip), is_same=False)}
    ours, plain = case.sides(amount.images, amount.units, amount.scored)
    by_units = Growth("units", amount.grown_units, lambda units: case.sides(amount.images, units, 0, skip))
    by_images = Growth("images", amount.grown_images, lambda images: case.sides(images, 1, 0, skip))
    bare = case.sides(amount.grown_images[-1], 1, 0, skip)
    return {
        "units": Work(
            f"report of {amount.units} units on {amount.images} JPEG files of {what}, maps scored on {amount.scored}, and "
            "its forwards and backwards; growth: without scores and pictures",
            LIMIT,
            ours,
            plain,
            is_same=False,
            growth=by_units,
        ),
        "images": Work(
            f"report of 1 unit on {amount.grown_images[-1]} JPEG files of {what}, without scores and pictures, and its "
            "forwards and backwards",
            None,
            *bare,
            is_same=False,
            growth=by_images,
        ),
    }


@dataclass(frozen=True, eq=False)
class _Case:
    loaded: LoadedModel
    layer: str
    scan: Scan
    folder: Path
    kept: tempfile.TemporaryDirectory[str]  # removed with the case

    @classmethod
    def of(cls, network: str, amount: Amount, device: torch.device) -> _Case:
        from absence_plugins.commands.layers import Scan
        from absence_plugins.commands.models import LoadedModel, Preprocessing

        if network == "digits":
            from absence_plugins.data import digits_cnn

            model: nn.Module = digits_cnn()
            channels, layer = 1, DIGITS_LAYER
        else:
            import torchvision

            with seeded(0):
                model = torchvision.models.get_model(network, weights=None)
            channels, layer = 3, LAYER
        model = model.eval().to(device)
        prepared = Preprocessing(amount.pixels, channels, (0.5,) * channels, (0.25,) * channels)
        patch = max(8, amount.pixels // 4)
        scan = Scan(size=patch, stride=patch // 2, k=4, images_per_unit=20, batch_size=64)
        kept = tempfile.TemporaryDirectory(prefix="absence-bench-")
        return cls(LoadedModel(model, prepared, ()), layer, scan, _photographs(Path(kept.name), amount), kept)

    def sides(self, images: int, units: int, scored: int, skip: tuple[str, ...] = ()) -> Sides:
        """The report, and the calls of the model in it alone."""
        folder = Path(self.kept.name) / f"first-{images}"
        if not folder.exists():
            folder.mkdir()
            for path in sorted(self.folder.iterdir())[:images]:
                (folder / path.name).hardlink_to(path)
        ours = partial(self.make, folder, units, scored, skip)
        with recording(self.loaded.model) as calls:
            ours()
        return ours, partial(replay, self.loaded.model, Layer(self.layer), calls)

    def make(self, folder: Path, units: int, scored: int, skip: tuple[str, ...]) -> Tensor:
        """A report with a page for each unit, from files to files."""
        from absence_plugins.commands.report import Wanted, run_report

        wanted = Wanted(tuple(range(units)), scored=scored, skip=skip)
        with tempfile.TemporaryDirectory() as out, warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            index = run_report(
                self.loaded, self.layer, self.scan, wanted, Path(out), folder=folder, groups="none", progress=False
            )
            return torch.tensor(len(index.read_bytes()))


def _photographs(folder: Path, amount: Amount) -> Path:
    """JPEG files of smooth random content."""
    from torchvision.utils import save_image

    generator = torch.Generator().manual_seed(0)
    out = folder / "all"
    out.mkdir()
    for number in range(max(amount.images, amount.grown_images[-1])):
        coarse = torch.rand(1, 3, 9, 11, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=(300, 400), mode="bicubic").clamp(0, 1)
        save_image((fine + 0.05 * torch.randn(fine.shape, generator=generator)).clamp(0, 1), out / f"{number:04d}.jpg")
    return out

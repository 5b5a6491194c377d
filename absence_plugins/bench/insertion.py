"""``absence-plugins bench insertion``: what the insertion test costs next to a script that runs every pasted image
whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, has_torchvision
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.changed_parts import Changed, run_changed
from absence_plugins.core.randomness import seeded
from absence_plugins.core.units import Layer
from absence_plugins.methods.insertion.pasting import SOFT, blended, feathered, place, place_elsewhere
from absence_plugins.methods.insertion.plan import draw_elsewhere, make_blocks, make_plan
from absence_plugins.methods.patches import ExtremePatches
from absence_plugins.methods.patches.result import cut_windows

SCRIPT_LIMIT = 1 / 2
MEMORY_LIMIT = 1.1
BATCH = 64
BUILDER = f"{__name__}:build_insertion_works"


@dataclass(frozen=True)
class Setting:
    """How much is tested: images of ``side`` pixels, half of them for patches of ``size``; cells = units * per_unit."""

    layer: str
    images: int
    side: int
    size: int
    units: int
    per_unit: int


SETTINGS = {
    ("resnet18", False): Setting("layer3", 32, 224, 64, 4, 16),
    ("resnet18", True): Setting("layer3", 10, 64, 16, 2, 3),
    ("digits", False): Setting("conv3", 400, 32, 10, 32, 40),
    ("digits", True): Setting("conv3", 16, 32, 10, 2, 3),
}


def run_insertion_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time the insertion test on ``layer3`` of a ResNet-18: 4 units, 16 of 16 images each, patches of 64 in 224 pixels.

    Against a script that pastes and runs each image with all its patches whole, as the test itself once did, it is to
    take at most half of the time; the values are the same. Beside it stand its forwards alone, on images that are
    pasted already, and the bundled digits network, which is too small for anything but whole images. Random weights and
    images for the ResNet, which cost what real ones do.

    Args:
        rounds: rounds per measured ratio; long work gets as few as three.
        quick: tiny images, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: torchvision is missing.
        RuntimeError: test and script find different values, so a ratio would mean nothing.
    """
    run = Run.start(rounds, quick, device, progress)
    if not has_torchvision():
        raise ImportError('bench insertion needs torchvision; pip install "absence-plugins[report]"')
    networks = ["resnet18", "digits"]
    measured = run.time("bench insertion", build_insertion_works, networks)
    if not quick:
        weighed = [("resnet18", "script")]
        measured += run.weigh("bench insertion: memory", weighed, builder=BUILDER, limit=MEMORY_LIMIT)
    return BenchResult(tuple(measured), describe_environment("torch", run, networks), "alternative", "test")


def build_insertion_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """Against the script, and against the forwards alone."""
    from absence_plugins.methods.insertion import insertion_test
    from absence_plugins.methods.patches import find_extreme_patches

    setting = SETTINGS[network, quick]
    model, images = _subject(network, setting, device)
    patches = find_extreme_patches(
        model,
        setting.layer,
        images,
        k=4,
        size=setting.size,
        stride=setting.size // 2,
        units=range(setting.units),
        images=range(len(images) // 2),
        progress=False,
    )

    def test(per_unit: int = setting.per_unit) -> Tensor:
        options: dict[str, Any] = {"images_per_unit": per_unit, "batch_size": BATCH, "progress": False}
        return insertion_test(model, setting.layer, images, patches, groups=range(len(images)), **options).values

    def script(per_unit: int = setting.per_unit) -> Tensor:
        with Layer(setting.layer).reading(model) as run:
            return plain_script(lambda batch: run(batch.to(device)).mean((2, 3)).cpu(), images, patches, per_unit)

    def grow(per_unit: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        return lambda: test(per_unit), lambda: script(per_unit)

    what = f"{setting.layer}, {setting.units} units, {setting.per_unit} of {len(images) // 2} images of {setting.side} pixels each"
    sizes = (max(3, setting.per_unit // 4), max(4, setting.per_unit // 2), max(5, setting.per_unit))
    growth = Growth("images per unit", sizes, grow)
    about = f"test and a script that runs every pasted image whole; {what}"
    if network == "digits":
        return {"script": Work(about, None, test, script, judged=False)}
    prepared = _prepare(images, setting, device)

    def forwards() -> Tensor:
        with Layer(setting.layer).reading(model) as run:
            found = [run_changed(run, changed).values for changed in prepared]
        return torch.cat([one.mean((2, 3)) for one in found if one is not None])

    alone = f"test and the forwards alone of what its patches change, pasted already; {what}"
    return {
        "script": Work(about, SCRIPT_LIMIT, test, script, growth=growth),
        "forwards": Work(alone, None, test, forwards, is_same=False, judged=False),
    }


def _subject(network: str, setting: Setting, device: torch.device) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if network == "digits":
        from absence_plugins.data.digits import digits_cnn, load_digits

        return digits_cnn().to(device), load_digits().train_images[: setting.images]
    import torchvision

    with seeded(0):
        model: nn.Module = torchvision.models.get_model(network, weights=None).eval().to(device)
    coarse = torch.rand(setting.images, 3, 8, 8, generator=generator)
    return model, nn.functional.interpolate(coarse, size=setting.side, mode="bilinear")


def plain_script(values: Callable[[Tensor], Tensor], images: Tensor, patches: ExtremePatches, per_unit: int) -> Tensor:
    """The test as a script: every image is read once, and run whole with all its patches in one batch.

    ``values``: images [n, C, H, W] to [n, units of the layer]. Returns the values [units, per_unit, arms]; the mirror
    test runs, too.
    """
    size, units = int(patches.settings["size"]), list(patches.units)
    height, width = images.shape[2:]
    alpha, empty = feathered(size, size // SOFT), images.new_zeros(images.shape[1], size, size)
    rest = torch.arange(len(images) // 2, len(images))
    high = torch.cat([values(images[part]) for part in torch.split(rest, BATCH)])[:, units]
    where = rest[high.T.argsort(dim=1, descending=True, stable=True)[:, :per_unit]]
    plan = make_plan(patches, range(len(units)), where, 0, "controlled")
    pixels = {arm: cut_windows(images, places, size) for arm, places in plan.positions.items()}
    found = torch.empty(len(units), per_unit, 6)
    for block in make_blocks(where, 1, 1):
        image, made = images[block.images[0]], [images[block.images[0]]]
        for row, slot in zip(*block.index, strict=True):
            y, x = place(height, width, size, plan.draws[row, slot], False)
            for arm in ("lowest", "highest", "random", "median", "blank"):
                patch = empty if arm == "blank" else pixels[arm][row, plan.choice[arm][row, slot]]
                made.append(paste(image, patch, y, x, alpha))
        told = torch.cat([values(part) for part in torch.split(torch.stack(made), BATCH)])
        for at, (row, slot) in enumerate(zip(*block.index, strict=True)):
            found[row, slot, 0] = told[0, units[row]]
            found[row, slot, 1:] = told[1 + 5 * at : 6 + 5 * at, units[row]]
    places = patches.lowest_apart.positions
    draws = draw_elsewhere(places, 0)
    for block in make_blocks(places[:, :, 0], 1, 1):
        image, made = images[block.images[0]], []
        for row, slot in zip(*block.index, strict=True):
            y, x = places[row, slot, 1:].tolist()
            other = place_elsewhere(height, width, size, y, x, draws[row, slot])
            made += [paste(image, empty, down, right, alpha) for down, right in ((y, x), other)]
        for part in torch.split(torch.stack(made), BATCH):
            values(part)
    return found


def paste(image: Tensor, patch: Tensor, y: int, x: int, alpha: Tensor) -> Tensor:
    """A copy of an image [C, H, W] with a patch [C, size, size] blended in at (y, x)."""
    made = image.clone()
    made[:, y : y + len(alpha), x : x + len(alpha)] = blended(image, patch, y, x, alpha)
    return made


def _prepare(images: Tensor, setting: Setting, device: torch.device) -> list[Changed]:
    """As many pasted images as the test runs, in full batches: each image with five patches at two places."""
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    cells, made = setting.units * setting.per_unit, []
    rest = images[len(images) // 2 :]
    size = setting.size
    while cells > 0:
        many = min(cells, BATCH // 5)
        cells -= many
        rows = [one // 2 for one in range(many) for _ in range(5)]
        draws = torch.rand(many, 3, generator=generator)
        corners = [place(setting.side, setting.side, size, draw, False) for draw in draws for _ in range(5)]
        pixels = torch.rand(5 * many, images.shape[1], size, size, generator=generator)
        own = rest[: rows[-1] + 1].to(device).contiguous(memory_format=layout)
        made.append(Changed(own, rows, corners, pixels.to(device).contiguous(memory_format=layout)))
    return made

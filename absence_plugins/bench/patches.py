"""``absence-plugins bench patches``: what the search costs beyond the network's own forwards, and next to a plain
script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, has_torchvision
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.randomness import seeded
from absence_plugins.core.units import Layer
from absence_plugins.methods.patches.windows import corners, windows_of

FORWARD_LIMIT = 1.06
SCRIPT_LIMIT = 1 / 3  # the search takes at most a third of the script's time
LAYER, K, SIZE, STRIDE = "layer4", 8, 64, 16
IMAGES = {False: 8, True: 2}
GROWN = {False: (2, 4, 8), True: (1, 2, 3)}
PIXELS = {False: 224, True: 80}  # 121 windows, and 4
BUILDER = f"{__name__}:build_patch_works"


def run_patches_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time the patch search on ``layer4`` of a ResNet-18 (512 units) and a ResNet-50 (2,048): 121 patches an image, k =
    8.

    Against the forwards alone, on patches that are cut already, in the layout in which they are fastest, and stop at
    the layer, it is to cost little more; against a straightforward script (on the ResNet-18), which keeps the pixels of
    every unit's patches, at most a third. Random weights and images, which cost what real ones do.

    Args:
        rounds: rounds per measured ratio; long work gets as few as three.
        quick: tiny images, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: torchvision is missing.
        RuntimeError: search and script find different scores, so a ratio would mean nothing.
    """
    run = Run.start(rounds, quick, device, progress)
    if not has_torchvision():
        raise ImportError('bench patches needs torchvision; pip install "absence-plugins[report]"')
    networks = ["resnet18"] if quick else ["resnet18", "resnet50"]
    measured = run.time("bench patches", build_patch_works, networks)
    if not quick:
        measured += run.weigh("bench patches: memory", [("resnet18", "script")], builder=BUILDER, limit=1.0)
    return BenchResult(tuple(measured), describe_environment("torch", run, networks), "alternative", "search")


def build_patch_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """Against the forwards alone, and against the script."""
    import torchvision

    from absence_plugins.methods.patches import find_extreme_patches

    with seeded(0):
        model: nn.Module = torchvision.models.get_model(network, weights=None).eval().to(device)
    pixels = PIXELS[quick]
    images = torch.randn(IMAGES[quick], 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    places = corners(pixels, pixels, SIZE, STRIDE)
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    crops: list[Tensor] = []

    def forwards(count: int = len(images)) -> Tensor:
        for image in images[len(crops) : count]:
            crops.append(windows_of(image, places, SIZE, "crop").to(device).contiguous(memory_format=layout))
        return torch.cat([_to_layer(model, part).mean((2, 3)) for part in crops[:count]])

    def search(count: int = len(images)) -> Tensor:
        found = find_extreme_patches(
            model, Layer(LAYER, side="output"), images[:count], k=K, size=SIZE, stride=STRIDE, progress=False
        )
        return found.highest.scores

    def grow(count: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        return lambda: search(count), lambda: forwards(count)

    def script() -> Tensor:
        return plain_script(lambda part: _to_layer(model, part.to(device)), images)

    what = f"{len(images)} images of {pixels} pixels, {len(places)} patches each, {LAYER}, k = {K}"
    works = {
        "forward only": Work(
            f"search and the forwards it needs; {what}",
            FORWARD_LIMIT,
            search,
            forwards,
            is_same=False,
            growth=Growth("images", GROWN[quick], grow),
        ),
    }
    if network == "resnet18":  # the script would hold gigabytes for 2,048 units
        about = f"search and a script that keeps every unit's patches; {what}"
        works["script"] = Work(about, SCRIPT_LIMIT, search, script)
    return works


def _to_layer(model: Any, x: Tensor) -> Tensor:
    """A ResNet up to its last block, without anything behind it."""
    with torch.inference_mode():
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
        return x


def plain_script(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """As published scripts do it: every unit keeps pixels and places of its k best patches, and takes in each image's k
    best one by one.

    Returns the highest scores [units, k].
    """
    kept: dict[bool, list[tuple[Tensor, Tensor, Tensor]]] = {True: [], False: []}
    places = corners(images.shape[2], images.shape[3], SIZE, STRIDE)
    for number, image in enumerate(images):
        patches = (
            image.unfold(1, SIZE, STRIDE).unfold(2, SIZE, STRIDE).permute(1, 2, 0, 3, 4).reshape(-1, 3, SIZE, SIZE)
        )
        scores = run(patches).mean((2, 3)).cpu()
        for largest, units in kept.items():
            for unit in range(scores.shape[1]):
                if unit == len(units):
                    units.append(
                        (scores.new_empty(0), patches.new_empty(0, *patches.shape[1:]), places.new_empty(0, 3))
                    )
                for new in scores[:, unit].topk(min(K, len(scores)), largest=largest).indices:
                    values = torch.cat([units[unit][0], scores[new, unit][None]])
                    pixels = torch.cat([units[unit][1], patches[new][None]])
                    where = torch.cat([units[unit][2], torch.tensor([[number, *places[new].tolist()]])])
                    order = values.argsort(descending=largest)[:K]
                    units[unit] = values[order], pixels[order], where[order]
    return torch.stack([values for values, _, _ in kept[True]])

"""``absence-plugins bench reading``: a folder of photographs as the commands read it, next to torch's DataLoader."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, has_torchvision
from absence_plugins.bench.works import Growth, Work

LIMIT = 1.05  # of the loader's time: every file is checked and hashed as well
BATCH = 64
SIZES = {False: (500, 1000, 2000), True: (4, 8, 16)}
IMAGES = {False: 1000, True: 6}
DRAWN = {False: 50, True: 2}  # different photographs; the others differ from them by a comment in the file
WIDTH, HEIGHT, PIXELS, RESIZED = 320, 240, 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run_reading_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time the reading of 1,000 JPEGs of 320 x 240 pixels, from the names to batches as a ResNet takes them.

    Ours: the walk over the folder, the check that every file is whole, a hash of each, and the images: by number as the
    scans read them, without and with two workers, and as ``label``, ``directions`` and references do, in threads. Next
    to torchvision's ``ImageFolder`` in a ``DataLoader`` with as many workers, and the same preprocessing. How many
    images
    are held must not grow with the folder: see the exponent of the memory.

    Args:
        rounds: rounds per measured ratio.
        quick: a few images, nothing judged: shows that the bench works.
        device: "auto", "cpu" or "cuda": images are read on the CPU.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: torchvision is missing.
        RuntimeError: both sides read different numbers.
    """
    run = Run.start(rounds, quick, device, progress)
    if not has_torchvision():
        raise ImportError('bench reading needs torchvision; pip install "absence-plugins[report]"')
    measured = run.time("bench reading", build_reading_works, ["folder"])
    return BenchResult(tuple(measured), describe_environment("torch", run), "DataLoader", "reader")


def build_reading_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """By number without and with workers, and in threads."""
    from absence_plugins.data.reading_ahead import THREADS

    what = f"{IMAGES[quick]:,} JPEGs of {WIDTH} x {HEIGHT} pixels as batches of {BATCH}, checked and hashed"
    ways: dict[str, tuple[str, Callable[[int], tuple[Callable[[], Tensor], Callable[[], Tensor]]]]] = {
        "no workers": ("by number, in one process", partial(_by_number, quick, 0)),
        "2 workers": ("by number, two processes read", partial(_by_number, quick, 2)),
        "threads": (f"in order, {THREADS} threads, next to as many workers", partial(_in_threads, quick, THREADS)),
    }
    works = {}
    for name, (how, at) in ways.items():
        ours, plain = at(IMAGES[quick])
        has_memory = name != "2 workers"  # that of other processes is not seen
        growth = Growth("images", SIZES[quick], at, memory=has_memory)
        works[name] = Work(f"{what}; {how}", LIMIT, ours, plain, growth=growth)
    return works


def _by_number(quick: bool, workers: int, count: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """A scan's reading: the data set, its identity, and its images in blocks."""
    from absence_plugins.commands.image_folder import FolderImages
    from absence_plugins.methods.identity import identify_data
    from absence_plugins.methods.patches.images import read, stack_images

    folder = make_photographs(count, DRAWN[quick])

    def ours() -> Tensor:
        data = FolderImages(folder, _preprocessing())
        identify_data(data)
        blocks = [list(range(at, min(len(data), at + BATCH))) for at in range(0, len(data), BATCH)]
        found = read(data, blocks, workers)
        return _measure(stack_images(block) for block in found)

    return ours, partial(_load_plainly, folder, workers)


def _in_threads(quick: bool, threads: int, count: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The reading of ``label`` and others: the files that are whole, and their images in order."""
    from absence_plugins.commands.image_folder import readable
    from absence_plugins.commands.reading import read_batches
    from absence_plugins.data.folders import find_images
    from absence_plugins.methods.identity import identify_data

    folder = make_photographs(count, DRAWN[quick])

    def ours() -> Tensor:
        found = readable(find_images(folder), progress=False)
        identify_data(found)
        blocks = [range(at, min(len(found), at + BATCH)) for at in range(0, len(found), BATCH)]
        return _measure(read_batches(_preprocessing().input, found.files, blocks))

    return ours, partial(_load_plainly, folder, threads)


def _load_plainly(folder: Path, workers: int) -> Tensor:
    from torchvision import datasets, transforms

    steps = [transforms.Resize(RESIZED), transforms.CenterCrop(PIXELS), transforms.ToTensor()]
    data = datasets.ImageFolder(str(folder), transforms.Compose([*steps, transforms.Normalize(MEAN, STD)]))
    loader = torch.utils.data.DataLoader(data, BATCH, num_workers=workers)
    return _measure(images for images, _ in loader)


def _measure(batches: Iterable[Tensor]) -> Tensor:
    """A number of every image, so that both sides can be compared and none is kept."""
    return torch.cat([images.mean((1, 2, 3)) for images in batches])


def _preprocessing() -> Any:
    from absence_plugins.commands.preprocessing import Preprocessing

    return Preprocessing(PIXELS, 3, MEAN, STD, RESIZED)


@cache
def make_photographs(count: int, drawn: int) -> Path:
    """A folder of JPEGs in two classes, which is removed when the process ends: soft shapes with noise.

    drawn: of which so many are drawn; the others are the same pictures with another comment in the file.
    """
    folder = Path(tempfile.mkdtemp(prefix="absence-plugins-reading-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    contents = [_draw(number) for number in range(drawn)]
    for number in range(count):
        comment = f"{number:08d}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        content = contents[number % drawn]
        path = folder / f"class-{2 * number // count}" / f"{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content[:2] + segment + content[2:])
    return folder


def _draw(seed: int) -> bytes:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(seed)
    soft = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
    noisy = np.asarray(soft).astype(int) + generator.integers(-12, 13, (HEIGHT, WIDTH, 1))
    stream = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()

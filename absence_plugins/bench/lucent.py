"""``absence-plugins bench lucent``: what a step of ``render_vis`` costs next to Lucent's own, for the same picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.subjects import subject
from absence_plugins.bench.surroundings import describe_environment
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.randomness import seeded

STEP_LIMIT = 1.05
# (network, quick): the layer, whose output nothing works on in place; image side, steps
SIZES: dict[tuple[str, bool], tuple[str, int, int]] = {
    ("digits", False): ("conv3", 32, 128),
    ("digits", True): ("conv3", 32, 2),
    ("resnet18", False): ("layer2_0_conv1", 128, 16),
    ("resnet18", True): ("layer2_0_conv1", 32, 2),
}
CHANNEL = 5


def run_lucent_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time a rendering of ours next to Lucent's: the same objective, start, transforms, steps, and the same picture.

    The objective is minus a channel, on a layer whose output is a pre-activation that nothing overwrites, so both
    optimize the same value; that the pictures are equal is checked first. Our time includes the look at the model
    before the first step and the value that is reported at the end.

    Args:
        rounds: rounds per measured ratio; short work gets up to eight times as many, long work down to three.
        quick: tiny sizes, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist, or the CPU where Lucent insists on CUDA.
        ImportError: Lucent or scikit-learn is missing.
        RuntimeError: the two pictures differ, so a ratio would mean nothing.
    """
    run = Run.start(rounds, quick, device, progress)
    if run.device.type == "cpu" and torch.cuda.is_available():
        raise ValueError(f"device={device!r}: Lucent itself puts its images on cuda:0 here; use device='cuda'")
    import absence_plugins.lucent  # noqa: F401  (says what to install where Lucent is missing)

    measured = run.time("bench lucent", build_lucent_works, run.networks)
    return BenchResult(tuple(measured), describe_environment("torch-lucent", run, run.networks), "Lucent")


def build_lucent_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """What is measured on one network: with Lucent's transforms, and without."""
    from lucent.optvis import objectives, param, render

    from absence_plugins.lucent import absence_channel, render_vis

    layer, pixels, most = SIZES[network, quick]
    loaded, x, _, _ = subject(network, 1, 1, pixels)
    model, colors = loaded.to(device), {"channels": 1} if x.shape[1] == 1 else {}

    def start() -> Any:
        return param.image(pixels, **colors)

    def sides(transforms: list[Any] | None, steps: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        chosen: dict[str, Any] = {"thresholds": (steps,), "preprocess": x.shape[1] == 3, "progress": False}
        chosen |= {"transforms": transforms, "fixed_image_size": pixels}

        def plain() -> Tensor:
            with seeded(0), as_before(model):
                pictures = render.render_vis(
                    model, -objectives.channel(layer, CHANNEL), start, show_image=False, **chosen
                )
            return torch.from_numpy(pictures[-1])

        def ours() -> Tensor:
            return torch.from_numpy(render_vis(model, absence_channel(layer, CHANNEL), start, seed=0, **chosen)[-1])

        return ours, plain

    def work(transforms: list[Any] | None) -> Work:
        kind = "Lucent's transforms" if transforms is None else "no transforms"
        what = f"render_vis, {most} steps at {pixels} pixels, {layer}:{CHANNEL} lowered, {kind}"
        sizes = (max(1, most // 4), max(2, most // 2), max(3, most))
        growth = Growth("steps", sizes, lambda steps: sides(transforms, steps), transforms is None)
        return Work(what, STEP_LIMIT, *sides(transforms, most), growth=growth)

    return {"plain": work([]), "transformed": work(None)}


@contextmanager
def as_before(model: nn.Module) -> Iterator[None]:
    """The model without the hooks and gradients that Lucent leaves on it, which would slow every later call."""
    known = {module: set(module._forward_hooks) for module in model.modules()}
    try:
        yield
    finally:
        for module, kept in known.items():
            for key in set(module._forward_hooks) - kept:
                del module._forward_hooks[key]
        model.zero_grad(set_to_none=True)

"""``absence-plugins bench debias``: what a training step with the attribution prior costs next to a plain step.

A plain step is a forward and a backward twice as dear (to the activations and to the weights): 3. "both" adds two
backwards to the input (2), and the gradients of these two to the weights (4): 9, three times a plain step, if every
image carries the artefact. Where the samples do not see each other, those without it take no part: 6, twice a plain
step, if every second one does (`AttributionPrior.with_logits`). Beyond that come the gradients of the first layer to
the images, which a plain step leaves out, and the work on smaller batches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.subjects import subject
from absence_plugins.bench.surroundings import describe_environment
from absence_plugins.bench.works import Growth, Work
from absence_plugins.methods.debias import AttributionPrior

BOTH_LIMIT = 2.6
TWO_CALLS_LIMIT = 1.0
WEIGHT = 10.0
Call = Callable[[], Tensor]
# (network, quick): images, side
SIZES = {
    ("digits", False): (64, 32),
    ("digits", True): (4, 32),
    ("resnet18", False): (8, 112),
    ("resnet18", True): (2, 32),
}


def run_debias_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time the gradients of one training step: plain, with the prior, and with the prior as two separate calls.

    That one call and two give the same gradients is checked first.

    Args:
        rounds: rounds per measured ratio; short work gets up to eight times as many, long work down to three.
        quick: tiny sizes, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: scikit-learn is missing.
        RuntimeError: one call and two give different gradients.
    """
    run = Run.start(rounds, quick, device, progress)
    measured = run.time("bench debias", debias_works, run.networks)
    return BenchResult(tuple(measured), describe_environment("numpy", run, run.networks), "plain", "prior")


def debias_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """What is measured on one network: "presence", "both" with every second image and with all, and two calls."""
    count, pixels = SIZES[network, quick]
    step = f"a step's gradients, {count} images at {pixels} pixels"

    def work(name: str, what: str, limit: float | None = None, *, is_same: bool = False) -> Work:
        def at(size: int) -> tuple[Call, Call]:
            return _steps(network, size, pixels, device)[name]

        growth = Growth("images", (max(1, count // 4), max(2, count // 2), max(3, count)), at, name == "both")
        return Work(f"{step}; {what}", limit, *at(count), is_same=is_same, growth=growth)

    half = "every second image carries the artefact, as where one of two classes does"
    return {
        "presence": work("presence", "against one without a prior"),
        "both": work("both", f"against one without a prior; {half}: 6 / 3 at best", BOTH_LIMIT),
        "both, own forward": work(
            "both, own forward", f"{half}; with_logits against a prior with a forward of its own", is_same=True
        ),
        "both, all carry": work(
            "both, all carry", "against one without a prior; every image carries it: 9 / 3 at best"
        ),
        "both, two calls": work(
            "both, two calls",
            "one prior and a shared forward against two priors with their own",
            TWO_CALLS_LIMIT,
            is_same=True,
        ),
    }


def _steps(network: str, count: int, pixels: int, device: torch.device) -> dict[str, tuple[Call, Call]]:
    """Both sides by name, for ``count`` images."""
    loaded, images, _, _ = subject(network, count, 1, pixels)
    model, x = loaded.to(device), images.to(device)
    labels = torch.arange(count, device=device) % 10
    mask = torch.zeros(count, 1, *x.shape[2:], dtype=torch.bool, device=device)
    mask[..., x.shape[2] // 2 :, x.shape[3] // 2 :] = True
    half = mask & (torch.arange(count, device=device) % 2 == 0)[:, None, None, None]
    presence, absence, both = (AttributionPrior(model, mode) for mode in ("presence", "absence", "both"))

    def plain() -> Tensor:
        return _gradients(model, F.cross_entropy(model(x), labels))

    def shared(prior: nn.Module) -> Tensor:
        leaf = x.detach().requires_grad_()
        logits = model(leaf)
        return _gradients(model, F.cross_entropy(logits, labels) + WEIGHT * prior(leaf, labels, mask, logits=logits))

    def as_published() -> Tensor:
        logits, penalty = both.with_logits(x, labels, half)
        return _gradients(model, F.cross_entropy(logits, labels) + WEIGHT * penalty)

    def own_forward() -> Tensor:
        return _gradients(model, F.cross_entropy(model(x), labels) + WEIGHT * both(x, labels, half))

    def two_calls() -> Tensor:
        penalty = (presence(x, labels, mask) + absence(x, labels, mask)) / 2
        return _gradients(model, F.cross_entropy(model(x), labels) + WEIGHT * penalty)

    return {
        "presence": (lambda: shared(presence), plain),
        "both": (as_published, plain),
        "both, own forward": (as_published, own_forward),
        "both, all carry": (lambda: shared(both), plain),
        "both, two calls": (lambda: shared(both), two_calls),
    }


def _gradients(model: nn.Module, loss: Tensor) -> Tensor:
    """The gradients to all weights in one tensor; ``.grad`` stays as it is."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])

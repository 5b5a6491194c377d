"""The published recipe, to compare with: its steps and weights, on centered features, from one random start."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.methods.directions import losses
from absence_plugins.methods.directions.estimate import say_long
from absence_plugins.methods.directions.features import Features, batches
from absence_plugins.methods.directions.recipe import Head, Options, Solution
from absence_plugins.methods.directions.whitening import Whitening

# weights of the published steps a, b and d; uur: unconstrained, cur: constrained uncertainty region alignment
STEPS: dict[str, dict[str, float]] = {
    "a": {"s": 2.6, "ma": 2.8, "mm": 0.6, "ic": 5.0, "uur": 0.25},
    "b": {"s": 0.85, "sb": 2.6, "ma": 2.8, "mm": 0.6, "ic": 15.0, "uur": 0.25, "eac": 15.0},
    "d": {"s": 0.85, "sb": 2.6, "ma": 2.8, "mm": 0.6, "ic": 15.0, "cur": 0.25, "eac": 15.0, "fso": 1.0},
}
TAU = {"a": 0.9, "b": 0.9, "d": 0.2}
RHO = {"a": 1.0, "b": 12.0, "d": 70.0}  # times tau / I
RATE = 5e-3


def paper(features: Features, whitening: Whitening, head: Head | None, options: Options) -> Solution:
    """Train as published, apart from two things: penalties in place of an augmented Lagrangian, and fewer, larger
    steps.

    Features are centered and divided by one number, their root mean square. Margins M are learned, and in step d so
    are the signal vectors, as free parameters that start at the decoding directions; the encoding directions that
    :class:`~absence_plugins.methods.directions.DirectionPairs` reports come from the estimator all the same. In our
    measurements it does not recover the pairs; it is here as a baseline.
    """
    generator = torch.Generator().manual_seed(options.seed)
    scale = (whitening.backward**2).sum().div(len(whitening.mean)).sqrt()
    dimensions, count = len(whitening.mean), options.detectors
    drawn = torch.randn(dimensions, count, generator=generator, dtype=torch.float64).to(whitening.mean)
    v = drawn.float().requires_grad_()
    t = torch.zeros(count, device=v.device, requires_grad=True)
    log_margin = torch.zeros(count, device=v.device, requires_grad=True)
    order = batches(features.shape[0], options.batch_size, generator)
    history: dict[str, float] = {}
    with torch.enable_grad(), tqdm(total=3 * options.steps, desc="directions", disable=not options.progress) as bar:
        for name, weights in STEPS.items():
            s = F.normalize(v.detach(), dim=0).clone().requires_grad_()
            parameters = [v, t, log_margin, *([s] if name == "d" else [])]
            optimizer = torch.optim.Adam(parameters, lr=RATE)
            for _ in range(options.steps):
                images = features.batch(next(order))
                x = ((images.double() - whitening.mean) / scale).float()
                low, high = options.step_range
                kappa = low + (high - low) * float(torch.rand((), generator=generator))
                terms = _terms(name, images, x, v, t, log_margin.exp(), s, kappa * scale, head, options)
                total = torch.stack([weights[key] * value for key, value in terms.items()]).sum()
                gradients = torch.autograd.grad(total, parameters, allow_unused=True)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                bar.update()
                say_long(bar)
                history = {_NAMES[key]: float(value.detach()) for key, value in terms.items()}
    # into the coordinates that every recipe answers in
    slope = log_margin.detach().neg().exp().double()
    decoding = F.normalize(v.detach().double(), dim=0) / scale  # per unit of slope
    turned = whitening.backward @ decoding
    norm = turned.norm(dim=0).clamp(min=1e-12)
    return Solution((turned / norm).float(), (t.detach().double() / norm).float(), (slope * norm).float(), history)


_NAMES = {
    "s": "sparsity",
    "sb": "sparsity_bound",
    "ma": "max_activation",
    "mm": "max_margin",
    "ic": "inactive",
    "eac": "excessive",
    "fso": "orthogonality",
    "uur": "alignment",
    "cur": "alignment",
}


def _terms(
    step: str,
    images: Tensor,
    x: Tensor,
    v: Tensor,
    t: Tensor,
    margins: Tensor,
    s: Tensor,
    kappa: Tensor,
    head: Head | None,
    options: Options,
) -> dict[str, Tensor]:
    """The losses of a published step, without their weights."""
    wanted, kept = STEPS[step], options.n_directions
    decoding = F.normalize(v, dim=0) / margins
    logits = x.flatten(0, -2) @ decoding - t / margins
    own, tau = logits[:, :kept], TAU[step]
    log_y, log_q = losses.log_shares(logits, virtual=options.background == "virtual")
    terms = {
        "s": losses.sparsity(log_q),
        "ma": losses.max_activation(log_y, log_q),
        "mm": losses.max_margin(margins),
        "ic": losses.inactive_classifier(own.sigmoid(), tau),
    }
    if "sb" in wanted:
        terms["sb"] = losses.sparsity_bound(log_q)
    if "eac" in wanted:
        terms["eac"] = losses.excessively_active(own.sigmoid(), RHO[step] * tau / kept)
    if "fso" in wanted:
        terms["fso"] = losses.filter_signal_orthogonality(decoding[:, :kept], s[:, :kept])
    if head is not None:
        count = min(options.head_batch, len(images))
        few = own[: count * images.shape[1] * images.shape[2]]
        span = s[:, :kept] if "cur" in wanted else None
        shift = losses.region_shift(few, decoding[:, :kept], span)
        moved = images[:count] - kappa.float() * shift.reshape(images[:count].shape)
        terms["cur" if "cur" in wanted else "uur"] = losses.uncertainty(head(moved))
    return terms

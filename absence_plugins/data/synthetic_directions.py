"""Features whose concepts are known: the published synthetic set-up for direction pairs, and its harder variants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ABSENT, PRESENT = (0.0, 2.5), (2.5, 5.0)  # published: a concept's signal where it is missing, where it is there
DISTRACTION, CONSTANT = 5.0, 10.0
SPREAD = 1.25  # of half-normal strengths, before the threshold of presence is added
STRENGTHS = ("uniform", "half-normal")
PRESENCES = ("one", "independent")
Strengths = Literal["uniform", "half-normal"]
Frequencies = Literal["equal", "zipf"] | float | Sequence[float]


@dataclass(frozen=True, eq=False)
class SyntheticDirections:
    """Features x = c (S a + S' a' + D b + constant + noise) per position, with everything that made them.

    N images of H x W positions, D dimensions, I concepts, C classes.

    Attributes:
        features: [N, H, W, D] float32, channels last.
        labels: [N] int64, the class of the image.
        present: [N, H, W, I] bool, where each concept is.
        signal_values: [N, H, W, I], a: 0 to 2.5 where a concept is missing, above 2.5 where it is there.
        encoding: [D, I], the true encoding directions c S, unit norm.
        decoys: [D, J], directions of the decoy concepts (J is 0 or I), present as often as the concepts, in pairs of
            their own, but ignored by the labels.
        decoys_present: [N, H, W, J] bool.
        head: features [n, H, W, D] to class logits [n, C]: average over positions, then a trained linear layer.
        accuracy: the head's, on ``features``.
        scale: [D], c, by which each feature was multiplied; ones unless asked for.
    """

    features: Tensor
    labels: Tensor
    present: Tensor
    signal_values: Tensor
    encoding: Tensor
    decoys: Tensor
    decoys_present: Tensor
    head: Callable[[Tensor], Tensor]
    accuracy: float
    scale: Tensor

    @property
    def unit(self) -> Tensor:
        """[I]: how far the features move along ``encoding`` for 1 of ``signal_values``; ones where ``scale`` is."""
        length: Tensor = (self.encoding / self.scale[:, None]).norm(dim=0)
        return 1 / length

    def __repr__(self) -> str:
        count, height, width, dimensions = self.features.shape
        decoys = f", {self.decoys.shape[1]} decoys" if self.decoys.shape[1] else ""
        return (
            f"SyntheticDirections({count} images of {height * width} positions, {dimensions} dimensions, "
            f"{self.encoding.shape[1]} concepts{decoys}, head accuracy {self.accuracy:.2f})"
        )


class PooledLinear(nn.Module):
    """Average over positions, then a linear layer: [n, H, W, D] -> [n, C]."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """[n, H, W, D] -> [n, C]."""
        return F.linear(features.mean((1, 2)), self.weight, self.bias)  # type: ignore[arg-type]


def synthetic_directions(
    seed: int = 0,
    *,
    dimensions: int = 16,
    concepts: int = 3,
    distractors: int = 2,
    images: int = 3000,
    decoys: bool = False,
    overlap: float = 0.0,
    frequencies: Frequencies = "equal",
    strengths: Strengths = "uniform",
    scales: float = 1.0,
    noise: float = 0.0,
    background: float = 0.0,
) -> SyntheticDirections:
    """The published synthetic set-up, by default: 16 dimensions, 3 concepts, 2 distractors, 3,000 images.

    Every class is a pair of concepts; its images show one of them at each of two positions. S, S' and D have random
    unit columns, a ~ U(2.5, 5) where a concept is there and U(0, 2.5) where it is missing, b ~ U(0, 5).

    Source: Doumanoglou et al., arXiv 2509.23926 (TMLR 2026), the synthetic experiment.

    Args:
        seed: the same seed gives the same bits; the global random state is untouched.
        dimensions: D.
        concepts: I, at least 2.
        distractors: columns of D.
        images: N.
        decoys: I further concepts with the same overlap, frequencies and background, in the images of other pairs,
            chosen at random; the labels, so the head, ignore them.
        overlap: share of positions with two different concepts, to the nearest position.
        frequencies: of the pairs (0, 1), (0, 2), ..., (1, 2), ..., to the nearest image. ``"equal"``; ``"zipf"``, in
            proportion to the product of 1/rank of the two concepts; one number, the share of the first pair, the
            others have equal parts of the rest; or one number per pair, in proportion.
        strengths: ``"uniform"``, as published; ``"half-normal"``, 1.25 abs(n) of a standard normal n, below 2.5 where
            the concept is missing, and above 2.5 (added) where it is there.
        scales: the features are multiplied by factors from 1/sqrt(scales) to sqrt(scales), evenly spaced on a
            logarithmic axis, in random order.
        noise: standard deviation of Gaussian noise, in units of the features' own (over all dimensions).
        background: share of positions without any concept, to the nearest position; none of them overlaps.

    Raises:
        ValueError: fewer than two concepts, fewer images than classes, shares outside [0, 1] or more than 1 in all,
            a number of frequencies other than that of the pairs, scales below 1, noise below 0, NaN or infinite
            numbers.

    Example:
        >>> synthetic_directions(images=30)
        SyntheticDirections(30 images of 2 positions, 16 dimensions, 3 concepts, head accuracy ...)
        >>> data = synthetic_directions(images=300, overlap=0.1, frequencies=(67, 22, 11))
        >>> (data.present.sum(-1) == 2).double().mean(), data.labels.bincount()
        (tensor(0.1000, dtype=torch.float64), tensor([201,  66,  33]))
    """
    pairs = torch.tensor(list(combinations(range(concepts), 2)))
    if concepts < 2 or images < len(pairs):
        raise ValueError(f"concepts={concepts} must be at least 2, images={images} at least one per pair of concepts")
    _check(overlap, background, strengths, scales, noise)
    draw = _Draw(torch.Generator().manual_seed(seed), strengths)
    encoding, ignored, distraction = (
        F.normalize(draw.normal(dimensions, count), dim=0) for count in (concepts, concepts * decoys, distractors)
    )
    labels = torch.arange(images) % len(pairs)
    if frequencies != "equal":
        zipf = (1 / (pairs + 1).double()).prod(1)
        labels = draw.shuffled(_share_out(_read_weights(frequencies, zipf, "pair of concepts"), images))
    order = draw.uniform(0, 1, images, 2).argsort(1)
    first = pairs[labels].gather(1, order)
    present = draw.presence(first, concepts, overlap, background)  # [N, 2, I]
    # drawn in any case, so that data without decoys keep their bits: another image's pair, in either order
    mixed = draw.integers(2**27, images, 2)
    swapped = pairs[labels[mixed[:, 0].argsort()]].gather(1, torch.stack([mixed[:, 1] % 2, 1 - mixed[:, 1] % 2], 1))
    decoys_present = draw.presence(swapped, concepts, overlap, background) if decoys else present[..., :0]
    values = draw.levels(present)
    features = values @ encoding.T + draw.levels(decoys_present) @ ignored.T + CONSTANT
    features = draw.disturbed(features, distraction, noise)
    scale = draw.scale(dimensions, scales)
    features = (features * scale)[:, None]
    if scales != 1:
        encoding, ignored = (F.normalize(one * scale[:, None], dim=0) for one in (encoding, ignored))
    head = _train_head(features, labels, len(pairs))
    accuracy = float((head(features).argmax(1) == labels).double().mean())
    shown, known, decoyed = present[:, None], values[:, None], decoys_present[:, None]
    return SyntheticDirections(features, labels, shown, known, encoding, ignored, decoyed, head, accuracy, scale)


def many_directions(
    seed: int = 0,
    *,
    dimensions: int = 512,
    concepts: int = 64,
    distractors: int = 16,
    images: int = 3000,
    width: int = 10,
    overlap: float = 0.0,
    presence: Literal["one", "independent"] = "one",
    frequencies: Frequencies = "equal",
    strengths: Strengths = "uniform",
    scales: float = 1.0,
    noise: float = 0.1,
) -> SyntheticDirections:
    """Many concepts in a wide layer: every position shows one concept, drawn by itself, and ``overlap`` of them two.

    Or, with ``presence="independent"``, none, one or several, as in ordinary layers.

    Strengths, distractors, scales and noise as in :func:`synthetic_directions`. The head is the least-squares estimate
    of how often each concept occurs in an image, from the features averaged over positions: one logit per concept. An
    image's label is the concept that it shows most often, the first of several.

    Args:
        seed: the same seed gives the same bits; the global random state is untouched.
        dimensions: D.
        concepts: I, at least 2.
        distractors: columns of D.
        images: N.
        width: positions per image; N times ``width`` positions in all.
        overlap: share of positions with two different concepts, to the nearest position.
        presence: ``"one"``; ``"independent"``: each concept is at a position or not whatever else is there; some
            positions have none, and ``overlap`` must be 0.
        frequencies: of the concepts. ``"equal"``: 1/I; ``"zipf"``: in proportion to 1/(k + 1) of number k; one number:
            independent, of every concept, else the share of the first, the others have equal parts of the rest; or one
            number per concept: independent, the frequency, from 0 to 1, else in proportion. Independent concepts are
            drawn; else to the nearest position, before the second concepts of overlaps, which are drawn equally often.
        strengths: see :func:`synthetic_directions`.
        scales: see :func:`synthetic_directions`.
        noise: see :func:`synthetic_directions`.

    Raises:
        ValueError: fewer than two concepts, fewer positions than concepts, shares outside [0, 1], scales below 1, noise
            below 0, NaN or infinite numbers, overlap of independent concepts.

    Example:
        >>> data = many_directions(concepts=16, dimensions=64, images=100, overlap=0.2)
        >>> data
        SyntheticDirections(100 images of 10 positions, 64 dimensions, 16 concepts, head accuracy ...)
        >>> (data.present.sum(-1) == 2).double().mean()
        tensor(0.2000, dtype=torch.float64)
        >>> data = many_directions(concepts=3, dimensions=16, presence="independent", frequencies=(0.8, 0.2, 0.1))
        >>> data.present.double().mean((0, 1, 2)).round(decimals=1)
        tensor([0.8000, 0.2000, 0.1000], dtype=torch.float64)
    """
    if concepts < 2 or images * width < concepts:
        raise ValueError(f"concepts={concepts} must be at least 2, images={images} x width={width} at least as many")
    _check(overlap, 0.0, strengths, scales, noise)
    if presence not in PRESENCES:
        raise ValueError(f"presence={presence!r} must be one of {', '.join(PRESENCES)}")
    if presence == "independent" and overlap:
        raise ValueError(f"overlap={overlap} must be 0 with presence='independent': frequencies say what overlaps")
    draw = _Draw(torch.Generator().manual_seed(seed), strengths)
    encoding, distraction = (F.normalize(draw.normal(dimensions, n), dim=0) for n in (concepts, distractors))
    zipf = 1 / torch.arange(1, concepts + 1).double()
    if presence == "independent":
        present = draw.uniform(0, 1, images, width, concepts) < _read_rates(frequencies, zipf)
    else:
        weights = _read_weights(frequencies, zipf, "concept")
        first = draw.shuffled(_share_out(weights, images * width)).reshape(images, width)
        present = draw.presence(first, concepts, overlap, 0.0)
    values = draw.levels(present)
    features = draw.disturbed(values @ encoding.T + CONSTANT, distraction, noise)
    scale = draw.scale(dimensions, scales)
    features = (features * scale)[:, None]
    encoding = F.normalize(encoding * scale[:, None], dim=0)
    shares = present.float().mean(1)
    labels, head = shares.argmax(1), _regress_head(features, shares)
    accuracy = float((head(features).argmax(1) == labels).double().mean())
    none = torch.zeros(images, 1, width, 0, dtype=torch.bool)
    shown, known, decoys = present[:, None], values[:, None], torch.zeros(dimensions, 0)
    return SyntheticDirections(features, labels, shown, known, encoding, decoys, none, head, accuracy, scale)


@dataclass(frozen=True)
class _Draw:
    generator: torch.Generator
    strengths: str

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def shuffled(self, values: Tensor) -> Tensor:
        return values[torch.randperm(len(values), generator=self.generator)]

    def presence(self, first: Tensor, concepts: int, overlap: float, background: float) -> Tensor:
        """Concept numbers [N, W] as bool [N, W, I], a second one at ``overlap`` of the positions, none elsewhere."""
        present = F.one_hot(first, concepts).bool()
        if overlap or background:
            # positions in random order: the first ones overlap, the last ones are background
            place = torch.empty(first.numel(), dtype=torch.int64)
            place[torch.randperm(first.numel(), generator=self.generator)] = torch.arange(first.numel())
            place = place.reshape(first.shape)[..., None]
            second = (first + 1 + self.integers(concepts - 1, *first.shape)) % concepts
            present |= F.one_hot(second, concepts).bool() & (place < round(overlap * first.numel()))
            present &= place < first.numel() - round(background * first.numel())
        return present

    def levels(self, present: Tensor) -> Tensor:
        """a of every concept: from the upper range where it is present."""
        if self.strengths == "uniform":
            return torch.where(present, self.uniform(*PRESENT, *present.shape), self.uniform(*ABSENT, *present.shape))
        # abs(n) by its inverse distribution, cut off at the threshold where the concept is missing
        most = math.erf(ABSENT[1] / SPREAD / math.sqrt(2))
        drawn = self.uniform(0, 1, *present.shape) * torch.where(present, 1 - 1e-7, most)
        return SPREAD * math.sqrt(2) * torch.erfinv(drawn) + ABSENT[1] * present

    def disturbed(self, features: Tensor, distraction: Tensor, noise: float) -> Tensor:
        """Distractors and noise added to features [N, W, D]."""
        features = features + self.uniform(0, DISTRACTION, *features.shape[:2], distraction.shape[1]) @ distraction.T
        if noise:
            features = features + noise * (features - features.mean((0, 1))).std() * self.normal(*features.shape)
        return features

    def scale(self, dimensions: int, factor: float) -> Tensor:
        """One factor per feature, [D]."""
        if factor == 1:
            return torch.ones(dimensions)
        return self.shuffled(torch.linspace(-0.5, 0.5, dimensions).mul(math.log(factor)).exp())


def _check(overlap: float, background: float, strengths: str, scales: float, noise: float) -> None:
    for name, share in (("overlap", overlap), ("background", background)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share} must be a share between 0 and 1")
    if overlap + background > 1:
        raise ValueError(f"overlap={overlap} and background={background} are shares of all positions; at most 1 in all")
    if strengths not in STRENGTHS:
        raise ValueError(f"strengths={strengths!r} must be one of {', '.join(STRENGTHS)}")
    if not 1 <= scales < math.inf:
        raise ValueError(f"scales={scales} is the largest factor over the smallest; at least 1")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise={noise} is a standard deviation; at least 0, and finite")


def _read_numbers(frequencies: Frequencies, count: int, each: str) -> Tensor:
    """One share, [], or ``count`` numbers, [count]; float64, finite and at least 0."""
    if isinstance(frequencies, str):
        raise ValueError(f"frequencies={frequencies!r} must be 'equal', 'zipf' or numbers")
    found = torch.as_tensor(frequencies, dtype=torch.float64)
    fits = found.shape == (count,) or (not found.dim() and float(found) <= 1)
    if not fits or not bool((found >= 0).all() & found.isfinite().all() & (found.sum() > 0)):
        raise ValueError(
            f"frequencies={frequencies!r} must be a share between 0 and 1, or {count} finite numbers of at least 0, one "
            f"per {each}, and not all 0"
        )
    return found


def _read_weights(frequencies: Frequencies, zipf: Tensor, each: str) -> Tensor:
    """One weight for each, [C] float64, in proportion to how often it occurs."""
    if isinstance(frequencies, str) and frequencies in ("equal", "zipf"):
        return zipf if frequencies == "zipf" else torch.ones_like(zipf)
    found, count = _read_numbers(frequencies, len(zipf), each), len(zipf)
    if found.dim():
        return found
    if count == 1 and found != 1:
        raise ValueError(f"frequencies={frequencies} must be 1: there is one {each}, which all images show")
    return torch.cat([found[None], ((1 - found) / max(count - 1, 1)).expand(count - 1)])


def _read_rates(frequencies: Frequencies, zipf: Tensor) -> Tensor:
    """How often each concept is present, [I], between 0 and 1."""
    if isinstance(frequencies, str):
        weights = _read_weights(frequencies, zipf, "concept")
        return weights / weights.sum()
    rates = _read_numbers(frequencies, len(zipf), "concept")
    if float(rates.max()) > 1:
        raise ValueError(f"frequencies={frequencies!r} must be between 0 and 1, as each concept is present by itself")
    return rates.expand(len(zipf))


def _share_out(weights: Tensor, count: int) -> Tensor:
    """``count`` numbers, each as often as its weight says, to the nearest one: [count] int64, ascending."""
    bounds = (weights.cumsum(0) / weights.sum() * count).round().long()
    return torch.bucketize(torch.arange(count), bounds, right=True)


def _train_head(features: Tensor, labels: Tensor, classes: int) -> PooledLinear:
    """Logistic regression on features averaged over positions, with a small weight decay."""
    pooled = features.mean((1, 2)).double()
    center, scale = pooled.mean(0), pooled.std(0).clamp(min=1e-8)
    inputs = (pooled - center) / scale
    weight = torch.zeros(classes, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight.T + bias, labels) + 1e-4 * (weight**2).sum()
        torch.autograd.backward(value)
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    unscaled = weight.detach() / scale
    return PooledLinear(unscaled.float(), (bias.detach() - unscaled @ center).float())


def _regress_head(features: Tensor, shares: Tensor) -> PooledLinear:
    """Least squares of how often each concept occurs, [N, I], on features averaged over positions."""
    pooled = features.mean((1, 2)).double()
    center, scale = pooled.mean(0), pooled.std(0).clamp(min=1e-8)
    inputs = (pooled - center) / scale
    ridge = 1e-4 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    target = shares.double()
    weight = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (target - target.mean(0))).T / scale
    return PooledLinear(weight.float(), (target.mean(0) - weight @ center).float())

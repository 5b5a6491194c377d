"""Features whose concepts are known: the published synthetic set-up for direction pairs, and its harder variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ABSENT, PRESENT = (0.0, 2.5), (2.5, 5.0)  # published: a concept's signal where it is missing, where it is there
DISTRACTION, CONSTANT = 5.0, 10.0


@dataclass(frozen=True, eq=False)
class SyntheticDirections:
    """Features x = S a + S' a' + D b + constant + noise at two positions per image, with everything that made them.

    N images, D dimensions, I concepts, C classes.

    Attributes:
        features: [N, 1, 2, D] float32, channels last.
        labels: [N] int64, which pair of concepts the image shows.
        present: [N, 1, 2, I] bool, where each concept is.
        signal_values: [N, 1, 2, I], a: 0 to 2.5 where a concept is missing, 2.5 to 5 where it is there.
        encoding: [D, I], the true encoding directions, unit norm.
        decoys: [D, J], directions of the decoy concepts (J is 0 or I), present as often but ignored by the labels.
        decoys_present: [N, 1, 2, J] bool.
        head: features [n, 1, 2, D] to class logits [n, C]: average over positions, then a trained linear layer.
        accuracy: the head's, on ``features``.
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

    def __repr__(self) -> str:
        count, _, width, dimensions = self.features.shape
        decoys = f", {self.decoys.shape[1]} decoys" if self.decoys.shape[1] else ""
        return (
            f"SyntheticDirections({count} images of {width} positions, {dimensions} dimensions, "
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
    zipf: bool = False,
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
        images: N, in equal parts over the classes.
        decoys: I further concepts of the same structure, which the labels, so the head, ignore.
        overlap: share of positions at which a second concept is present, too.
        zipf: concepts occur with frequency 1/rank instead of equally often.
        noise: standard deviation of Gaussian noise, in units of the features' own (over all dimensions).
        background: share of positions without any concept.

    Raises:
        ValueError: fewer than two concepts, fewer images than classes, shares outside [0, 1].

    Example:
        >>> synthetic_directions(images=30)
        SyntheticDirections(30 images of 2 positions, 16 dimensions, 3 concepts, head accuracy ...)
    """
    pairs = torch.tensor(list(combinations(range(concepts), 2)))
    if concepts < 2 or images < len(pairs):
        raise ValueError(f"concepts={concepts} must be at least 2, images={images} at least one per pair of concepts")
    for name, share in (("overlap", overlap), ("background", background)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share} must be a share between 0 and 1")
    generator = torch.Generator().manual_seed(seed)
    draw = _Draw(generator)
    encoding, ignored, distraction = (
        F.normalize(draw.normal(dimensions, count), dim=0) for count in (concepts, concepts * decoys, distractors)
    )
    labels = torch.arange(images) % len(pairs)
    if zipf:
        frequency = 1 / torch.arange(1, concepts + 1, dtype=torch.float64)
        labels = torch.multinomial(frequency[pairs].prod(1), images, replacement=True, generator=generator)
    order = draw.uniform(0, 1, images, 2).argsort(1)
    present = F.one_hot(pairs[labels].gather(1, order), concepts).bool()  # [N, 2, I]
    if overlap:
        second = F.one_hot(draw.integers(concepts, images, 2), concepts).bool()
        present = present | (second & (draw.uniform(0, 1, images, 2, 1) < overlap))
    if background:
        present = present & (draw.uniform(0, 1, images, 2, 1) >= background)
    decoys_present = F.one_hot(draw.integers(concepts, images, 2), concepts).bool()[..., : ignored.shape[1]]
    values = draw.levels(present)
    features = values @ encoding.T + draw.levels(decoys_present) @ ignored.T + CONSTANT
    features = features + draw.uniform(0, DISTRACTION, images, 2, distractors) @ distraction.T
    if noise:
        features = features + noise * (features - features.mean((0, 1))).std() * draw.normal(*features.shape)
    features = features[:, None]
    head = _train_head(features, labels, len(pairs))
    accuracy = float((head(features).argmax(1) == labels).double().mean())
    return SyntheticDirections(
        features, labels, present[:, None], values[:, None], encoding, ignored, decoys_present[:, None], head, accuracy
    )


@dataclass(frozen=True)
class _Draw:
    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def levels(self, present: Tensor) -> Tensor:
        """a of every concept: from the upper range where it is present."""
        return torch.where(present, self.uniform(*PRESENT, *present.shape), self.uniform(*ABSENT, *present.shape))


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

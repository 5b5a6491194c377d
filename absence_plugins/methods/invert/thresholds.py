"""Concepts given as scores, such as those of an image-text model: thresholds are chosen on the searched samples alone.

A score says how much of a concept is in a sample; a formula needs present or absent. What the threshold is must not
depend on the samples that judge, or their p-values would know it. So the samples are split first, at random, and each
concept's threshold is chosen on the searched ones, from the scores alone, without the activations: scores are modelled
as two normal distributions of one variance (a maximum of the likelihood, by EM), and the threshold is where both are
equally probable. On mixtures of 3 to 90 % present samples it finds them better than Otsu's method, which halves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array, Bits, merge_words
from absence_plugins.methods.invert.groups import split
from absence_plugins.methods.invert.inputs import check_names
from absence_plugins.methods.invert.reading import read_labels
from absence_plugins.methods.invert.scores import check_lengths

STARTS = (0.05, 0.2, 0.5, 0.8)  # shares of present samples that EM begins with
STEPS = 60
SETTLED = 1e-3  # nats of the likelihood
NARROWEST = 0.05  # of the variance of all scores
FEWEST = 2  # distinct scores
MOST = 2000  # scores that are looked at; of more their quantiles


@dataclass(frozen=True, eq=False)
class ConceptScores:
    """Scores of concepts, in the place of labels: for ``label_units``.

    Attributes:
        values: [N, K] real numbers, higher where more of the concept is there; NaN where unknown. Columns of 0, 1 and
            NaN alone are labels and stay as they are.

    >>> generator = torch.Generator().manual_seed(0)
    >>> there = torch.rand(200, generator=generator) < 0.2
    >>> scores = ConceptScores((0.1 * there + 0.02 * torch.randn(200, generator=generator))[:, None])
    >>> labels = scores.apply([scores.choose()[0]])
    >>> bool((labels[:, 0] == there).float().mean() > 0.98)
    True
    """

    values: Tensor

    def __post_init__(self) -> None:
        values = torch.as_tensor(self.values).detach()
        if values.dim() != 2 or values.numel() == 0 or values.is_complex():
            raise ValueError(f"scores have shape {tuple(values.shape)}; pass [N, K], one row per sample")
        if bool(values.isinf().any()):
            raise ValueError("scores hold infinite values, which have no threshold; pass NaN where one is unknown")
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    def choose(self, chosen: Any = None) -> tuple[float, ...]:
        """A threshold per concept, from the samples ``chosen`` [N] bool (None: all); 0.5 for columns of 0 and 1.

        Raises ValueError for a column with fewer than two distinct scores among them.
        """
        rows = self.values.double() if chosen is None else self.values.double()[torch.as_tensor(chosen)]
        return tuple(choose_threshold(column[~column.isnan()]) for column in rows.T)

    def apply(self, thresholds: Sequence[float]) -> Tensor:
        """Labels [N, K]: present above the threshold; bool, or float64 with NaN where a score is unknown."""
        there = self.values.double() > torch.tensor(thresholds, dtype=torch.float64, device=self.values.device)
        unknown = self.values.isnan()
        return torch.where(unknown, torch.nan, there.double()) if bool(unknown.any()) else there


def choose_threshold(scores: Any) -> float:
    """Where two normal distributions of one variance, fitted to scores [n], are equally probable.

    Raises ValueError for fewer than two distinct scores.

    >>> round(choose_threshold([0.0, 0.1, 0.1, 0.2, 0.9, 1.1]), 1)
    0.6
    >>> choose_threshold([0.0, 1.0, 1.0])
    0.5
    """
    values = torch.as_tensor(scores, dtype=torch.float64).cpu().numpy()
    order = np.unique(values)
    if len(order) < FEWEST:
        raise ValueError(f"{len(order)} distinct scores among {len(values)} have no threshold")
    if order.tolist() == [0.0, 1.0]:
        return 0.5
    if len(values) > MOST:
        values = np.quantile(values, np.linspace(0, 1, MOST))
    scaled = (values - values.mean()) / values.std()
    low, high, share, variance = max((_fit(scaled, start) for start in STARTS), key=lambda fit: fit[0])[1:]
    middle = (low + high) / 2
    if high > low:  # the log odds of the two fall by the line that goes through them
        middle += variance * np.log((1 - share) / share) / (high - low)
    edges = (order[:2].mean(), order[-2:].mean())  # one sample at least on either side
    return float(np.clip(middle * values.std() + values.mean(), *edges))


def _fit(values: Array, start: float) -> tuple[float, float, float, float, float]:
    """Log likelihood, both means, the share of the higher one and the variance, by EM from the highest ``start``."""
    present = (values > np.quantile(values, 1 - start)).astype(np.float64)
    likelihood, low, high, share, variance = -np.inf, 0.0, 0.0, 0.5, 1.0
    for _ in range(STEPS):
        share = float(np.clip(present.mean(), 1 / len(values), 1 - 1 / len(values)))
        high = float((present * values).sum() / max(present.sum(), 1e-9))
        low = float(((1 - present) * values).sum() / max((1 - present).sum(), 1e-9))
        spread = present * (values - high) ** 2 + (1 - present) * (values - low) ** 2
        variance = max(float(spread.mean()), NARROWEST)
        a = np.log(share) - (values - high) ** 2 / (2 * variance)
        b = np.log(1 - share) - (values - low) ** 2 / (2 * variance)
        before, likelihood = likelihood, float(np.logaddexp(a, b).sum() - len(values) * np.log(variance) / 2)
        if likelihood - before < SETTLED:
            break
        present = 1 / (1 + np.exp(np.clip(b - a, -50, 50)))
    return likelihood, low, high, share, variance


@dataclass(frozen=True, eq=False)
class GivenConcepts:
    """What ``label_units`` is given.

    Attributes:
        rows: distinct label rows.
        row_of: every sample's [N].
        names: of the concepts.
        is_heldout, thresholds: of scores the samples held out [N] bool, and the thresholds.
    """

    rows: Bits
    row_of: Array
    names: list[str]
    is_heldout: Array | None = None
    thresholds: dict[str, float] | None = None


def read_concepts(
    concepts: Any, names: Sequence[str], samples: int, holdout: float, seed: int, groups: Array | None
) -> GivenConcepts:
    """Labels, or scores, of N samples.

    Raises ValueError as :func:`~absence_plugins.methods.invert.reading.read_labels`, for another number of samples or
    names, or for scores without a threshold.
    """
    if not isinstance(concepts, ConceptScores):
        words = read_labels(concepts, samples, len(names))
        listed = check_names(names, words.concepts)
        return GivenConcepts(*merge_words(words), listed)
    check_lengths(samples, len(concepts))
    values = concepts.values
    listed = check_names(names, values.shape[1])
    is_heldout = split(Bits.of(np.zeros((1, 1), bool)), np.zeros(samples, int), holdout, seed, groups)
    thresholds: dict[str, float] = {}
    for name, column in zip(listed, values.T, strict=True):
        try:
            thresholds[name] = ConceptScores(column[:, None]).choose(~is_heldout)[0]
        except ValueError as error:
            raise ValueError(f"concept {name!r} on the searched samples: {error}; leave it out") from None

    def apply(first: int, last: int) -> Tensor:
        return ConceptScores(values[first:last]).apply(list(thresholds.values()))

    rows, row_of = merge_words(read_labels(apply, samples, len(listed)))
    return GivenConcepts(rows, row_of, listed, is_heldout, thresholds)


def score_concepts(
    images: Any,
    texts: Any,
    *,
    embed_images: Callable[[Any], Any] | None = None,
    embed_texts: Callable[[Any], Any] | None = None,
) -> ConceptScores:
    """How well images fit texts: the cosine of their embeddings by an image-text model (CLIP, SigLIP, ...).

    Args:
        images: embeddings [N, D]; or, with ``embed_images``, batches of what it takes.
        texts: embeddings [K, D]; or, with ``embed_texts``, what it takes, such as ["a photo of a dog", ...].
        embed_images: from a batch to embeddings [n, D], such as ``model.get_image_features`` of Hugging Face.
        embed_texts: from texts to embeddings [K, D], such as ``lambda texts: model.get_text_features(**processor(
            text=texts, return_tensors="pt", padding=True))``. Both run without gradients.

    Returns:
        Scores [N, K] in [-1, 1], for ``label_units(activations, scores, names)``.

    Raises:
        TypeError: what an embedding function returns holds no embeddings. ValueError: embeddings of two widths, or 0.

    >>> score_concepts(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])).values
    tensor([[0.0000, 1.0000],
            [0.7071, 0.7071]])
    """
    with torch.no_grad():
        seen = (
            images
            if embed_images is None
            else torch.cat([_embeddings(embed_images(one), "image_embeds") for one in _each(images)])
        )
        said = texts if embed_texts is None else _embeddings(embed_texts(texts), "text_embeds")
        first, second = torch.as_tensor(seen).detach(), torch.as_tensor(said).detach()
        if first.dim() != 2 or second.dim() != 2 or first.shape[1] != second.shape[1]:
            raise ValueError(
                f"embeddings of images {tuple(first.shape)} and of texts {tuple(second.shape)} must be [N, D] and [K, D]"
            )
        second = second.to(first)
        lengths = [one.double().norm(dim=1) for one in (first, second)]
        if any(bool((one == 0).any()) for one in lengths):
            raise ValueError("an embedding is 0, which has no direction")
        return ConceptScores((first.double() @ second.double().T / (lengths[0][:, None] * lengths[1])).to(first))


def _each(batches: Any) -> Iterable[Any]:
    return [batches] if isinstance(batches, Tensor) else batches


def _embeddings(output: Any, own: str) -> Tensor:
    """The tensor itself, or the embeddings of a Hugging Face output."""
    found = [output, *(getattr(output, name, None) for name in (own, "pooler_output"))]
    tensors = [one for one in found if isinstance(one, Tensor)]
    if not tensors:
        raise TypeError(f"embeddings must be a tensor, got {type(output).__name__}")
    return tensors[0]

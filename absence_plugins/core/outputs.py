"""The explained output as an object.

An :class:`Output` is one number per sample: a logit, its negative, a mean of others, a margin, a similarity. Like a
:class:`~absence_plugins.core.units.Unit` it is chosen once and asked with ``of(model)``. The scores that it is taken
from are found by :mod:`absence_plugins.core.scores`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.endings import describe_location, located_softmaxes
from absence_plugins.core.scores import announce, run_scores
from absence_plugins.core.wording import Names

SOFTMAX_TOLERANCE = 1e-4
FEW_CLASSES, FEW = 64, 512  # so many numbers of a sample, and in all, are looked at faster without torch
PER_SAMPLE = (
    "index",
    "other",
    "classes",
    "nontargets",
    "vector",
)  # fields of outputs that may have one entry per sample
Index = int | tuple[int, ...] | Tensor | Sequence[int]


class Output:
    """One explained number per sample, as a function of the model's scores; see the subclasses.

    Every output, like every :class:`~absence_plugins.core.units.Unit`, has ``of(model)``.
    """

    def values(self, outputs: Tensor) -> Tensor:
        """The explained number of every sample: scores [B, K, ...] -> [B]. Differentiable."""
        raise NotImplementedError

    def of(self, model: nn.Module) -> OutputModel:
        """The model with this number as its only output: inputs [B, ...] -> [B]."""
        return OutputModel(model, self)

    def of_samples(self, samples: Tensor) -> Output:
        """The same output for other rows: what was chosen per sample, for the samples [M] that the rows come from.

        >>> Logit([2, 0]).of_samples(torch.tensor([1, 1, 0])).index
        [0, 0, 2]
        """
        rows = samples.tolist()
        changed: dict[str, Any] = {}
        for name in PER_SAMPLE:
            value = getattr(self, name, None)
            if isinstance(value, list):
                changed[name] = [value[row] for row in rows]
            elif isinstance(value, Tensor) and value.dim() == (2 if name == "vector" else 1):
                changed[name] = value[samples.to(value.device)]
        return replace(self, **changed) if changed and is_dataclass(self) else self

    def describe(self) -> str:
        """The output in words."""
        raise NotImplementedError

    def words(self, samples: int, names: Names = None) -> list[str]:
        """The output in words, for every sample; ``names`` of the classes where it names one."""
        return [self.describe()] * samples

    def heading(self, sample: int = 0, names: Names = None) -> str:
        """The title of a map of one sample."""
        return f"What raises {self.describe()} or holds it down"

    def legend(self, sample: int = 0, names: Names = None) -> tuple[str, str]:
        """What red and blue mean in a map of one sample."""
        return f"raises {self.describe()}", f"holds {self.describe()} down"


class OutputModel(nn.Module):
    """A model whose one output is an :class:`Output` of another: inputs [B, ...] -> [B]."""

    def __init__(self, model: nn.Module, output: Output) -> None:
        super().__init__()
        self.model, self.output, self.training = model, output, model.training
        self.was_announced = False

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        """The explained number: inputs [B, ...] -> [B]."""
        scores, ending = run_scores(self.model, inputs, keywords)
        if ending and not self.was_announced:
            self.was_announced = True
            announce(ending, stacklevel=4)
        return self.output.values(scores)


@dataclass(frozen=True, eq=False)
class Logit(Output):
    """One score: ``sign`` * z_index. ``index``: a class, a tuple for more axes, or one per sample.

    >>> Logit(1).values(torch.tensor([[3.0, 5.0]])).tolist(), Logit(1, sign=-1).values(torch.tensor([[3.0, 5.0]])).tolist()
    ([5.0], [-5.0])
    """

    index: Index = 0
    sign: int = 1

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ValueError(f"sign={self.sign!r} must be 1 (the logit) or -1 (its negative)")

    def values(self, outputs: Tensor) -> Tensor:
        """Scores [B, K, ...] -> [B]."""
        chosen = at_index(outputs, self.index)
        return chosen if self.sign == 1 else -chosen

    def describe(self) -> str:
        """As "logit 3" or "minus logit 0"."""
        return f"{'' if self.sign == 1 else 'minus '}logit {_named(self.index)}"


@dataclass(frozen=True, eq=False)
class Others(Output):
    """The mean of all scores but one.

    >>> Others(0).values(torch.tensor([[9.0, 1.0, 3.0]])).tolist()
    [2.0]
    """

    index: Index

    def values(self, outputs: Tensor) -> Tensor:
        """Scores [B, K, ...] -> [B]."""
        scores = as_columns(outputs)
        if scores.shape[1] < 2:
            raise ValueError("the mean of the others needs at least two outputs")
        if scores.dim() > 3 and names_classes(self.index):
            scores = class_sums(scores)
        own = at_index(scores, self.index)
        rest = self.index[1:] if isinstance(self.index, tuple) else ()
        total = scores[(slice(None), slice(None), *rest)].sum(1)
        return (total - own) / (scores.shape[1] - 1)

    def describe(self) -> str:
        """As "the mean of all logits but 3"."""
        return f"the mean of all logits but {_named(self.index)}"


@dataclass(frozen=True, eq=False)
class Margin(Output):
    """One score minus another: positive where the decision is for ``index``.

    >>> Margin(0, 2).values(torch.tensor([[9.0, 1.0, 3.0]])).tolist()
    [6.0]
    """

    index: Index
    other: Index

    def values(self, outputs: Tensor) -> Tensor:
        """Scores [B, K, ...] -> [B]."""
        return at_index(outputs, self.index) - at_index(outputs, self.other)

    def describe(self) -> str:
        """As "logit 3 minus logit 5"."""
        return f"logit {_named(self.index)} minus logit {_named(self.other)}"


@dataclass(frozen=True, eq=False)
class Similarity(Output):
    """The cosine similarity of the model's output vector with another one: of encoders without classes.

    vector: [D], or one per sample [B, D].

    >>> Similarity(torch.tensor([1.0, 0.0])).values(torch.tensor([[3.0, 4.0]])).tolist()
    [0.6000000238418579]
    """

    vector: Tensor
    name: str = "a vector"

    def values(self, outputs: Tensor) -> Tensor:
        """Embeddings [B, D] -> [B] in [-1, 1]."""
        if outputs.dim() != 2 or outputs.shape[1] != self.vector.shape[-1]:
            raise ValueError(
                f"the similarity is with a vector of {self.vector.shape[-1]} entries, but the model's output is "
                f"{tuple(outputs.shape)}"
            )
        return torch.cosine_similarity(outputs, self.vector.to(outputs).expand_as(outputs), dim=1)

    def describe(self) -> str:
        """As "the similarity to a vector"."""
        return f"the similarity to {self.name}"


@dataclass(frozen=True, eq=False)
class Named(Output):
    """An output that a host has selected and that only has a name here: a neuron, a weighted sum of outputs.

    >>> Named("neuron 3 of 'conv'").legend()
    ("raises neuron 3 of 'conv'", "holds neuron 3 of 'conv' down")
    """

    name: str

    def describe(self) -> str:
        """The name."""
        return self.name


def at_index(outputs: Tensor, index: Index) -> Tensor:
    """Scores [B, K, ...] at a class, a tuple, or one of these per sample -> [B].

    Of outputs [B, K, H, W] (or of volumes) a class means the sum of its scores over the image.

    Raises:
        ValueError: there is no such output.

    >>> at_index(torch.ones(1, 3, 2, 2), 1).tolist(), at_index(torch.ones(1, 3, 2, 2), (1, 0, 1)).tolist()
    ([4.0], [1.0])
    """
    scores = as_columns(outputs)
    if scores.dim() > 3 and names_classes(index):
        scores = class_sums(scores)
    samples = len(scores)
    if isinstance(index, Tensor):
        index = int(index) if index.dim() == 0 else [int(one) for one in index.tolist()]
    entries = list(index) if isinstance(index, list) else [index] * samples
    if len(entries) != samples:
        raise ValueError(f"{len(entries)} indices for {samples} samples: pass one for all, or one per sample")
    places = [one if isinstance(one, tuple) else (one,) for one in entries]
    for place in places:
        if len(place) != scores.dim() - 1:
            raise ValueError(
                f"output {place} has {len(place)} indices, but the outputs have {scores.dim() - 1} axes behind the "
                "batch: "
                f"{tuple(scores.shape[1:])}"
            )
        if any(not 0 <= int(one) < size for one, size in zip(place, scores.shape[1:], strict=True)):
            raise ValueError(
                f"output {place} does not exist: the outputs behind the batch are {tuple(scores.shape[1:])}"
            )
    if all(place == places[0] for place in places):
        return scores[(slice(None), *places[0])]
    columns = torch.tensor(places, device=scores.device).unbind(1)
    return scores[(torch.arange(samples, device=scores.device), *columns)]


def names_classes(index: Index) -> bool:
    """Whether an index names classes, without places in the image.

    >>> names_classes(3), names_classes([3, 1]), names_classes((3, 0, 0))
    (True, True, False)
    """
    if isinstance(index, Tensor):
        return index.dim() < 2
    return all(not isinstance(one, tuple) or len(one) == 1 for one in (index if isinstance(index, list) else [index]))


def class_sums(outputs: Tensor) -> Tensor:
    """The sum of every class's scores over the image: [B, K, ...] -> [B, K]."""
    return outputs.flatten(2).sum(2)


def class_scores(outputs: Tensor) -> Tensor:
    """One score per class, whatever a model puts out: [B] -> [B, 1]; of maps [B, K, H, W] the sums over the image.

    >>> class_scores(torch.ones(2)).shape, class_scores(torch.ones(2, 3, 4, 4)).shape
    (torch.Size([2, 1]), torch.Size([2, 3]))
    """
    return class_sums(outputs) if outputs.dim() > 3 else as_columns(outputs)


def _named(index: Index) -> str:
    if isinstance(index, Tensor):
        index = index.tolist() if index.dim() else int(index)
    if isinstance(index, list):
        return str(index[0]) if len(set(index)) == 1 else "of each sample"
    return str(index)


def select(outputs: Tensor, index: Tensor | list[tuple[int, ...]]) -> Tensor:
    """One output per sample: [B, K, ...] and a tensor [B] or a list of tuples -> [B]."""
    if isinstance(index, Tensor):
        if len(index) == len(outputs) == 1:
            return outputs[:, int(index)]
        return outputs.gather(1, index.to(outputs.device)[:, None])[:, 0]
    return torch.stack([outputs[(row, *position)] for row, position in enumerate(index)])


def as_columns(outputs: Tensor) -> Tensor:
    """Outputs with a class axis: [B] -> [B, 1]; anything else unchanged."""
    return outputs[:, None] if outputs.dim() == 1 else outputs


def list_few(outputs: Tensor) -> list[list[float]] | None:
    """The numbers in outputs [B, K], where they are few; else None."""
    if outputs.dim() != 2 or outputs.shape[1] > FEW_CLASSES or outputs.numel() > FEW:
        return None
    found: list[list[float]] = outputs.tolist()
    return found


def check_explained(values: Tensor, word: Callable[[int], str]) -> None:
    """Reject an explained output that is not a number; other outputs may be what they are.

    values: [B]; word: from a sample to the words for what is explained of it.

    Raises:
        ValueError: which output of which sample, and its value.

    >>> check_explained(torch.tensor([1.0, -torch.inf]), lambda sample: "logit 3")
    Traceback (most recent call last):
    ...
    ValueError: logit 3 of sample 1 is NaN or infinite (-inf); check the input and the weights, or explain another output
    """
    for row, value in enumerate(values.tolist()):
        if not math.isfinite(value):
            raise ValueError(
                f"{word(row)} of sample {row} is NaN or infinite ({value}); check the input and "
                "the weights, or explain another output"
            )


def check_logits(
    outputs: Tensor, elsewhere: Callable[[], Tensor] | None = None, few: list[list[float]] | None = None
) -> None:
    """Reject outputs that are no numbers with a gradient, or have been through a softmax (or log-softmax).

    After a softmax every output falls when another one rises, so the map of one class shows the
    evidence for the others and the sign loses its meaning.

    outputs: [B, K, ...], K classes along axis 1. One column cannot be checked. ``elsewhere()``, if given,
    returns the outputs for other inputs and is asked only on suspicion: logits of a few samples can sum
    to 1 by chance, a softmax does so everywhere. ``few``: their numbers, if they are known (:func:`list_few`). Whether they are finite is asked of the explained output alone
    (:func:`check_explained`).

    Raises:
        ValueError: integers or truth values; rows (or their exponentials) that sum to 1.

    >>> check_logits(torch.tensor([[2.0, -1.0, 0.5]]))
    >>> check_logits(torch.tensor([[0.7, 0.2, 0.1]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: the model's outputs are probabilities (every row sums to 1: a softmax), so...
    """
    if not outputs.is_floating_point():
        raise ValueError(
            f"the model returns {str(outputs.dtype).removeprefix('torch.')}, which are no scores (class numbers, after an "
            "argmax?); pass a model that returns its scores as floating point numbers"
        )
    if outputs.dim() < 2 or outputs.shape[1] < 2:
        return
    name = _sums_to_one(outputs, few)
    if not name:
        return
    with located_softmaxes() as found:
        if elsewhere is not None and _sums_to_one(elsewhere()) != name:
            return
    raise ValueError(
        f"the model's outputs are {name}, so every class answers for all others; "
        "explain the logits: drop the softmax at the end of the model, or pass a model that stops before it"
        f"{describe_location(found) if elsewhere else ''}"
    )


def shrunk(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Other inputs of the same form, to tell a softmax from logits that sum to 1 by chance."""
    return tuple(part * 0.37 + 0.21 if part.is_floating_point() else torch.zeros_like(part) for part in inputs)


def _sums_to_one(outputs: Tensor, few: list[list[float]] | None = None) -> str:
    """What the outputs would be if every row (or its exponential) sums to 1, else ""."""
    tolerance = SOFTMAX_TOLERANCE
    if outputs.is_floating_point():  # half precision rounds every entry
        tolerance = max(tolerance, 4 * torch.finfo(outputs.dtype).eps)
    if outputs.dim() == 2 and outputs.shape[1] <= FEW_CLASSES:
        first = few[0] if few else outputs[0].tolist()
        if _sums_elsewhere(first, 2 * tolerance):
            return ""
    for name, rows in (
        ("probabilities (every row sums to 1: a softmax)", outputs),
        ("log-probabilities (the exponentials of every row sum to 1: a log_softmax)", outputs.exp()),
    ):
        sums = rows.sum(1)
        inside = bool((rows >= 0).all() and (rows <= 1 + tolerance).all())
        if inside and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=tolerance):
            return name
    return ""


def _sums_elsewhere(row: list[float], tolerance: float) -> bool:
    """Whether one row alone rules out that all rows, or their exponentials, sum to 1; by more than rounding."""
    if not (min(row) < 0 or max(row) > 1 + tolerance or abs(sum(row) - 1) > tolerance):
        return False
    return max(row) > tolerance or abs(sum(map(math.exp, row)) - 1) > tolerance

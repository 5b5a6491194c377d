"""Planted problems in the shapes that users of tables, texts, signals and volumes have.

The problems of :data:`~absence_plugins.data.planted.PROBLEMS` are written as images [N, C, H, W], so that one benchmark
can ask every method about all of them. Here the same networks, with the same outputs, take rows, token ids, signals and
volumes, and say of which kind they are.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.spaces import Metric
from absence_plugins.data.planted.problem import Planted
from absence_plugins.data.planted.segmentation import segmentation_missing
from absence_plugins.data.planted.slots import SIDE, signal_missing, volume_missing
from absence_plugins.data.planted.tables import COLUMNS, column_missing
from absence_plugins.data.planted.text import BLANK, VOCABULARY, negation_missing


@dataclass(frozen=True, eq=False)
class Natural:
    """A planted problem as its kind of data has it. The sign: the key holds ``absence_unit`` down.

    Attributes:
        kind: what the entries are; None of images (the segmentation network).
        model: in eval mode; inputs to logits [N, 2], of the segmentation [N, 2, H, W].
        inputs: held-out: rows [N, 24], token ids [N, 12], signals [N, 1, 64], volumes [N, 1, 12, 12, 12], or images.
        labels: [N] int64: ``presence_unit`` where the key is there, ``absence_unit`` where it is missing.
        things: ``[N, *things]`` bool: the key's columns, tokens, samples, voxels or pixels.
        pool_inputs, pool_labels, pool_things: the reference pool, same shapes and meaning.
        twins: as ``inputs``, with the key taken out (or put in), nothing else changed.
        empty: what stands for no content: a value, or of a text the id of the token that says nothing.
        absence_unit, presence_unit: the logits.
    """

    kind: Kind | None
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    things: Tensor
    pool_inputs: Tensor
    pool_labels: Tensor
    pool_things: Tensor
    twins: Tensor
    empty: float | int
    absence_unit: int = 1
    presence_unit: int = 0

    def __repr__(self) -> str:
        name = "image" if self.kind is None else self.kind.name
        return f"Natural({len(self.inputs)} inputs of kind {name}, shape {tuple(self.inputs.shape[1:])})"

    def output(self, inputs: Tensor) -> Tensor:
        """The logit that encodes the key's absence [N]; of the segmentation its mean over the positions."""
        outputs: Tensor = self.model(inputs)[:, self.absence_unit]
        return outputs if outputs.dim() == 1 else outputs.flatten(1).mean(1)

    def references(self, k: int = 2, *, contrast: int | None = None) -> ReferenceSet:
        """The pool as a ReferenceSet of this kind; ``contrast`` is the class that has the key if it is None."""
        options: dict[str, Any] = {"nearest_in": _OneHot(len(VOCABULARY))} if isinstance(self.kind, TextKind) else {}
        return ReferenceSet(
            self.pool_inputs,
            self.pool_labels,
            empty=self.empty,
            k=k,
            contrast=self.presence_unit if contrast is None else contrast,
            kind=self.kind,
            **options,
        )


@cache
def natural(name: str, seed: int = 0) -> Natural:
    """One of :data:`NATURAL` in its natural shape, trained as its image form is, with the same outputs.

    Raises:
        ValueError: no such problem.

    >>> natural("column_missing")
    Natural(100 inputs of kind table, shape (24,))
    """
    if name not in NATURAL:
        raise ValueError(f"{name!r} has no natural form; there are {', '.join(NATURAL)}")
    planted, form = NATURAL[name]
    return form(planted(seed))


@dataclass(frozen=True)
class _OneHot:
    """Texts are as far apart as they have different tokens."""

    size: int
    metric: ClassVar[Metric] = "squared"

    def points(self, *inputs: Tensor) -> Tensor:
        """Token ids [N, T] to [N, T * size]."""
        return F.one_hot(inputs[0].cpu(), self.size).flatten(1).float()

    def state(self) -> Any:
        """Nothing changes."""
        return self.size


def _convert(
    planted: Planted, kind: Kind | None, model: nn.Module, reshape: Callable[[Tensor], Tensor], empty: float | int = 0.0
) -> Natural:
    """``reshape`` takes images to inputs; the regions are reshaped as an image of one channel, if it keeps numbers."""
    assert planted.twins is not None
    things = [regions[:, 0] for regions in (planted.regions, planted.pool_regions)]
    shape = reshape(planted.images[:1])
    if kind is not None:
        shape = kind.things(torch.zeros_like(shape))
        things = [region.reshape(-1, *shape.shape[1:]) for region in things]
    return Natural(
        kind=kind,
        model=model.eval(),
        inputs=reshape(planted.images),
        labels=planted.labels,
        things=things[0],
        pool_inputs=reshape(planted.pool_images),
        pool_labels=planted.pool_labels,
        pool_things=things[1],
        twins=reshape(planted.twins),
        empty=empty,
        absence_unit=planted.absence_unit,
        presence_unit=planted.presence_unit,
    )


def _as_table(planted: Planted) -> Natural:
    kind = TableKind(tuple(Column(f"column {number}") for number in range(COLUMNS)))
    return _convert(planted, kind, copy.deepcopy(planted.model), lambda images: images.flatten(1))


def _as_text(planted: Planted) -> Natural:
    """One-hot tokens become ids, the first convolution an embedding."""
    assert isinstance(planted.model, nn.Sequential)
    weight: Any = planted.model[0].weight
    vectors = weight.detach()[:, :, 0, 0].t().contiguous().clone()
    embedding = nn.Embedding(len(vectors), vectors.shape[1], _weight=vectors)
    rest = list(copy.deepcopy(planted.model).named_children())[1:]
    model = nn.Sequential(OrderedDict(embedding=embedding, channels=_ChannelsFirst(), **dict(rest)))
    words = {number: word or "(nothing)" for number, word in enumerate(VOCABULARY)}
    return _convert(planted, TextKind(words), model, lambda images: images[:, :, 0].argmax(1), BLANK)


def _as_signal(planted: Planted) -> Natural:
    return _convert(planted, SignalKind(), copy.deepcopy(planted.model), lambda images: images.flatten(2))


def _as_volume(planted: Planted) -> Natural:
    assert isinstance(planted.model, nn.Sequential)
    model = nn.Sequential(OrderedDict(list(copy.deepcopy(planted.model).named_children())[1:]))
    return _convert(planted, VolumeKind(), model, lambda images: images.reshape(-1, 1, *[2 * SIDE] * 3))


def _as_segmentation(planted: Planted) -> Natural:
    """The network without the mean over positions."""
    assert isinstance(planted.model, nn.Sequential)
    model = nn.Sequential(OrderedDict(list(copy.deepcopy(planted.model).named_children())[:-2]))
    return _convert(planted, None, model, lambda images: images)


class _ChannelsFirst(nn.Module):
    """[N, T, D] to [N, D, 1, T]."""

    def forward(self, tokens: Tensor) -> Tensor:
        """As an image of one row."""
        return tokens.transpose(1, 2)[:, :, None]


NATURAL: dict[str, tuple[Callable[[int], Planted], Callable[[Planted], Natural]]] = {
    "column_missing": (column_missing, _as_table),
    "negation_missing": (negation_missing, _as_text),
    "signal_missing": (signal_missing, _as_signal),
    "volume_missing": (volume_missing, _as_volume),
    "segmentation_missing": (segmentation_missing, _as_segmentation),
}

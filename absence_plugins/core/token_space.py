"""Nearness of texts: by the mean embedding of their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.checks import check_choice, check_integer
from absence_plugins.core.kinds import TextKind
from absence_plugins.core.spaces import Metric

DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True, eq=False)
class TokenSpace:
    """The space in which a :class:`~absence_plugins.ReferenceSet` of token ids searches the nearest texts.

    A text's point is the mean of the embeddings of its tokens, special tokens and padding left out; a text of special
    tokens alone is at 0. So a text is the same whatever it is padded with.

    Args:
        model: the network, its embedding (``nn.Embedding``), or a matrix [V, D]. Of a network that of Hugging Face's
            ``get_input_embeddings()``, else the only ``nn.Embedding``.
        kind: which ids are special.
        distance: "cosine" (of directions) or "euclidean".
        batch_size: texts per step.

    Raises:
        ValueError: no such distance; no embedding, or several; ids that the embedding has not.
        TypeError: no TextKind.

    >>> kind = TextKind({0: "", 1: "good", 2: "bad"}, special=(0,))
    >>> space = TokenSpace(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]]), kind, distance="euclidean")
    >>> space.points(torch.tensor([[1, 2, 0], [1, 0, 0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """

    model: nn.Module | Tensor
    kind: TextKind
    distance: Literal["cosine", "euclidean"] = "cosine"
    batch_size: int = 64
    metric: ClassVar[Metric] = "squared"

    def __post_init__(self) -> None:
        if not isinstance(self.kind, TextKind):
            raise TypeError(f"kind must be a TextKind, got a {type(self.kind).__name__}; see text_kind(tokenizer)")
        check_choice("distance", self.distance, DISTANCES)
        check_integer("batch_size", self.batch_size)
        embedding_matrix(self.model)

    def points(self, *inputs: Tensor) -> Tensor:
        """Token ids [N, T] as points [N, D] whose squared Euclidean distances rank them, on the CPU."""
        (ids,) = inputs
        self.kind.check(ids)
        matrix = embedding_matrix(self.model).detach()
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(matrix):
            wrong = int(ids.max()) if int(ids.max()) >= len(matrix) else int(ids.min())
            raise ValueError(f"token id {wrong} is not among the {len(matrix)} of the embedding; is it its tokenizer?")
        points = torch.cat([self._means(part, matrix) for part in torch.split(ids, self.batch_size)])
        return F.normalize(points, dim=1) if self.distance == "cosine" else points

    def state(self) -> tuple[Any, ...]:
        """What changes with every change of the embedding, that of ``weight.data`` included."""
        matrix = embedding_matrix(self.model).detach()
        version = 0 if matrix.is_inference() else matrix._version
        return matrix.data_ptr(), version, float(matrix.sum(dtype=torch.float64)), float(matrix.float().norm())

    def _means(self, ids: Tensor, matrix: Tensor) -> Tensor:
        counts = (~self.kind.is_special(ids)).to(matrix.device, torch.float32)
        # summed place by place: adding a 0 changes no bit, so a padded text has the point of the text alone
        total = torch.zeros(len(ids), matrix.shape[1], device=matrix.device)
        for column, weight in zip(ids.to(matrix.device).unbind(1), counts.unbind(1), strict=True):
            total += torch.where(weight[:, None] > 0, matrix[column].float(), 0.0)
        return (total / counts.sum(1, keepdim=True).clamp(min=1)).cpu()


def embedding_matrix(model: nn.Module | Tensor) -> Tensor:
    """The embedding [V, D] of token ids.

    Raises:
        ValueError: there is none, or several could be meant.
        TypeError: neither a module nor a matrix.

    >>> embedding_matrix(nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 1))).shape
    torch.Size([5, 2])
    """
    if isinstance(model, Tensor):
        if model.dim() != 2:
            raise ValueError(f"an embedding is a matrix [tokens, features], got {tuple(model.shape)}")
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(f"the embedding of a {type(model).__name__} is not known; pass the module or its embedding")
    weight = getattr(_of_hugging_face(model), "weight", None)
    if isinstance(weight, Tensor) and weight.dim() == 2:
        return weight
    found = {name: one for name, one in model.named_modules() if isinstance(one, (nn.Embedding, nn.EmbeddingBag))}
    if len(found) != 1:
        what = f"several embeddings ({', '.join(found)})" if found else "no nn.Embedding"
        raise ValueError(f"the model has {what}; pass the one of its tokens, e.g. model.embedding")
    return next(iter(found.values())).weight


def _of_hugging_face(model: nn.Module) -> Any:
    if not callable(getattr(model, "get_input_embeddings", None)):
        return None
    read: Any = model.get_input_embeddings
    try:
        return read()
    except NotImplementedError:
        return None

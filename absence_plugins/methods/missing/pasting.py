"""Sets of pieces as changed inputs, and what the network says to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.memory_layout import PLAIN, Way
from absence_plugins.methods.missing.pieces import Paste, Pieces
from absence_plugins.methods.missing.questions import Question

What = Literal["missing", "sufficient"]
AT_ONCE = 2**24  # entries of the images in a forward, at most


@dataclass(frozen=True, eq=False)
class Given:
    """What is asked of which input and which reference.

    Attributes:
        what: "missing" (pieces of the reference, pasted into x) or "sufficient" (pieces of x, pasted into the
            reference).
        paste: "content" or "all": what of a piece is replaced.
        question: what u is, and which bound it must cross.
        pieces: how inputs are cut.
        labels: of the P pieces that can be pasted.
        place: of every entry [...] the number of its piece among them, int64; P where it never changes.
        x: [1, ...].
        reference: [1, ...].
        number: of the reference among those that were passed.
    """

    what: What
    paste: Paste
    question: Question
    pieces: Pieces
    labels: tuple[int, ...]
    place: Tensor
    x: Tensor
    reference: Tensor
    number: int

    @property
    def base(self) -> Tensor:
        """What is pasted into [1, ...]."""
        return self.x if self.what == "missing" else self.reference

    @property
    def source(self) -> Tensor:
        """What the pieces are taken from [1, ...]."""
        return self.reference if self.what == "missing" else self.x

    def mask(self, members: Tensor) -> Tensor:
        """The entries that sets of pieces [M, P] replace: boolean [M, ...]."""
        padded = torch.cat([members, members.new_zeros(len(members), 1)], 1).to(self.place.device)
        return padded[:, self.place.flatten()].view(len(members), *self.place.shape)


@dataclass(frozen=True, eq=False)
class Pasting:
    """An input into which pieces are pasted, and the network that is asked.

    Attributes:
        given: the question.
        model: images [M, ...] to scores.
        batch_size: images per forward, at most.
        forwards: how many images the network has seen, as its only entry.
        way: how the network runs.
    """

    given: Given
    model: Callable[..., Any]
    batch_size: int = 64
    forwards: list[int] = field(default_factory=lambda: [0])
    way: Way = PLAIN

    @property
    def count(self) -> int:
        """P, how many pieces there are."""
        return len(self.given.labels)

    def paste(self, members: Tensor) -> Tensor:
        """Images [M, ...] with the pieces of ``members`` [M, P] boolean in their places."""
        return torch.where(self.given.mask(members), self.given.source, self.given.base)

    def values(self, members: Tensor) -> Tensor:
        """u of sets of pieces [M, P]: [M] float64."""
        size = max(1, min(self.batch_size, AT_ONCE // max(1, self.given.base.numel())))
        found = [self.read(self.paste(part)) for part in torch.split(members, size)]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def read(self, images: Tensor) -> Tensor:
        """u of images [M, ...]: [M] float64.

        Raises:
            ValueError: NaN or infinite.
        """
        values = self.way.read(lambda batch: self.given.question.read(self.model, batch), images)
        self.forwards[0] += len(images)
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                "the output is NaN or infinite on a half-pasted input, so nothing can be decided; check the weights and "
                "the reference"
            )
        return values

    def slack(self, members: Tensor) -> Tensor:
        """How far u is beyond the bound [M]; :meth:`is_reached` of it."""
        return self.given.question.slack(self.values(members))

    def is_reached(self, slack: Tensor) -> Tensor:
        """Whether the bound is crossed, boolean [M]."""
        return slack > 0 if self.given.question.is_strict else slack >= 0

    def without_each(self, members: Tensor) -> Tensor:
        """The sets without one member each, [n, P] of ``members`` [P], in the order of the pieces."""
        inside = members.nonzero().flatten()
        left = members.expand(len(inside), -1).clone()
        left[torch.arange(len(inside)), inside] = False
        return left

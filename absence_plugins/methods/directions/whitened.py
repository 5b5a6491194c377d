"""Whitened positions of features: in memory where they are few, else whitened again each time they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from absence_plugins.methods.directions.features import CHUNK, Features, chunks
from absence_plugins.methods.directions.whitening import Whitening

KEPT_BYTES = 5e8  # of whitened positions that are kept in memory
SAMPLE_BYTES = 4e8  # of those that sources are searched in


class WhitenedPositions(Iterable[Tensor]):
    """Chunks z [n, R] of all positions in order, read as often as needed.

    Args:
        features: any; a store's shards are read from disk.
        whitening: of these features.
        half: 0 or 1 for every second image from that one on, of a single image every second position; None for all.
    """

    def __init__(self, features: Features, whitening: Whitening, *, half: int | None = None) -> None:
        self.features, self.whitening, self.half = features, whitening, half
        n, h, w, _ = features.shape
        self.kept: list[Tensor] | None = None
        self.is_small = 4 * n * h * w * whitening.rank <= KEPT_BYTES

    def __iter__(self) -> Iterator[Tensor]:
        if self.kept is None and self.is_small:
            self.kept = list(self._read())
        return iter(self.kept) if self.kept is not None else self._read()

    def halves(self) -> tuple[WhitenedPositions, WhitenedPositions]:
        """Every second image, and the others; of one image every second position."""
        one, other = (WhitenedPositions(self.features, self.whitening, half=half) for half in (0, 1))
        return one, other

    def _read(self) -> Iterator[Tensor]:
        first = 0
        for chunk in chunks(self.features):
            images = len(chunk)
            if self.half is not None and self.features.shape[0] > 1:
                chunk = chunk[(self.half - first) % 2 :: 2]
            rows = chunk.flatten(0, -2)
            if self.half is not None and self.features.shape[0] == 1:
                rows = rows[self.half :: 2]
            if len(rows):
                yield from torch.split(self.whitening(rows), CHUNK)
            first += images


def draw_positions(features: Features, whitening: Whitening, seed: int) -> Tensor:
    """Whitened positions of randomly drawn images, as many as fit in memory, [P, R]; one image's lie together."""
    n, h, w, _ = features.shape
    most = max(1, int(SAMPLE_BYTES / (4 * whitening.rank * h * w)))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]
    size = max(1, CHUNK // (h * w))
    return torch.cat([whitening(features.batch(part)).flatten(0, -2) for part in torch.split(order, size)])

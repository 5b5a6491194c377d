"""Features of a layer, in memory or in shards on disk: the same mini-batches from both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from absence_plugins.core.files import write_whole
from absence_plugins.methods.checkpoint import write_tensors

INDEX = "features.json"
_FORMAT = "absence_plugins.features/1"


class Features(Protocol):
    """What a fit reads: ``shape`` (N, H, W, D) and rows by number."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N images, H x W positions, D channels."""
        ...

    def batch(self, index: Tensor) -> Tensor:
        """The features of some images, [len(index), H, W, D]."""
        ...


class MemoryFeatures:
    """A tensor [N, H, W, D] as :class:`Features`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        n, h, w, d = tensor.shape
        self.shape = (n, h, w, d)

    def batch(self, index: Tensor) -> Tensor:
        """The features of some images, [len(index), H, W, D]."""
        return self.tensor[index.to(self.tensor.device)]


class FeatureStore:
    """Features [N, H, W, D] in a folder: safetensors shards and an index. Shards are mapped, not read.

    A mini-batch touches only the pages it needs, so the features need not fit in memory.

    Args:
        folder: as :meth:`write` made it.
        device: where mini-batches go.

    Raises:
        ValueError: the folder holds no store, or a shard is missing.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> store = FeatureStore.write(folder, [torch.zeros(3, 2, 2, 4), torch.ones(2, 2, 2, 4)])
        >>> store, float(store.batch(torch.tensor([4])).mean())
        (FeatureStore(5 images of 2 x 2 positions, 4 channels, 2 shards), 1.0)
    """

    def __init__(self, folder: str | Path, *, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = Path(folder), torch.device(device)
        index = self.folder / INDEX
        if not index.is_file():
            raise ValueError(
                f"{self.folder} holds no feature store; write one with FeatureStore.write(folder, batches)"
            )
        read: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        if read.get("format") != _FORMAT:
            raise ValueError(f"{index} is of format {read.get('format')!r}; this version reads {_FORMAT!r}")
        self._shards = [(self.folder / name, int(count)) for name, count in read["shards"]]
        missing = [path.name for path, _ in self._shards if not path.is_file()]
        if missing:
            raise ValueError(f"{self.folder} lacks {missing[0]}; write the store again")
        self._starts = torch.tensor([0, *(count for _, count in self._shards)]).cumsum(0)
        h, w, d = read["shape"]
        self.shape = (int(self._starts[-1]), int(h), int(w), int(d))
        self._open: dict[int, Tensor] = {}

    @classmethod
    def write(
        cls, folder: str | Path, batches: Iterable[Tensor], *, device: torch.device | str = "cpu"
    ) -> FeatureStore:
        """Write one shard per tensor [n, H, W, D] of ``batches``; the index comes last.

        A store that was there is given up when the writing begins: one that is stopped leaves none.

        Raises:
            ValueError: no batch, or batches of different [H, W, D].
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        shards: list[tuple[str, int]] = []
        shape: list[int] | None = None
        for number, batch in enumerate(batches):
            if batch.dim() != 4 or (shape is not None and list(batch.shape[1:]) != shape):
                raise ValueError(
                    f"batch {number} has shape {tuple(batch.shape)}; every batch is [n, H, W, D], H, W, D alike"
                )
            shape = list(batch.shape[1:])
            name = f"features-{number:05d}.safetensors"
            write_tensors(folder / name, {"features": batch.detach()})
            shards.append((name, len(batch)))
        if shape is None:
            raise ValueError("batches is empty; a store needs at least one tensor [n, H, W, D]")
        write_whole(folder / INDEX, json.dumps({"format": _FORMAT, "shape": shape, "shards": shards}))
        return cls(folder, device=device)

    def __repr__(self) -> str:
        n, h, w, d = self.shape
        return f"FeatureStore({n} images of {h} x {w} positions, {d} channels, {len(self._shards)} shards)"

    def batch(self, index: Tensor) -> Tensor:
        """The features of some images, [len(index), H, W, D], on ``device``."""
        index = index.cpu()
        shard = torch.bucketize(index, self._starts[1:], right=True)
        found: Tensor | None = None
        for number in sorted(set(shard.tolist())):
            here = shard == number
            rows = self._shard(number)[index[here] - self._starts[number]]
            if found is None:
                found = rows.new_empty((len(index), *self.shape[1:]))
            found[here] = rows
        if found is None:
            return torch.empty((0, *self.shape[1:]), device=self.device)
        return found.to(self.device)

    def _shard(self, number: int) -> Tensor:
        if number not in self._open:
            with safe_open(self._shards[number][0], framework="pt") as file:
                self._open[number] = file.get_tensor("features")
        return self._open[number]


def as_features(features: Tensor | Features) -> Features:
    """A tensor or a store as :class:`Features`. Raises TypeError for anything else, ValueError for another shape."""
    if isinstance(features, Tensor):
        if features.dim() != 4 or 0 in features.shape:
            raise ValueError(
                f"features has shape {tuple(features.shape)}; pass [N, H, W, D], channels last: of a convolution's "
                "output [N, D, H, W] features.permute(0, 2, 3, 1), of tokens [N, T, D] features[:, None]"
            )
        if not features.is_floating_point():
            raise TypeError(f"features has dtype {features.dtype}; pass floating point numbers, features.float()")
        return MemoryFeatures(features)
    if not hasattr(features, "batch") or not hasattr(features, "shape"):
        raise TypeError(f"features must be a tensor [N, H, W, D] or a FeatureStore, got a {type(features).__name__}")
    return features


CHUNK = 8192  # positions


def chunks(features: Features, positions: int = CHUNK) -> Iterator[Tensor]:
    """All features in order, about so many positions at a time, at least one image: [n, H, W, D]."""
    _, height, width, _ = features.shape
    size = max(1, positions // (height * width))
    for first in range(0, features.shape[0], size):
        yield features.batch(torch.arange(first, min(first + size, features.shape[0])))


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Image numbers without end: every pass in a new order, each batch of ``size`` (or all, if there are fewer)."""
    size = min(size, count)
    while True:
        for index in torch.split(torch.randperm(count, generator=generator), size):
            if len(index) == size:
                yield index

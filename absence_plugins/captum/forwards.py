"""Values of a model on many perturbed samples, which share forwards that fit into memory: the engine of all perturbations.

A *row* is one forward of one sample, perturbed in one way; :class:`Changes` says which rows there are and makes their
inputs. One perturbation is also run alone, on all samples, as Captum runs it: where the model's samples depend on each
other in a batch, the two differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from absence_plugins.captum.features import Inputs
from absence_plugins.core.precision import coarsest
from absence_plugins.core.weighing import Weighing, count_fitting


class Explained(Protocol):
    """One number per sample of what a model puts out for them."""

    def values(self, outputs: Any) -> Tensor:
        """The number of every sample [N]."""

    def sizes(self, outputs: Any) -> Tensor:
        """How large the outputs are that it is made of [N]."""


Forward = Callable[[Inputs, Tensor], Any]
Explain = Callable[[Any, Tensor], tuple[Explained, Any]]
Way = Callable[[Inputs, Tensor], Tensor]
MOST_ROWS = 4096
GROWTH = 1024  # times the memory of a sample no operation takes
SMALL_WORK = 64 * 2**20  # bytes that all rows take at most: they share one forward, which needs no weighing
CALL = 100_000  # bytes that are read and written in the time of an operation on next to nothing
SLACK = 1000  # rounding of a forward in another batch, in steps of the type's resolution
COARSE_SLACK = 0.05  # in half precision, and in float32 where a GPU rounds products to TF32


class Entangled(Exception):
    """A model does not give for many samples in one batch what it gives for each of them."""


class Changes(ABC):
    """Perturbations of samples.

    Attributes:
        rows: [R, c], the sample of each in column 0, the perturbation in the others.
        may_be_same: whether a row's inputs can be the sample itself; such rows are not run, and have the value u(x).
    """

    rows: Tensor
    may_be_same = False

    @abstractmethod
    def make(self, rows: Tensor) -> Inputs:
        """The inputs of rows [N, c], per input [N, ...]."""

    @abstractmethod
    def middle(self) -> Tensor:
        """A row that is typical of all [c]."""

    @abstractmethod
    def find_values(self, values: Tensor, row: Tensor, output: Tensor) -> Tensor:
        """Of values [R] those of all samples under the perturbation of one row [B]; ``output``: u(x) [B]."""


@dataclass(frozen=True)
class Quicker:
    """Another way to the same values, which is compared with a whole forward.

    run: from the inputs of rows, and these, to values [N]. share: of the memory that a row takes in a whole forward.
    in_cache: as :func:`~absence_plugins.core.weighing.count_fitting`.
    """

    run: Way
    share: float = 1.0
    in_cache: bool = True


FindQuicker = Callable[[Weighing | None], Sequence[Quicker]]


@dataclass
class Forwards:
    """The model that is explained, on perturbed samples.

    inputs: what is perturbed, per input [B, ...]. output: u(x) [B]. forward: from inputs of N rows, and the sample [N]
    that each row is of, to the model's outputs. explain: from these and the samples to what is explained, and the
    outputs [N, ...]. dtype: the least exact one. size: bytes of a sample. tick: is told how many rows are done, and of
    how many. is_weighed: one forward is, even where all rows are small.
    """

    inputs: Inputs
    output: Tensor
    forward: Forward
    explain: Explain
    dtype: torch.dtype
    size: int
    tick: Callable[[int, int], object] = field(default=lambda rows, of: None)
    is_weighed: bool = False

    def measure(self, changes: Changes, quicker: FindQuicker = lambda weighing: ()) -> Tensor:
        """The values [R] of all rows; ``quicker``: ways that are tried in front of whole forwards, from what one
        of all samples was weighed as.

        Raises:
            Entangled: samples in a batch change each other's values.
        """
        rows = changes.rows
        if not len(rows):
            return self.output.new_zeros(0)
        first = changes.middle()
        weighing = Weighing() if self.is_weighed or len(rows) * self.size * GROWTH > SMALL_WORK else None
        alone = self._run_alone(changes, first, weighing)
        share = 0.0 if weighing is None else weighing.largest / len(self.output)
        for way in quicker(weighing):
            values = self._try(changes, way, share, first, alone)
            if values is not None:
                return values
        try:
            values = self._fill(changes, share, self.run_whole)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model may know one size of batches
            raise Entangled(f"{type(error).__name__}: {error}") from error
        self._check(changes.find_values(values, first, self.output), alone)
        return values

    def run_whole(self, inputs: Inputs, rows: Tensor) -> Tensor:
        """The values of rows [N] from their inputs."""
        explained, outputs = self.explain(self.forward(inputs, rows[:, 0]), rows[:, 0])
        return explained.values(outputs)

    def _try(
        self, changes: Changes, way: Quicker, share: float, first: Tensor, alone: tuple[Tensor, Tensor]
    ) -> Tensor | None:
        """The values by a quicker way; None where these are not what a whole forward gives."""
        try:
            values = self._fill(changes, share * way.share, way.run, in_cache=way.in_cache)
            found = (values - self.output[changes.rows[:, 0].to(values.device)]).abs()
            largest = changes.rows[int(found.argmax())]
            expected = self._run_alone(changes, largest)
            self._check(changes.find_values(values, largest, self.output), expected)
            self._check(changes.find_values(values, first, self.output), alone)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return None
        return values

    def _fill(self, changes: Changes, share: float, way: Way, *, in_cache: bool = True) -> Tensor:
        """The values of all rows, ``share`` bytes each."""
        rows = changes.rows
        values = self.output.new_zeros(len(rows))
        size = count_fitting(share, self.output.device, in_cache=in_cache)
        size = min(max(size, len(self.output)), MOST_ROWS)
        start = 0
        while start < len(rows):
            chunk = rows[start : start + size]
            try:
                values[start : start + len(chunk)] = self._run(changes, chunk, way)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            start += len(chunk)
            self.tick(len(chunk), len(rows))
        return values

    def _run(self, changes: Changes, rows: Tensor, way: Way) -> Tensor:
        inputs = changes.make(rows)
        if not changes.may_be_same:
            return way(inputs, rows)
        pairs = zip(inputs, self.inputs, strict=True)
        is_new = [(new != own[rows[:, 0].to(own.device)]).flatten(1).any(1).cpu() for new, own in pairs]
        kept = is_new[0] if len(is_new) == 1 else torch.stack(is_new).any(0)
        if bool(kept.all()):
            return way(inputs, rows)
        values = self.output[rows[:, 0].to(self.output.device)]
        if bool(kept.any()):
            chosen = tuple(part[kept.to(part.device)] for part in inputs)
            values[kept.to(values.device)] = way(chosen, rows[kept]).to(values)
        return values

    def _run_alone(self, changes: Changes, row: Tensor, watch: Any = None) -> tuple[Tensor, Tensor]:
        """As Captum runs the perturbation of a row: the values of all samples [B], and how large outputs they are made
        of [B].
        """
        images = torch.arange(len(self.output))
        inputs = changes.make(torch.stack([images, *row[1:, None].expand(-1, len(images))], 1))
        with watch or nullcontext():
            explained, outputs = self.explain(self.forward(inputs, images), images)
        return explained.values(outputs), explained.sizes(outputs)

    def _check(self, found: Tensor, alone: tuple[Tensor, Tensor]) -> None:
        """Compare the values [B] of one perturbation with those when run alone.

        Raises:
            Entangled: they differ by more than rounding.
        """
        values, sizes = alone
        error = (found - values).abs().max()
        if not bool(error <= self._tolerance() * sizes.max()):
            raise Entangled(
                f"values differ by {float(error):.2g}, and are made of outputs up to {float(sizes.max()):.2g}"
            )

    def _tolerance(self) -> float:
        dtypes = [self.dtype]
        device = self.output.device.type
        if torch.is_autocast_enabled(device):
            dtypes.append(torch.get_autocast_dtype(device))
        is_rough = device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
        dtype = coarsest(dtypes)
        return (
            COARSE_SLACK if is_rough and dtype == torch.float32 else min(COARSE_SLACK, SLACK * torch.finfo(dtype).eps)
        )


def find_runs(names: Tensor) -> list[tuple[int, int]]:
    """From where to where rows of names [N, c] are the same."""
    counts = torch.unique_consecutive(names, return_counts=True, dim=0)[1].tolist()
    return list(pairwise(accumulate(counts, initial=0)))

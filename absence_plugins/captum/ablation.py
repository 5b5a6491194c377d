"""Effects of features that are replaced by a baseline's: many of them, of several samples, in one forward.

A *row* is one forward of one sample with one feature replaced by one reference's. Rows of all samples, references and
features share batches that fit into memory; rows that change nothing have the effect 0 and are not run. One feature is
also run alone, as Captum runs it: where the model's samples depend on each other in a batch, the two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from absence_plugins.captum.features import Features, Inputs
from absence_plugins.core.changed_parts import Changed, run_changed
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
MOST_ROWS = 4096
GROWTH = 1024  # times the memory of a sample no forward takes: small work needs no weighing
SMALL = 256  # places: a smaller input is computed as a whole
MOST_OF_IT = 0.25  # of an input in a feature's box: larger ones leave nothing to be reused
LESS = 8  # how many changed parts take the memory of one whole forward
SLACK = 1000  # rounding of a forward in another batch, in steps of the type's resolution
COARSE_SLACK = 0.05  # in half precision, and in float32 where a GPU rounds products to TF32


class Entangled(Exception):
    """A model does not give for many samples in one batch what it gives for each of them."""


@dataclass
class Ablation:
    """What is replaced by what, and the explained values.

    inputs: per input [B, ...]. references: K baselines of each sample, per input [B, K, ...]. output: u(x) [B].
    forward: from inputs of N rows, and the sample [N] that each row is of, to the model's outputs. explain: from these
    and the samples to what is explained, and the outputs [N, ...]. dtype: the least exact one. tick: is told how many
    rows are done, and of how many. in_parts: whether the model may be followed by
    :func:`~absence_plugins.core.changed_parts.run_changed`, which computes only what a feature reaches.
    """

    inputs: Inputs
    references: Inputs
    features: Features
    output: Tensor
    forward: Forward
    explain: Explain
    dtype: torch.dtype
    in_parts: bool = False
    tick: Callable[[int, int], object] = field(default=lambda rows, of: None)

    def measure(self) -> Tensor:
        """u(x) - u(x with a feature from a reference) [K, B, count].

        Raises:
            Entangled: samples in a batch change each other's values.
        """
        count = self.references[0].shape[1]
        rows = torch.stack([self._touched(column) for column in range(count)], 1).cpu().nonzero()
        effects = self.output.new_zeros(count, len(self.output), self.features.count)
        if not len(rows):
            return effects
        first = rows[len(rows) // 2]
        share = self.inputs[0][0].numel() * self.inputs[0].element_size() * GROWTH
        if len(rows) <= count_fitting(share, self.inputs[0].device):
            alone = self._run_alone(first)
        else:
            with Weighing() as weighing:
                alone = self._run_alone(first)
            share = weighing.largest / len(self.output)
        self.in_parts = self.in_parts and self._is_worth_it(rows)
        if self.in_parts:
            self._measure_parts(rows, share, effects)
        if not self.in_parts:
            try:
                self._fill(effects, rows, share, self._run)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a model may know one size of batches
                raise Entangled(f"{type(error).__name__}: {error}") from error
        self._check(effects, first, alone)
        return effects

    def _measure_parts(self, rows: Tensor, share: float, effects: Tensor) -> None:
        """The effects by changed parts; where these are not what a whole forward gives, ``in_parts`` becomes False."""
        try:
            self._fill(effects, rows, share / LESS, self._run_parts)
            found = effects[rows[:, 1], rows[:, 0], rows[:, 2]].abs()
            largest = rows[int(found.argmax())]
            self._check(effects, largest, self._run_alone(largest))
        except torch.OutOfMemoryError:
            raise
        except Exception:
            self.in_parts = False

    def _fill(self, effects: Tensor, rows: Tensor, share: float, run: Callable[[Tensor], Tensor]) -> None:
        """Measure the effects of all rows, ``share`` bytes each."""
        size = count_fitting(share, self.inputs[0].device)
        size = min(max(size, len(self.output)), MOST_ROWS)
        start = 0
        while start < len(rows):
            chunk = rows[start : start + size]
            try:
                found = run(chunk)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            images, references, numbers = chunk.to(effects.device).unbind(1)
            effects[references, images, numbers] = self.output[images] - found
            start += len(chunk)
            self.tick(len(chunk), len(rows))

    def _check(self, effects: Tensor, row: Tensor, alone: tuple[Tensor, Tensor]) -> None:
        """Compare the effects of one feature with its values when run alone.

        Raises:
            Entangled: they differ by more than rounding.
        """
        values, sizes = alone
        error = (self.output - effects[row[1], :, row[2]] - values).abs().max()
        if not bool(error <= self._tolerance() * sizes.max()):
            raise Entangled(
                f"values differ by {float(error):.2g}, and are made of outputs up to {float(sizes.max()):.2g}"
            )

    def _touched(self, column: int) -> Tensor:
        pairs = zip(self.inputs, self.references, strict=True)
        return self.features.touched([part != own[:, column] for part, own in pairs])

    def _run_alone(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """As Captum runs the feature and the reference of a row: the values of all samples [B], and how large outputs
        they are made of [B].
        """
        images = torch.arange(len(self.output))
        inputs = self._changed(torch.stack([images, *row[1:, None].expand(-1, len(images))], 1))
        explained, outputs = self.explain(self.forward(inputs, images), images)
        return explained.values(outputs), explained.sizes(outputs)

    def _is_worth_it(self, rows: Tensor) -> bool:
        """Whether the one input is images, and the features are small parts of them."""
        part = self.inputs[0]
        if len(self.inputs) > 1 or part.dim() != 4 or not part.is_floating_point() or part.shape[2:].numel() < SMALL:
            return False
        starts, ends = self.features.boxes(rows[:, 0], rows[:, 2])
        return bool((ends - starts).prod(1).float().mean() <= MOST_OF_IT * part.shape[2:].numel())

    def _run(self, rows: Tensor) -> Tensor:
        explained, outputs = self.explain(self.forward(self._changed(rows), rows[:, 0]), rows[:, 0])
        return explained.values(outputs)

    def _run_parts(self, rows: Tensor) -> Tensor:
        images = rows[:, 0]
        own, owners = torch.unique(images, return_inverse=True)
        clean, (copies,) = self.inputs[0][own.to(self.inputs[0].device)], self._changed(rows)
        starts, ends = self.features.boxes(images, rows[:, 2])
        height, width = (ends - starts).amax(0).tolist()
        starts = torch.minimum(starts, torch.tensor(clean.shape[2:]) - torch.tensor([height, width]))
        corners = [(y, x) for y, x in starts.tolist()]
        pixels = torch.stack(
            [one[:, y : y + height, x : x + width] for one, (y, x) in zip(copies, corners, strict=True)]
        )
        if clean.device.type == "cpu":  # faster there, where windows are small
            clean, pixels = (one.contiguous(memory_format=torch.channels_last) for one in (clean, pixels))
        found = run_changed(lambda batch: self.forward((batch,), own), Changed(clean, owners.tolist(), corners, pixels))
        if found.values is None:
            raise Entangled(found.why)
        explained, outputs = self.explain(found.values, images)
        return explained.values(outputs)

    def _changed(self, rows: Tensor) -> Inputs:
        """The inputs of rows."""
        images, references, numbers = rows.unbind(1)
        changed = []
        held = self.features.inside(images, numbers)
        for part, reference, inside in zip(self.inputs, self.references, held, strict=True):
            of = images.to(part.device)
            x = part[of]
            changed.append(x if inside is None else torch.where(inside, reference[of, references.to(part.device)], x))
        return tuple(changed)

    def _tolerance(self) -> float:
        dtypes = [self.dtype]
        device = self.inputs[0].device.type
        if torch.is_autocast_enabled(device):
            dtypes.append(torch.get_autocast_dtype(device))
        is_rough = device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
        dtype = coarsest(dtypes)
        return (
            COARSE_SLACK if is_rough and dtype == torch.float32 else min(COARSE_SLACK, SLACK * torch.finfo(dtype).eps)
        )

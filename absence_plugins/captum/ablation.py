"""Features that are replaced by a baseline's: which rows there are, their inputs, and the effects.

Rows of all samples, references and features share forwards (:mod:`absence_plugins.captum.forwards`); rows that change
nothing have the effect 0 and are not run. Where the features are small parts of images, only what they reach is
computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.captum.features import Features, Inputs
from absence_plugins.captum.forwards import CALL, Changes, Entangled, Forwards
from absence_plugins.core.changed_parts import Changed, run_changed

SMALL = 256  # places: a smaller input is computed as a whole
MOST_OF_IT = 0.25  # of an input in a feature's box: larger ones leave nothing to be reused
INDEXED = 32  # entries that are copied in order in the time of one copied by its index
LESS = 1 / 6  # of the memory of one whole forward, which a changed part takes


class Replaced(Changes):
    """One feature at a time, taken from a reference. Rows: sample, reference, feature.

    inputs: per input [B, ...]. references: K baselines of each sample, per input [B, K, ...].
    """

    def __init__(self, inputs: Inputs, references: Inputs, features: Features) -> None:
        self.inputs, self.references, self.features = inputs, references, features
        self.rows = torch.stack([self._touched(column) for column in range(references[0].shape[1])], 1).cpu().nonzero()

    def _touched(self, column: int) -> Tensor:
        pairs = zip(self.inputs, self.references, strict=True)
        return self.features.touched([part != own[:, column] for part, own in pairs])

    def make(self, rows: Tensor) -> Inputs:
        """As :class:`Changes`."""
        images, references, numbers = rows.unbind(1)
        changed = []
        held = self.features.inside(images, numbers)
        for part, reference, inside in zip(self.inputs, self.references, held, strict=True):
            of, column = images.to(part.device), references.to(part.device)
            x = (
                part.index_select(0, of) if part.is_contiguous() else part[of]
            )  # the one is faster, the other keeps layouts
            changed.append(x if inside is None else put_in(x, reference, inside, of, column))
        return tuple(changed)

    def middle(self) -> Tensor:
        """As :class:`Changes`."""
        return self.rows[len(self.rows) // 2]

    def find_values(self, values: Tensor, row: Tensor, output: Tensor) -> Tensor:
        """As :class:`Changes`."""
        return find_group(self.rows, values, row, output)

    def effects(self, values: Tensor, output: Tensor) -> Tensor:
        """u(x) - u(x with a feature from a reference) [K, B, count]."""
        found = output.new_zeros(self.references[0].shape[1], len(output), self.features.count)
        images, references, numbers = self.rows.to(output.device).unbind(1)
        found[references, images, numbers] = output[images] - values
        return found


def put_in(x: Tensor, reference: Tensor, inside: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """Rows x [N, ...], which may be overwritten, with the entries ``inside`` [N, ...] of reference [B, K, ...] at
    images [N] and columns [N].
    """
    if x.numel() * x.element_size() < CALL:
        return torch.where(inside, reference[images, columns], x)
    axes = max(axis for axis, size in enumerate(inside.shape) if size > 1 or axis == 0) + 1
    held = inside.reshape(inside.shape[:axes]).expand(x.shape[:axes])
    if INDEXED * int(held.count_nonzero()) > x.numel():
        return torch.where(inside, reference[images, columns], x)
    rows, *places = held.nonzero().unbind(1)
    x[(rows, *places)] = reference[(images[rows], columns[rows], *places)].to(x.dtype)
    return x


def find_group(rows: Tensor, values: Tensor, row: Tensor, output: Tensor) -> Tensor:
    """The values of all samples [B] under the perturbation of one row; u(x) of those that have no such row."""
    own = (rows[:, 1:] == row[1:]).all(1)
    found = output.clone()
    found[rows[own, 0].to(found.device)] = values[own.to(values.device)]
    return found


def is_in_small_parts(part: Tensor, features: Features, rows: Tensor) -> bool:
    """Whether an input is images, and the features of rows are small parts of them. Rows: sample, ..., feature."""
    if part.dim() != 4 or not part.is_floating_point() or part.shape[2:].numel() < SMALL:
        return False
    starts, ends = features.boxes(rows[:, 0], rows[:, -1])
    return bool((ends - starts).prod(1).float().mean() <= MOST_OF_IT * part.shape[2:].numel())


def run_parts(forwards: Forwards, features: Features, inputs: Inputs, rows: Tensor) -> Tensor:
    """The values [N] of perturbed images, of which only what the features reach is computed.

    Raises:
        Entangled: the model cannot be followed.
    """
    images, (copies,) = rows[:, 0], inputs
    own, owners = torch.unique(images, return_inverse=True)
    clean = forwards.inputs[0][own.to(copies.device)]
    starts, ends = features.boxes(images, rows[:, -1])
    height, width = (ends - starts).amax(0).tolist()
    starts = torch.minimum(starts, torch.tensor(clean.shape[2:]) - torch.tensor([height, width]))
    corners = [(y, x) for y, x in starts.tolist()]
    pixels = torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(copies, corners, strict=True)])
    if clean.device.type == "cpu":  # faster there, where windows are small
        clean, pixels = (one.contiguous(memory_format=torch.channels_last) for one in (clean, pixels))
    changed = Changed(clean, owners.tolist(), corners, pixels)
    found = run_changed(lambda batch: forwards.forward((batch,), own), changed)
    if found.values is None:
        raise Entangled(found.why)
    explained, outputs = forwards.explain(found.values, images)
    return explained.values(outputs)

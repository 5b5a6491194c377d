"""How well known concepts were recovered: detectors, encoding directions and signal values against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import PRESENT, SyntheticDirections
from absence_plugins.methods.directions import DirectionPairs

IOU, COSINE, RMSE = 0.97, 0.97, 0.15  # what counts as recovered; of I = 3 concepts without noise


@dataclass(frozen=True, eq=False)
class Recovery:
    """Truth against what was found, one entry per concept; directions are matched to concepts by IoU.

    Attributes:
        iou: of the detector and the concept's positions.
        cosine: of the found and the true encoding direction.
        rmse: of the signal values; a concept's go from 0 to 5.
        matched: the number of the direction that stands for each concept.
        cosines: [I, J], of every concept with every direction.
    """

    iou: tuple[float, ...]
    cosine: tuple[float, ...]
    rmse: tuple[float, ...]
    matched: tuple[int, ...]
    cosines: Tensor

    @property
    def ok(self) -> bool:
        """All concepts recovered: IoU and cosine at least .97, RMSE at most .15."""
        return min(self.iou) >= IOU and min(self.cosine) >= COSINE and max(self.rmse) <= RMSE

    def __repr__(self) -> str:
        return f"Recovery(IoU >= {min(self.iou):.3f}, cosine >= {min(self.cosine):.3f}, RMSE <= {max(self.rmse):.3f})"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "iou": list(self.iou),
            "cosine": list(self.cosine),
            "rmse": list(self.rmse),
            "matched": list(self.matched),
            "cosines": self.cosines.tolist(),
            "ok": self.ok,
        }


def recovery(data: SyntheticDirections, pairs: DirectionPairs) -> Recovery:
    """Compare fitted pairs with the truth; signal values are counted from the threshold of presence, 2.5."""
    fires = pairs.logits(data.features).flatten(0, 2) > 0
    values = pairs.signal_values(data.features).flatten(0, 2)
    return compare(data, fires, pairs.encoding, values)


def compare(data: SyntheticDirections, fires: Tensor, encoding: Tensor, values: Tensor) -> Recovery:
    """Compare detections [P, J] bool, unit encodings [D, J] and signal values [P, J] with the truth; J >= I.

    Cosines are those of the encodings with every feature divided by its ``data.scale``, where the true directions were
    drawn: a few large features must not make all directions alike.
    """
    present = data.present.flatten(0, 2).double()
    detected = fires.double()
    together = present.T @ detected
    iou = together / (present.sum(0)[:, None] + detected.sum(0) - together).clamp(min=1)
    concepts, found = (torch.as_tensor(side) for side in linear_sum_assignment(-iou.numpy()))
    true, made = (F.normalize(one.double() / data.scale[:, None], dim=0) for one in (data.encoding, encoding))
    cosines = true.T @ made
    truth = data.signal_values.flatten(0, 2).double()[:, concepts] - PRESENT[0]
    rmse = ((truth - values.double()[:, found] / data.unit[concepts]) ** 2).mean(0).sqrt()
    return Recovery(
        tuple(iou[concepts, found].tolist()),
        tuple(cosines[concepts, found].tolist()),
        tuple(rmse.tolist()),
        tuple(found.tolist()),
        cosines,
    )

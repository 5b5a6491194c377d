"""One method on one data set: what it recovers against what detectors that know the truth do, and what it costs."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from absence_plugins.bench.memory import MIB, read_peak, reset_peak
from absence_plugins.data.synthetic_directions import SyntheticDirections
from absence_plugins.data.synthetic_truth import truth_detectors
from absence_plugins.experiments.directions.baselines import BASELINES
from absence_plugins.experiments.directions.recovery import Recovery, compare, recovery
from absence_plugins.experiments.directions.settings import OURS, PAPER, TRUTH, Setting
from absence_plugins.methods.directions import DirectionPairs

COSINE, BELOW_TRUTH = 0.95, 0.05  # a concept counts as found


@dataclass(frozen=True)
class Row:
    """One method on one data set.

    Attributes:
        setting: name of the kind of data.
        method: name of the method; "truth": linear detectors that know the truth.
        seed: of the data.
        size: I, D and the number of positions.
        iou: worst and median over the concepts.
        cosine: the same, with all features on one scale.
        rmse: the same (worst: the largest), of signal values from 0 to 5.
        found: share of the concepts with a cosine of at least .95 and an IoU at most .05 below that of the truth.
        seconds: CPU time of the fit, one thread.
        mebibytes: by how much the fit raised the peak of the memory in use.
    """

    setting: str
    method: str
    seed: int
    size: tuple[int, int, int]
    iou: tuple[float, float]
    cosine: tuple[float, float]
    rmse: tuple[float, float]
    found: float
    seconds: float
    mebibytes: float

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON; four digits."""
        plain = asdict(self)
        for name in ("iou", "cosine", "rmse"):
            plain[name] = [round(value, 4) for value in plain[name]]
        plain |= {"size": list(self.size), "found": round(self.found, 4)}
        return plain | {"seconds": round(self.seconds, 2), "mebibytes": round(self.mebibytes)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Row:
        """The way back from :meth:`to_dict`."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**values)


def measure_methods(setting: Setting, seed: int, methods: tuple[str, ...], *, quick: bool = False) -> Iterator[Row]:
    """The rows of these methods on one data set of a setting, one by one; ``quick``: short fits as published.

    Raises:
        ValueError: an unknown method.
    """
    known = (OURS, PAPER, TRUTH, *BASELINES)
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise ValueError(f"method {unknown[0]!r} is unknown; use some of {', '.join(known)}")
    data = setting.data(seed)
    truth = truth_detectors(data).iou
    for name in methods:
        gc.collect()
        before, began = reset_peak(), time.process_time()
        read = _run(name, data, quick)
        seconds, rose = time.process_time() - began, read_peak() - before
        made = read()
        yield _row(setting.name, name, seed, data, made, truth, seconds, rose)


def _run(name: str, data: SyntheticDirections, quick: bool) -> Callable[[], Recovery]:
    """Fit; the answer compares it with the truth, which is not timed where it can be told apart."""
    if name == TRUTH:
        known = truth_detectors(data)
        x = data.features.flatten(0, 2).double()

        def compared() -> Recovery:
            logits = x @ known.decoding - known.threshold
            gain = (known.decoding * known.encoding).sum(0)
            return compare(data, logits > 0, known.encoding, logits / gain)

        return compared
    if name not in (OURS, PAPER):
        made = BASELINES[name](data)
        return lambda: made
    options: dict[str, Any] = {"recipe": "paper", **({"steps": 60} if quick else {})} if name == PAPER else {}
    pairs = DirectionPairs(data.encoding.shape[1], **options).fit(data.features, data.head)
    return lambda: recovery(data, pairs)


def _row(
    setting: str, method: str, seed: int, data: SyntheticDirections, made: Recovery, truth: torch.Tensor,
    seconds: float, rose: int,
) -> Row:  # fmt: skip
    iou, cosine, rmse = (
        (float(worst(one)), statistics.median(one))
        for one, worst in ((made.iou, min), (made.cosine, min), (made.rmse, max))
    )
    enough = torch.tensor(made.iou) >= truth.float() - BELOW_TRUTH
    enough &= torch.tensor(made.cosine) >= COSINE
    found = float(enough.double().mean())
    size = (data.encoding.shape[1], data.encoding.shape[0], data.present.flatten(0, 2).shape[0])
    return Row(setting, method, seed, size, iou, cosine, rmse, found, seconds, max(rose, 0) / MIB)

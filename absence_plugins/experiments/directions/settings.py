"""The data sets of ``absence-plugins bench directions``, easy and hard, small and large, and who is asked about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from absence_plugins.data.synthetic_directions import SyntheticDirections, many_directions, synthetic_directions

OURS, PAPER, TRUTH = "DirectionPairs", "as published", "truth"
CHEAP, ICA, AUTOENCODER = "k-means + logistic", "ICA", "top-k autoencoder"
ALL = (OURS, CHEAP, ICA, AUTOENCODER)
Group = str  # "small", "large", "concepts" (also the exponent in I), "dimensions" (the exponent in D)


@dataclass(frozen=True)
class Setting:
    """One kind of data.

    Attributes:
        name: for tables.
        make: keyword arguments to data.
        options: the keyword arguments.
        groups: where it belongs: "small" or "large"; "concepts", "dimensions": it counts for a scaling exponent.
        methods: who is asked.
        most: data sets at most.
    """

    name: str
    make: Callable[..., SyntheticDirections]
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Group, ...] = ("small",)
    methods: tuple[str, ...] = ALL
    most: int = 20

    def data(self, seed: int) -> SyntheticDirections:
        """The data set of a seed."""
        return self.make(seed, **self.options)


def _small(name: str, **options: Any) -> Setting:
    return Setting(name, synthetic_directions, options)


def _large(concepts: int, *groups: Group, words: str = "", methods: tuple[str, ...] = ALL, **options: Any) -> Setting:
    full: dict[str, Any] = {"concepts": concepts, "images": 3000, "overlap": 0.1, **options}
    name = f"{concepts} concepts in {full.get('dimensions', 512)}{words}"
    return Setting(name, many_directions, full, ("large", *groups), methods, most=1)


_BRIEF = (OURS, CHEAP)
SETTINGS: dict[str, Setting] = {
    one.name: one
    for one in (
        Setting("published", synthetic_directions, methods=(*ALL, PAPER)),
        _small("one pair in 80 %", frequencies=0.8),
        _small("pairs in 67/22/11 %", frequencies=(67, 22, 11)),
        _small("10 % overlap", overlap=0.1),
        _small("20 % overlap", overlap=0.2),
        _small("scales x100", scales=100),
        _small("noise .1", noise=0.1),
        _large(16, "concepts"),
        _large(32, "concepts", "dimensions", methods=_BRIEF),
        _large(64, "concepts", methods=(OURS, CHEAP, ICA)),
        _large(128, "concepts", methods=_BRIEF),
        _large(32, "dimensions", dimensions=64, methods=_BRIEF),
        _large(32, "dimensions", dimensions=128, methods=_BRIEF),
        _large(32, "dimensions", dimensions=256, methods=_BRIEF),
        _large(64, words=", Zipf, scales x10", frequencies="zipf", scales=10, methods=_BRIEF),
        _large(128, words=", 20 % overlap, scales x10", overlap=0.2, scales=10, methods=_BRIEF),
        _large(400, words=", half-normal", overlap=0.0, strengths="half-normal", images=5000, methods=(OURS,)),
    )
}
QUICK: dict[str, Setting] = {
    "published": Setting("published", synthetic_directions, {"images": 600}, methods=(OURS, CHEAP, PAPER), most=1),
    "10 % overlap": Setting("10 % overlap", synthetic_directions, {"images": 600, "overlap": 0.1}, most=1),
    **{
        f"{count} concepts in 48": Setting(
            f"{count} concepts in 48",
            many_directions,
            {"concepts": count, "dimensions": 48, "distractors": 4, "images": 200},
            ("large", "concepts"),
            _BRIEF,
            most=1,
        )
        for count in (9, 12)
    },
}

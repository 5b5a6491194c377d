"""One run of a bench: options that are checked once, and the loop over the works of all networks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from absence_plugins.bench.growth import measure_growth
from absence_plugins.bench.memory import MEMORY_LIMIT, weigh_ratio
from absence_plugins.bench.result import Measurement, cells
from absence_plugins.bench.surroundings import chosen_device, has_torchvision, steady
from absence_plugins.bench.timing import timed
from absence_plugins.bench.works import Work
from absence_plugins.core.checks import check_integer

Build = Callable[[str, bool, torch.device], dict[str, Work]]


@dataclass(frozen=True)
class Run:
    """How much is measured, and where.

    Attributes:
        rounds: per measured ratio; short work gets up to eight times as many, long work down to three.
        quick: tiny sizes, nothing judged: shows that the bench works.
        device: to measure on.
        progress: show a progress bar on stderr.
    """

    rounds: int
    quick: bool
    device: torch.device
    progress: bool

    @classmethod
    def start(cls, rounds: int, quick: bool, device: str, progress: bool) -> Run:
        """Check the options of a bench. Raises ValueError for fewer than one round, or a device that does not exist."""
        return cls(check_integer("rounds", rounds), quick, chosen_device(device), progress)

    def say(self, found: Measurement) -> Measurement:
        """Show a row on stderr as soon as it is measured: a bench that is stopped has said what it found."""
        if self.progress:
            from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

            name, plain, ours, ratio, _, limit, verdict = cells(found)
            said = f"{name}: {ours} next to {plain}, ratio {ratio}, limit {limit}"
            tqdm.write(" ".join(filter(None, (said, verdict))), file=sys.stderr)
        return found

    @property
    def networks(self) -> list[str]:
        """The networks that can be measured here: the ResNet needs torchvision."""
        return ["digits", "resnet18"] if has_torchvision() else ["digits"]

    def time(self, title: str, build: Build, networks: Sequence[str]) -> list[Measurement]:
        """Measure the ratio of times of every work of every network, and how they grow.

        ``build`` makes the works of one network: a function of a module, as a fresh process calls it again.
        """
        from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

        measured: list[Measurement] = []
        with steady(), tqdm(networks, desc=title, disable=not self.progress) as bar:
            for network in bar:
                for name, work in build(network, self.quick, self.device).items():
                    bar.set_postfix_str(f"{network} {name}: time")
                    measured.append(self.say(self.measure(build, network, name, work)))
        return measured

    def measure(self, build: Build, network: str, name: str, work: Work) -> Measurement:
        """The ratio of times of one work of ``build``, and how it grows."""
        found = timed(f"{network} {name}", work, self.rounds, self.device, judged=not self.quick)
        if work.growth is None:
            return found
        address = (f"{build.__module__}:{build.__qualname__}", network, name)
        return replace(found, growth=measure_growth(work.growth, self.device, address=address, quick=self.quick))

    def weigh(
        self,
        title: str,
        works: Sequence[tuple[str, str]],
        *,
        builder: str,
        limit: float = MEMORY_LIMIT,
        most: int | None = None,
    ) -> list[Measurement]:
        """Measure the ratio of peak memory of works (network, name); the rest as in :func:`weigh_ratio`."""
        from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

        measured: list[Measurement] = []
        with steady(), tqdm(works, desc=title, disable=not self.progress) as bar:
            for network, name in bar:
                bar.set_postfix_str(f"{network} {name}: memory")
                judged = not self.quick
                found = weigh_ratio(network, name, self.device, judged=judged, builder=builder, limit=limit, most=most)
                measured.append(self.say(found))
        return measured

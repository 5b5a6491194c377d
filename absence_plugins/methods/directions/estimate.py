"""Long work says so at its beginning, and its bars move."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self

from tqdm.auto import tqdm

from absence_plugins.core.durations import LONG, describe_time

AFTER = 2  # steps


def say_long(bar: tqdm) -> None:  # type: ignore[type-arg,unused-ignore]
    """After the first steps of a bar that is shown: how long all of them take, above a minute, and what shortens it."""
    if bar.disable or bar.n != AFTER:
        return
    seconds = bar.format_dict["elapsed"] / AFTER * bar.total
    if seconds > LONG:
        tqdm.write(
            f"fitting directions: about {describe_time(seconds)} for {bar.total} steps; shorter with fewer steps "
            "(--steps), without the network behind the layer (--no-head), or with fewer images (--most)",
            file=sys.stderr,
        )


def say_fit(bar: tqdm, estimate: Callable[[], float]) -> None:  # type: ignore[type-arg,unused-ignore]
    """Before the work of a bar that is shown: how long it takes, above a minute; ``estimate`` returns seconds."""
    if bar.disable:
        return
    seconds = estimate()
    if seconds > LONG:
        tqdm.write(
            f"fitting directions: about {describe_time(seconds)}; shorter with fewer images (--most) or fewer "
            "directions (--count)",
            file=sys.stderr,
        )


class EffectsBar:
    """A bar of effects, of a direction on an image; from the first ones it says how long all take, above a minute.

    total: effects, if known; shown: else nothing is said; ranks: that share them out.
    """

    def __init__(self, total: int | None, *, shown: bool, ranks: int = 1) -> None:
        self.bar = tqdm(total=total, desc="influence", unit="effect", disable=not shown)
        self.made, self.times, self.began, self.ranks = 0, 0, 0.0, ranks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def skip(self, count: int) -> None:
        """So many were kept."""
        self.bar.update(count)

    def update(self, count: int) -> None:
        """So many were computed."""
        self.bar.update(count)
        self.times += 1
        if self.times == 1:  # the first ones warm up
            self.began = time.monotonic()
            return
        self.made += count
        if self.times != 1 + AFTER or self.bar.disable or not self.bar.total:
            return
        left = self.bar.total - self.bar.n
        seconds = (time.monotonic() - self.began) / self.made * left / self.ranks
        if seconds > LONG:
            tqdm.write(
                f"influence: about {describe_time(seconds)} for {left:,} effects, each of a direction on an image; "
                "shorter with fewer images (--most), fewer directions (--count), or a later layer",
                file=sys.stderr,
            )

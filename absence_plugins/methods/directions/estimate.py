"""A long fit says so at its beginning."""

from __future__ import annotations

import sys

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

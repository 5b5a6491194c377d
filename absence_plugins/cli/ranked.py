"""A command under ``torchrun``: which commands the ranks share out, and which of them speaks. Loads no torch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

SHARED = ("patches", "label", "directions", "report")
SHARED_NAMES = {"experiment": ("digits", "imagenet"), "bench": ("models",)}  # and their option
NAMED_BY = {"experiment": "name", "bench": "host"}
TURN = 6.0, 0.5  # seconds in which rank 0 says it first, and more for each further rank
LOST = "RankLost"  # said only if no rank knows more


def is_first_rank() -> bool:
    """Whether this process speaks and writes pages.

    >>> is_first_rank()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def check_shared(command: str, options: Mapping[str, Any]) -> None:
    """Reject under ``torchrun`` what the ranks would all do, each the whole work, into the same folder.

    Raises:
        ValueError: the command is not shared out.
    """
    name = str(options.get(NAMED_BY.get(command, "")) or "")
    if _world() < 2 or command in SHARED or name in SHARED_NAMES.get(command, ()):
        return
    known = [*SHARED, *(f"{one} {name}" for one, names in SHARED_NAMES.items() for name in names)]
    raise ValueError(
        f"{' '.join(filter(None, [command, name]))} is not shared out by torchrun, which started {_world()} processes; "
        f"start one, or one for each part of the work. Shared out are: {', '.join(known)}"
    )


def is_speaking() -> bool:
    """Whether this process says what it has to say: rank 0, and each other rank of its own share of the work."""
    methods = sys.modules.get("absence_plugins.methods.ranks")
    return is_first_rank() or (methods is not None and bool(methods.speaks()))


def mark_rank() -> str:
    """In front of what another rank than the first says."""
    return "" if is_first_rank() else f"rank {os.environ['RANK']}: "


def wait_for_turn(error: BaseException) -> None:
    """Wait before an error is said: torchrun ends the other ranks when one ends, so one of them says it.

    An error that all ranks have, rank 0 says; one of a single rank, that rank; that another rank was lost is said only
    if torchrun has not ended this one, as on another host.
    """
    if _world() > 1:
        first, more = TURN
        rank = int(os.environ.get("RANK", "0"))
        time.sleep((first + min(rank, 10) * more if rank else 0) + (2 * first if type(error).__name__ == LOST else 0))


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE") or 1)

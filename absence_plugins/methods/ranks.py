"""The processes of one ``torchrun``: how many there are, and how they meet.

Every rank runs the same program. Where work is shared out, all of them must come to the same call: it ends when they
have told each other what they found. What one rank does by itself stands in :func:`alone`.

They meet on the CPU (gloo), wherever the models are; a group that the user's own script has started stays as it is.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Found = TypeVar("Found")
PATIENCE = timedelta(days=1)  # a rank may wait for another one's work; an ended process is noticed at once


class RankLost(RuntimeError):
    """Another rank has ended before the ranks have met."""


_sharing: ContextVar[bool] = ContextVar("sharing", default=False)
_alone: ContextVar[bool] = ContextVar("alone", default=False)
_meeting: list[weakref.ref[Any]] = []  # the script's group, and ours beside it; torch itself holds and ends them


def ranks() -> tuple[int, int]:
    """This process's rank and how many there are; under ``torchrun`` the group is started. (0, 1) inside
    :func:`alone`.

    >>> ranks()
    (0, 1)
    """
    if _alone.get() or not distributed.is_available():
        return 0, 1
    if not distributed.is_initialized():
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return 0, 1
        has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
        with _met():
            distributed.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=PATIENCE)
        atexit.register(_leave)
    return distributed.get_rank(), distributed.get_world_size()


def is_first() -> bool:
    """Whether this is the rank that speaks and writes pages; the only process is. Starts nothing.

    >>> is_first()
    True
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def own_share() -> Iterator[None]:
    """Inside the block a rank works on its own share of the data: what it has to say, no other rank says."""
    mark = _sharing.set(True)
    try:
        yield
    finally:
        _sharing.reset(mark)


def speaks() -> bool:
    """Whether this rank says what it has found: rank 0 always, the others of their own share of the work."""
    return is_first() or _sharing.get()


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block this process works by itself: nothing is shared out, and no rank is waited for.

    >>> with alone():
    ...     ranks()
    (0, 1)
    """
    mark = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(mark)


def wait() -> None:
    """Until every rank is here. Raises :class:`RankLost` if one has ended."""
    gather(None)


def gather(value: Found) -> list[Found]:
    """What each rank has, in their order; every rank gets it. Tensors must be on the CPU.

    Raises:
        RankLost: another rank has ended.

    >>> gather("mine")
    ['mine']
    """
    _, world = ranks()
    if world == 1:
        return [value]
    found: list[Any] = [None] * world
    with _met():
        distributed.all_gather_object(found, value, group=meeting())
    return found


def from_first(make: Callable[[], Found]) -> Found:
    """What rank 0 makes; the others wait for it, and get a copy, also of an error.

    Raises:
        RankLost: another rank has ended.
        Exception: what ``make`` raises, in every rank.

    >>> from_first(lambda: 3)
    3
    """
    rank, world = ranks()
    if world == 1:
        return make()
    sent: list[Any] = [None, None]
    if rank == 0:
        try:
            sent[0] = make()
        except Exception as error:
            sent[1] = error
    with _met():
        distributed.broadcast_object_list(sent, src=0, group=meeting())
    if sent[1] is not None:
        raise sent[1]
    found: Found = sent[0]
    return found


def broadcast(rows: Tensor, source: int) -> None:
    """Fill ``rows`` [n, ...], contiguous and on the CPU, with those of the rank ``source``, in every rank."""
    with _met():
        distributed.broadcast(rows.reshape(-1).view(torch.uint8), src=source, group=meeting())


def send_to_first(rows: Tensor, source: int) -> None:
    """Fill ``rows`` as :func:`broadcast` does, in rank 0 only."""
    rank, _ = ranks()
    part = rows.reshape(-1).view(torch.uint8)
    with _met():
        if rank == 0 and source:
            distributed.recv(part, src=source, group=meeting())
        elif rank and rank == source:
            distributed.send(part, dst=0, group=meeting())


def meeting() -> Any:
    """The group in which the ranks meet; all must ask for it together the first time."""
    theirs = distributed.group.WORLD
    if not _meeting or _meeting[0]() is not theirs:
        _meeting[:] = [weakref.ref(one) for one in (theirs, distributed.new_group(backend="gloo", timeout=PATIENCE))]
    return _meeting[1]()


@contextmanager
def _met() -> Iterator[None]:
    """What torch says of a lost connection, in our words."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            "another rank has ended before its work was done; its own message, or torchrun's, says why. What is kept "
            "can be resumed, with any number of ranks"
        ) from error


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()

"""Ctrl-C at every point of a piece of work at which Python looks for signals, one after the other."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import CO_GENERATOR
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from absence_plugins.core import interrupts, turns

# Where the interpreter looks: at the beginning of functions, and behind calls of C functions.
EVENTS = ("call", "c_return", "c_exception")


@contextmanager
def python_handles_ctrl_c(monkeypatch: Any) -> Iterator[None]:
    """Python's own handler, also where the parent of the process ignores Ctrl-C; no reminders but those of `Interrupted`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(interrupts, "start_new_thread", lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interrupted:
    """Calls the handler of SIGINT at one event of a block, and what waits again at every event behind it."""

    def __init__(self, at: int) -> None:
        self.at, self.events, self.places = at, 0, [] if at < 0 else None
        self.frees = False  # the interruption came while an object was freed

    def __enter__(self) -> Interrupted:
        sys.setprofile(self.see)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in EVENTS or frame.f_code.co_filename == __file__:
            return
        if event == "call" and frame.f_code.co_flags & CO_GENERATOR:
            return  # announced, too, where a generator is freed, at which Python does not look
        number, self.events = self.events, self.events + 1
        if self.places is not None:
            caller = frame.f_back
            self.places.append((frame.f_code, frame.f_lasti, event, caller and (caller.f_code, caller.f_lasti)))
            return
        handler: Any = signal.getsignal(signal.SIGINT)
        if number == self.at:
            self.frees = is_freeing(frame)
            handler(signal.SIGINT, frame)
        elif number > self.at and interrupts._WAITING.kept and handler is interrupts._WAITING.handler:
            interrupts._WAITING.again.append(interrupts._WAITING.kept.pop())  # a reminder
            handler(signal.SIGINT, frame)


def is_freeing(frame: FrameType | None) -> bool:
    """Whether an object is being freed, or a weak reference to one called back: Python drops what is raised there."""
    while frame is not None and not (frame.f_code.co_name == "__del__" or is_called_back(frame)):
        frame = frame.f_back
    return frame is not None


def is_called_back(frame: FrameType) -> bool:
    weak = ("weakref.py", "_weakrefset.py", "weak.py")
    return frame.f_code.co_name in ("remove", "_remove") and frame.f_code.co_filename.endswith(weak)


def state_of(*models: nn.Module) -> list[Any]:
    """All that a call may not leave changed."""
    host = torch.utils.checkpoint
    found: list[Any] = [
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), len(_get_current_function_mode_stack()),
        torch.get_num_threads(), torch.get_default_dtype(), list(warnings.filters), signal.getsignal(signal.SIGINT),
        host.CheckpointFunction, getattr(host, "_checkpoint_without_reentrant_generator", None),
        torch.get_rng_state(), random.getstate(), str(np.random.get_state()[1]),
        interrupts._WAITING.open, interrupts._WAITING.steps, interrupts._WAITING.kept + interrupts._WAITING.again,
        list(nn.modules.module._global_forward_hooks), list(nn.modules.module._global_forward_pre_hooks),
    ]  # fmt: skip
    for model in models:
        found += [(lock._owner, lock._count) for lock in turns._locks_of(model)]
        for module in model.modules():
            found.append(sorted(vars(module)))
            found += [
                (name, [id(one) for one in value.values()]) for name, value in vars(module).items() if "hook" in name
                and isinstance(value, dict)
            ]  # fmt: skip
            found.append((module.training, getattr(module, "track_running_stats", None)))
        for tensor in (*model.parameters(), *model.buffers()):
            found += [id(tensor), tensor.requires_grad, tensor.grad, tensor.detach().clone()]
    return found


def differences(before: list[Any], after: list[Any]) -> list[Any]:
    """What is not the same."""
    found = [] if len(before) == len(after) else [(len(before), len(after))]
    for one, other in zip(before, after, strict=False):
        same = torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other
        if not same:
            found.append((one, other))
    return found


def interrupt_everywhere(
    work: Callable[[], Any], models: list[nn.Module], *, most: int | None = None, seed: int = 0, same: Any = torch.equal
) -> int:
    """Interrupt the work at every place (of code, and what has called it), or at ``most`` of them; returns how many.

    After each the state is as before, while the exception is still held; the next call gives the same result.
    """
    work()  # caches are filled
    with Interrupted(-1) as counted:
        wanted = work()
    assert counted.places is not None
    first = {place: number for number, place in reversed(list(enumerate(counted.places)))}
    last = {place: number for number, place in enumerate(counted.places)}
    numbers = sorted({*first.values(), *last.values()})
    if most is not None and len(numbers) > most:
        numbers = sorted(random.Random(seed).sample(numbers, most))
    before = state_of(*models)
    for turn, number in enumerate(numbers):
        error: BaseException | None = None
        interrupted = Interrupted(number)
        try:
            with interrupted:
                work()
        except KeyboardInterrupt as one:
            error = one
        where = f"interrupted at {counted.places[number]}"
        assert not differences(before, state_of(*models)), (where, differences(before, state_of(*models)))
        # behind our blocks Python itself drops what is raised while an object is freed
        assert error is not None or number >= interrupted.events or interrupted.frees, f"{where}: lost"
        del error
        if turn % 25 == 0 or turn == len(numbers) - 1:
            assert same(work(), wanted), where
    return len(numbers)


def quiet(work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, without its warnings on the terminal."""

    def run() -> Any:
        with contextlib.redirect_stderr(None):
            return work()

    return run

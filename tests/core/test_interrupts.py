"""Steps that Ctrl-C does not cut in two."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core import hooks, interrupts
from absence_plugins.core.endings import located_softmaxes
from absence_plugins.core.interrupts import guarding, uncut, undivided
from absence_plugins.core.module_calls import running_modules
from absence_plugins.core.randomness import seeded
from absence_plugins.core.recorder import Recorder
from absence_plugins.core.replacing import replacing
from absence_plugins.core.running import as_written
from absence_plugins.core.training import keeping_statistics
from absence_plugins.core.units import Layer
from absence_plugins.data.threads import one_thread

sys.path.insert(0, str(Path(__file__).parent.parent))
from interrupting import interrupt_everywhere, python_handles_ctrl_c


@pytest.fixture(autouse=True)
def _handler(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Python's own, also where the parent of the process ignores Ctrl-C (jobs in the background of a shell)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        time.sleep(0.02)  # a reminder that came behind the end of its block would end the process of the tests
    except KeyboardInterrupt:
        pytest.fail("an interruption came when its block had ended")
    finally:
        signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_end_of_a_step_and_works_again_behind_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def step() -> None:
        with uncut():
            press()
            steps.append("one")
            press()
            steps.append("two")

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            step()
    assert steps == ["one", "two"] * 2
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_a_step_is_not_hidden_and_a_program_s_own_handler_stays() -> None:
    with pytest.raises(ValueError, match="mine"), uncut():
        raise ValueError("mine")
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with uncut():
        press()
        assert seen == [signal.SIGINT]


class Patch:
    """A context manager of a host: what it does has two halves."""

    def __init__(self, at: str) -> None:
        self.at, self.done = at, [0, 0]

    def __enter__(self) -> Patch:
        self.half("entering", 1)
        return self

    def __exit__(self, *error: object) -> None:
        self.half("leaving", 0)

    def half(self, at: str, value: int) -> None:
        self.done[0] = value
        if at == self.at:
            press()
        self.done[1] = value


@pytest.mark.parametrize("at", ["entering", "leaving"])
@pytest.mark.parametrize("depth", [1, 3])
def test_what_a_host_enters_is_left(at: str, depth: int) -> None:
    patch = Patch(at)

    def work(depth: int) -> None:
        with guarding():
            if depth > 1:
                work(depth - 1)
                time.sleep(10)  # the exception comes up here at the latest
            with patch:
                time.sleep(10 if at == "entering" else 0)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work(depth)
    assert patch.done == [0, 0]
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_step_that_hangs_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "LONGEST", 0.05)
    began = time.monotonic()

    def hang() -> None:
        press()
        while time.monotonic() < began + 20:
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt), uncut():
        hang()
    assert time.monotonic() < began + 10


def test_a_process_that_was_stopped_for_seconds_breaks_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock has gone on meanwhile, and the step has not taken long."""
    monkeypatch.setattr(interrupts, "start_new_thread", lambda *_: None)
    now = [0.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])

    def stop() -> None:
        now[0] += 100
        interrupts._WAITING.again.append(interrupts._WAITING.kept.pop())  # the reminder, behind the pause
        press()

    class Stopped:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            press()
            stop()
            done.append("left")

    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), guarding(), Stopped():
        pass
    assert done == ["left"]


def held() -> Iterator[None]:
    with guarding(), Patch("leaving"):
        yield


def test_ctrl_c_in_a_generator_that_is_closed_is_not_lost() -> None:
    generator = held()
    next(generator)
    with pytest.raises(KeyboardInterrupt):
        generator.close()  # type: ignore[attr-defined]


def leave(number: int, frame: Any) -> None:
    raise SystemExit(number)


@pytest.mark.parametrize("first", [SystemExit(), GeneratorExit(), "SIGTERM", "SIGINT", "Ctrl-C by hand"])
@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_what_waits_is_dropped_only_beside_an_interruption_that_says_as_much(first: Any, second: str) -> None:
    """A program may go on after a Ctrl-C, or a `sys.exit` of its own; not after SIGTERM."""
    before = signal.signal(signal.SIGTERM, leave)
    raised = {"SIGTERM": SystemExit, "SIGINT": KeyboardInterrupt, "Ctrl-C by hand": KeyboardInterrupt}
    seen: list[BaseException] = []

    def work() -> None:
        with guarding():
            try:
                if first in ("SIGTERM", "SIGINT"):
                    signal.raise_signal(getattr(signal, first))
                raise KeyboardInterrupt if first == "Ctrl-C by hand" else first
            except BaseException as error:
                seen.append(error)
                interrupts._WAITING.kept.append((raised[second](15), time.monotonic(), 0))  # in the step that is left
                raise

    try:
        with pytest.raises(BaseException) as found:
            work()
    finally:
        signal.signal(signal.SIGTERM, before)
    is_dropped = first in raised and not (raised[first] is KeyboardInterrupt and second == "SIGTERM")
    assert (found.value is seen[0]) == is_dropped
    assert is_dropped or type(found.value) is raised[second]
    assert not interrupts._WAITING.kept
    assert not interrupts._WAITING.raised


def test_what_the_programs_own_handler_raises_waits_too() -> None:
    """As a service that ends by SIGTERM."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(number)

    done = []
    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit), uncut():
            done.append(signal.raise_signal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == [None]


def test_ignored_signals_stay_ignored_and_other_threads_set_no_handler() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uncut():
        press()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []

    def work() -> None:
        with guarding(), uncut():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_handler_that_the_program_sets_in_the_block_stays() -> None:
    def own(number: int, frame: Any) -> None:
        raise ValueError("own")

    with guarding():
        ours = signal.signal(signal.SIGINT, own)
    assert signal.getsignal(signal.SIGINT) is own
    signal.signal(signal.SIGINT, ours)  # a program puts back what it had found
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_caller_that_is_being_entered_holds_it_up_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that a user does inside of a context manager's own beginning."""
    monkeypatch.setattr(interrupts, "LONGEST", 0.05)

    class Working:
        def __enter__(self) -> None:
            with guarding():
                press()
                time.sleep(10)

        def __exit__(self, *error: object) -> None:
            pass

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Working():
        pass
    assert time.monotonic() - began < 5


def test_a_function_that_is_undivided_is_ended() -> None:
    done = []

    @undivided
    def step() -> None:
        done.append(1)
        press()
        done.append(2)

    def work() -> None:
        step()
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), guarding():
        work()
    assert done == [1, 2]


# -- every context manager of core, at every point -------------------------------------------------------------------------


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    net[3].weight.requires_grad_(False)
    net[0].weight.grad = torch.ones(4, 3)
    return net


def with_undo(net: nn.Module) -> Any:
    @contextmanager
    def block() -> Iterator[None]:
        with hooks.reversible(net) as undo:
            net[0].weight.data = net[0].weight.data * 2  # type: ignore[index, operator]
        try:
            yield
        finally:
            undo()

    return block()


BLOCKS: dict[str, Callable[[nn.Module], Any]] = {
    "hooking": lambda net: hooks.hooking(net, [lambda: net[0].register_forward_hook(lambda *_: None)] * 3),  # type: ignore[index]
    "rewritten": lambda net: hooks.rewritten(net[0], lambda value: value + 1),  # type: ignore[index]
    "rewritten input": lambda net: hooks.rewritten(net[3], lambda value: value + 1, side="input"),  # type: ignore[index]
    "counting": lambda net: hooks.counting(net, lambda samples: None),
    "evaluating": hooks.evaluating,
    "unchanged": hooks.unchanged,
    "quiet_forward": lambda net: hooks.quiet_forward([]),
    "as_written": lambda net: as_written(),
    "seeded": lambda net: seeded(3),
    "one_thread": lambda net: one_thread(),
    "keeping_statistics": keeping_statistics,
    "replacing": lambda net: replacing(net, "2", lambda maps: maps + 1),
    "reading": lambda net: Layer("2").reading(net),
    "Recorder": Recorder,
    "running_modules": running_modules,
    "located_softmaxes": lambda net: located_softmaxes(),
}


ALONE = [name for name in BLOCKS if name not in ("quiet_forward", "as_written", "keeping_statistics")][:-2]


def run_block(net: nn.Module, name: str, *, is_guarded: bool) -> Tensor:
    with ExitStack() as stack:
        if is_guarded:
            stack.enter_context(guarding())
        with BLOCKS[name](net):
            return torch.ones(2)


@pytest.mark.parametrize("most", [12, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "is_guarded"), [*((name, True) for name in BLOCKS), *((name, False) for name in ALONE)]
)
def test_ctrl_c_at_every_point_of_a_block(
    name: str, is_guarded: bool, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``is_guarded``: as inside of a call of the package; else the block stands alone in a user's code."""
    net = make_net()
    with python_handles_ctrl_c(monkeypatch):
        interrupt_everywhere(lambda: run_block(net, name, is_guarded=is_guarded), [net], most=most)


def test_a_registration_that_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_net()

    def work() -> Tensor:
        with guarding(), with_undo(net):
            return torch.ones(1)

    with python_handles_ctrl_c(monkeypatch):
        interrupt_everywhere(work, [net], most=40)

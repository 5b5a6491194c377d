"""One thread at a time works on a model."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from torch import nn

from absence_plugins.core import AbsenceWarning, turns
from absence_plugins.core.turns import ANY, Shared, lending, working_on


def enters(model: Any, guest_of: Any = None) -> bool:
    """Whether another thread gets in now."""
    entered = threading.Event()

    def enter() -> None:
        with working_on(model, guest_of=guest_of), working_on(model):
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered.wait(0.1)


def parts() -> tuple[nn.Module, nn.Module, nn.Module]:
    shared = nn.Linear(1, 1)
    return nn.Sequential(shared), nn.Sequential(nn.ReLU(), shared), nn.Sequential(nn.ReLU())


OVERLAPS: dict[str, Callable[[nn.Module, nn.Module], tuple[Any, Any]]] = {
    "itself": lambda a, b: (a, a),
    "its forward": lambda a, b: (a, a.forward),
    "a wrapper around it": lambda a, b: (a, nn.Sequential(a)),
    "a wrapper of both": lambda a, b: (nn.Sequential(a), nn.ModuleList([nn.Sequential(a), b])),
    "a part of it": lambda a, b: (a, a[0]),  # type: ignore[index]
    "another model with one module of it": lambda a, b: (a, b),
}


@pytest.mark.parametrize("known_first", [False, True])
@pytest.mark.parametrize("which", list(OVERLAPS))
def test_models_that_share_a_module_share_the_turn(which: str, known_first: bool) -> None:
    one, other, _ = parts()
    held, wanted = OVERLAPS[which](one, other)
    if known_first:
        turns._locks_of(wanted)
    with working_on(held):
        assert not enters(wanted)
    assert enters(wanted)
    with working_on(wanted):
        assert not enters(held)


def test_models_that_were_known_apart_and_joined_later() -> None:
    one, _, other = parts()
    with working_on(one), working_on(other):
        pass
    both = nn.Sequential(one, other)
    with working_on(both):
        assert not enters(one)
        assert not enters(other)
    with working_on(other):
        assert enters(one)
        assert not enters(both)


def test_other_models_and_functions_do_not_wait() -> None:
    one, _, other = parts()
    with working_on(one):
        assert enters(other)
        assert enters(lambda x: x)
    shared = Shared()
    with working_on(shared):
        assert not enters(shared)


def test_a_thread_enters_again_and_an_error_frees_the_turn() -> None:
    one, other, _ = parts()
    with pytest.raises(KeyError), working_on(one), working_on(other, one):
        raise KeyError
    assert enters(one)


def test_a_thread_that_waits_long_says_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.02)
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model, held, free = nn.ReLU(), threading.Event(), threading.Event()

    def hold() -> None:
        with working_on(model):
            held.set()
            free.wait(10)

    thread = threading.Thread(target=hold, name="the other")
    thread.start()
    held.wait(10)
    threading.Timer(0.1, free.set).start()
    with pytest.warns(AbsenceWarning, match="on which thread 'the other' has been working"), working_on(model):
        pass
    thread.join()


@contextmanager
def working(model: nn.Module) -> Iterator[None]:
    with working_on(model):
        yield


def test_a_thread_that_ended_inside_its_block_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model, kept = nn.ReLU(), []

    def leave_open() -> None:
        kept.append(working(model))
        kept[0].__enter__()

    thread = threading.Thread(target=leave_open)
    thread.start()
    thread.join()
    assert enters(model)
    with working_on(model):
        pass


def test_a_thread_that_python_has_not_started_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of mod_wsgi and uWSGI."""
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model, held, free, left = nn.ReLU(), threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with working_on(model):
            held.set()
            free.wait(10)
        left.set()

    _thread.start_new_thread(hold, ())
    assert held.wait(10)
    assert not enters(model)
    free.set()
    with working_on(model):
        assert left.wait(10)


def test_a_block_that_was_taken_over_gives_back_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model, kept = nn.ReLU(), []

    def leave_open() -> None:
        kept.append(working(model))
        kept[0].__enter__()

    thread = threading.Thread(target=leave_open)
    thread.start()
    thread.join()
    with working_on(model):
        kept.pop().__exit__(None, None, None)
        gc.collect()
        assert not enters(model)
    assert enters(model)


@pytest.mark.parametrize("late", [nn.ReLU, Shared])
def test_the_order_of_the_models_does_not_matter(late: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both threads have their first before they ask for the second."""
    one, other, both = nn.ReLU(), late(), threading.Barrier(2)
    acquire = turns._ModelLock.acquire

    def slow(lock: Any, *args: Any, **kwargs: Any) -> Any:
        turn = acquire(lock, *args, **kwargs)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.05)
        return turn

    monkeypatch.setattr(turns._ModelLock, "acquire", slow)
    left = []

    def work(*models: Any) -> None:
        with working_on(*models):
            left.append(1)

    threads = [threading.Thread(target=work, args=models, daemon=True) for models in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert left == [1, 1]


def test_what_is_no_model_is_taken_last() -> None:
    """A block around may hold the model already."""
    shared, model = Shared(), nn.ReLU()
    with working_on(shared, model) as work:
        assert [lock for lock, _ in work._held] == [*turns._locks_of(model), *shared.locks]


def test_a_generator_that_another_thread_frees_gives_the_turn_back() -> None:
    model = nn.ReLU()
    kept = [working(model)]
    before = signal.getsignal(signal.SIGINT)
    kept[0].__enter__()

    def free() -> None:
        kept.clear()
        gc.collect()

    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    assert enters(model)
    with working_on(model):
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model, held, free = nn.ReLU(), threading.Event(), threading.Event()

    def hold() -> None:
        with working_on(model):
            held.set()
            free.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), working_on(model):
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        free.set()
        thread.join()
    assert enters(model)


def test_what_was_broken_off_while_it_gave_a_model_back_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model = nn.ReLU()
    (lock,) = turns._locks_of(model)
    assert lock._lock.acquire(blocking=False)  # locked, and nobody's
    for _ in range(2):
        with working_on(model), working_on(model):
            assert not enters(model)
    assert enters(model)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    """As workers of a DataLoader: a thread of the parent holds the model, or the thread that forks."""
    model, other, held, free = nn.ReLU(), nn.ReLU(), threading.Event(), threading.Event()

    def hold() -> None:
        with working_on(model):
            held.set()
            free.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with working_on(other):
        child = os.fork()
        if child == 0:
            with working_on(other), working_on(model):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    free.set()
    thread.join()


# -- blocks that keep a model changed -------------------------------------------------------------------------------------


def test_in_a_block_guests_and_the_thread_itself_take_turns() -> None:
    model, change, other = nn.ReLU(), object(), object()
    with lending(change, model), lending(other, model):
        assert enters(model, change)
        assert enters(model, other)
        assert enters(model, ANY)
        assert not enters(model)
        assert not enters(model, object())
        with working_on(model):  # a call of the thread itself
            assert not enters(model, change)
            with working_on(model):
                pass
            assert not enters(model, change)
        assert enters(model, change)
    assert enters(model)
    with working_on(model):
        assert not enters(model, change)


def test_a_guest_that_comes_in_as_the_block_ends_takes_the_turn_itself() -> None:
    model, change, came = nn.ReLU(), object(), threading.Event()
    found: list[bool] = []

    def come() -> None:
        came.set()
        with working_on(model, guest_of=change):
            found.append(enters(model))

    block = lending(change, model)
    with working_on(nn.ReLU()):
        block.__enter__()
        with working_on(model, guest_of=change):  # as what takes a composite off
            thread = threading.Thread(target=come)
            thread.start()
            came.wait(10)
            time.sleep(0.02)
            block.__exit__(None, None, None)
        thread.join(10)
    assert found == [False]
    assert enters(model)


def test_a_caller_who_waits_for_others_in_its_block_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    monkeypatch.setattr(turns, "LOOK", 0.01)
    model, change, free = nn.ReLU(), nn.ReLU(), threading.Event()

    def work(guest_of: Any) -> str:
        with working_on(model, guest_of=guest_of):
            return "done"

    def hold() -> None:
        with working_on(model, guest_of=change):
            free.wait(10)

    with lending(change, model), ThreadPoolExecutor(3) as pool:
        assert pool.submit(work, change).result(10) == "done"
        with pytest.raises(
            RuntimeError, match="changed by a `with` block of ReLU in thread 'MainThread', in which noth"
        ):
            pool.submit(work, None).result(10)
        holding = pool.submit(hold)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AbsenceWarning)
            waiting = pool.submit(work, None)
            assert not wait([waiting], 0.2).done  # while something works in the block
            free.set()
            holding.result(10)
            assert isinstance(waiting.exception(10), RuntimeError)
    assert work(None) == "done"


def test_a_failed_beginning_of_a_block_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = nn.ReLU(), nn.ReLU()
    with working_on(one):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(turns._locks_of(other)[0], "acquire", fail)
    with pytest.raises(KeyboardInterrupt), lending("change", one, other):
        pass
    assert enters(one)

"""Steps that Ctrl-C does not cut in two."""

from __future__ import annotations

import signal

import pytest

from absence_plugins.core.interrupts import uncut


def test_ctrl_c_waits_for_the_end_of_a_step_and_works_again_behind_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def step() -> None:
        with uncut():
            signal.raise_signal(signal.SIGINT)
            steps.append("one")
            signal.raise_signal(signal.SIGINT)
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
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with uncut():
            signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)

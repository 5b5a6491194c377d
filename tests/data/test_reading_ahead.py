"""Reading ahead: in order, no more than a few at a time, and nothing behind an error or an end."""

from __future__ import annotations

import threading
import time

import pytest

from absence_plugins.data.reading_ahead import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_in_order_and_never_more_than_a_few(threads: int) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def read(number: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.001 * (number % 3))  # later ones may be done first
        return number

    found = []
    for number in read_ahead(read, range(40), threads):
        found.append(number)
        with lock:
            held -= 1
    assert found == list(range(40))
    assert most <= 2 * threads
    assert not [one for one in threading.enumerate() if one.name.startswith("reading")]


def test_an_error_comes_in_its_turn() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    numbers = read_ahead(read, range(1000), 2)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(numbers)
    assert not list(numbers)


def test_what_nobody_takes_is_not_read() -> None:
    seen: list[int] = []

    def read(number: int) -> int:
        seen.append(number)
        return number

    numbers = read_ahead(read, range(1000), 2)
    assert next(numbers) == 0
    numbers.close()  # type: ignore[attr-defined]
    assert len(seen) <= 5
    assert list(read_ahead(read, [], 2)) == []

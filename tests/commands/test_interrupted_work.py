"""Long work is interrupted a hundred times at random moments: the model is as before, and the rest gives the same bits."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import kill_worker
import pytest
import torch
from torch import Tensor
from torchvision.utils import save_image

from absence_plugins.report.unit import many

sys.path.insert(0, str(Path(__file__).parent.parent))
from interrupting import differences, state_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# A hundred in all; of work that takes seconds fewer.
TIMES = {"scan": 28, "insertion": 15, "label": 25, "directions": 10, "report": 10, "debias": 7, "planted": 5}


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Python's own handler, also where the parent of the process ignores Ctrl-C; an alarm presses it."""
    few = many.write_reports.__kwdefaults__["few"]
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGALRM: signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT)),
    }
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        many.write_reports.__kwdefaults__["few"] = few


def are_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", list(TIMES))
def test_interrupted_at_random_moments(name: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(kill_worker.IMAGES[:12]):
        save_image(image, tmp_path / "photos" / f"{number:02}.png")
    work, draw, came = kill_worker.WORKS[name], random.Random(len(name)), 0
    work(tmp_path / "first")
    began = time.monotonic()
    expected = work(tmp_path / "whole")
    length, before = time.monotonic() - began, state_of(kill_worker.NET)
    for number in range(TIMES[name]):
        folder = tmp_path / str(number)
        try:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.02, 0.9) * length)
            work(folder)
        except KeyboardInterrupt:
            came += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert not differences(before, state_of(kill_worker.NET))
        assert are_same(work(folder), expected)
        assert not [path for path in folder.rglob("*.part")]
    assert came >= TIMES[name] // 3  # on a machine that is less busy than at first, some runs end before

"""Two processes share two cores: one thread of torch in each."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from absence_plugins.core import interrupts

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# The same examples in every run: a test that passes sometimes is none.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

# A shell's background job ignores Ctrl-C, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files whose tests train the same planted networks, which a process keeps.
TRAINS_PLANTED = {
    "test_planted.py",
    "test_zennit_planted.py",
    "test_captum_planted.py",
    "test_planted_benchmark.py",
    "test_carriers.py",
    "test_missing_planted.py",
    "test_bench_planted.py",
    "test_bench_zennit.py",
}
# Files of few tests that take minutes: the slow run begins with these, or one process would be left alone with them.
LONG = {
    "test_kills.py",
    "test_interrupted_work.py",
    "test_patches_command.py",
    "test_patches_ranks.py",
    "test_report_command.py",
    "test_explain_photographs.py",
    "test_debias_command.py",
    "test_debias_folder.py",
    "test_directions_fit.py",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile``: a file's tests stay together, and so do those of all files that train planted networks."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "planted" if Path(file).name in TRAINS_PLANTED else file

        def _assign_work_unit(self, node: Any) -> None:
            for scope in sorted(self.workqueue, key=lambda scope: scope == "planted"):
                if scope == "planted" or Path(scope).name in LONG:
                    self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked ``needs("timm")`` is skipped where the package is missing: the README installs no dev extra."""
    for item in items:
        for mark in item.iter_markers("needs"):
            for name in mark.args:
                if importlib.util.find_spec(name) is None:
                    item.add_marker(pytest.mark.skip(f"{name} is not installed"))


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Every test leaves the blocks that it entered: one that stays open would hold a model, and Ctrl-C, for all others."""
    yield
    waiting = interrupts._WAITING
    if waiting.open or waiting.steps:
        gc.collect()  # a generator in a circle
        left, waiting.open, waiting.steps = (waiting.open, waiting.steps), 0, 0
        assert left == (0, 0), "a block was not left"

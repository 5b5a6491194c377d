"""Freed memory of a process is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from absence_plugins.core.freed_memory import keep_freed_memory
assert keep_freed_memory()
def work():
    blocks = [torch.ones(5_000_000) for _ in range(6)]
work(); work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's option")
def test_of_120_000_pages_most_are_not_asked_for_again() -> None:
    """Mostly it is none; 10,000 were seen. Given back, it can be all of them, or, in huge pages, a third."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000

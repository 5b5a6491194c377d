"""Freed memory of a process stays with it."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from absence_plugins.core.freed_memory import keep_freed_memory

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Info
assert not {keeps} or keep_freed_memory()
before = libc.mallinfo2().fordblks
blocks = [libc.malloc(20_000_000) for _ in range(6)]
for block in blocks:
    libc.free(block)
print(libc.mallinfo2().fordblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's option")
def test_of_120_mb_that_were_freed_all_are_kept() -> None:
    """By the bytes that glibc holds free: how a heap lies, and thus how many pages are asked for again, is luck."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("glibc says what it holds since 2.33")
    kept, by_default = (
        int(subprocess.run([sys.executable, "-c", PROGRAM.format(keeps=keeps)], capture_output=True, text=True, check=True).stdout)
        for keeps in (True, False)
    )  # fmt: skip
    assert kept > 110_000_000
    assert by_default < 50_000_000

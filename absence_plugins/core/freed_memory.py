"""Memory that was freed is used again, not given back to the system after every operation."""

from __future__ import annotations

import ctypes
import platform

TRIM, MAPPED = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT = 512 * 2**20  # bytes that may be free
LARGEST = 32 * 2**20  # bytes of a block that is taken from what is free; glibc allows no more


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory of this process, up to 512 MB, and say whether it does.

    By default it gives blocks of a few MB back to the system as soon as they are freed. Every operation of a network
    on the CPU then asks for its output's pages again, which are cleared and mapped one by one: up to a quarter of the
    CPU time of a forward. For a process of one's own, as the command line is; nothing is done with another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    return bool(set_option(MAPPED, LARGEST)) and bool(set_option(TRIM, KEPT))

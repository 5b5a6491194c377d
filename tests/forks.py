"""What a test does in a process of its own, without loading torch a second time: forks."""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Callable


class Fork:
    """A forked process that runs ``work(say)``; ``said`` are the lines that it has sent, read until it ends or waits.

    A process that says "ready" is waited for, and then goes on sleeping or working until it is killed.
    """

    def __init__(self, work: Callable[[Callable[[str], None]], object]) -> None:
        self.out, own = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                work(lambda line: os.write(own, f"{line}\n".encode()) and None)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(own)

    def line(self, seconds: float = 20.0) -> str:
        """The next line that it says; "" if it has ended."""
        found = b""
        while not found.endswith(b"\n"):
            if not select.select([self.out], [], [], seconds)[0]:
                raise TimeoutError(f"process {self.pid} says nothing")
            if not (part := os.read(self.out, 1)):
                break
            found += part
        return found.decode().strip()

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Its exit code; -9 if it was killed."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.out)
        return code

"""Where in a user's own code an error was raised."""

from __future__ import annotations

import site
import sysconfig
import traceback
from functools import cache
from pathlib import Path

OURS = Path(__file__).resolve().parents[1]  # the package


def describe_error(error: BaseException) -> str:
    """An error of the user's code in one text: its type, its message, and its place.

    >>> describe_error(KeyError("gone"))
    "KeyError: 'gone'"
    """
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}{f': {said}' if said else ''}{describe_place(error)}"


def describe_place(error: BaseException) -> str:
    r"""File and line of the user's code in which an error was raised, as " (nets.py, line 12, in forward)".

    It is the innermost call that lies neither in an installed package nor in Python itself. "" if there is none, or if
    this package raised the error.

    >>> try:
    ...     exec(compile("def build(): return 1 / 0\nbuild()", "nets.py", "exec"), {})
    ... except ZeroDivisionError as error:
    ...     describe_place(error)
    ' (nets.py, line 1, in build)'
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_short(error.filename)}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_in(frame.filename, (OURS,)):
            if (frame.line or "").startswith("raise"):
                return ""
            continue  # a mode or a hook of ours, in which an operation of the user's code fails
        if frame.filename.startswith("<") or _is_in(frame.filename, _installed()):
            continue
        where = "" if frame.name == "<module>" else f", in {frame.name}"
        return f" ({_short(frame.filename)}, line {frame.lineno}{where})"
    return ""


@cache
def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(path).resolve() for path in (*found, site.getusersitepackages()))


def _is_in(file: str, folders: tuple[Path, ...]) -> bool:
    path = Path(file).resolve()
    return any(folder in path.parents for folder in folders)


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)

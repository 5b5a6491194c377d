"""How a command ends before it is done: what is said of bad input, Ctrl-C, a full disk and exhausted memory.

The one place that decides it, for all commands: an exit code, and lines that say what is kept and how to resume.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from absence_plugins.core.places import describe_error, describe_place
from absence_plugins.core.shell import join_command

STOPPED = 130  # as shells say of what Ctrl-C ended
FAILED = 2
BAD = (ValueError, TypeError, ImportError, OSError, RuntimeError, AssertionError)
EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory", "is killed by signal: Killed")
SHARED = ("insufficient shared memory", "unable to write to file </torch", "unable to allocate shared memory")
FULL = (errno.ENOSPC, errno.EDQUOT)
# By the option's name what to do about memory, the most useful first.
REMEDIES = {
    "batch_size": "a smaller --batch-size",
    "units": "fewer --units at a time, such as --units 0-63",
    "most": "fewer images, by --most",
    "size": "a smaller --size of the images",
    "k": "a smaller --k",
    "count": "a smaller --count",
    "workers": "fewer --workers",
}


@dataclass(frozen=True)
class Running:
    """The command that is running.

    Attributes:
        words: as typed, behind ``absence-plugins``.
        options: that it takes, by name (``batch_size``), with their values.
        keeps: files of its state, as patterns below a folder: from these the same command resumes.
        state: that folder; None if the command keeps none, or was not given one.
    """

    words: tuple[str, ...]
    options: Mapping[str, Any]
    keeps: tuple[str, ...] = ("**/*",)
    state: Path | None = None

    @property
    def line(self) -> str:
        """To type again.

        >>> Running(("patches", "my photos"), {}).line
        "absence-plugins patches 'my photos'"
        """
        return join_command(["absence-plugins", *self.words])

    def line_with(self, *more: str) -> str:
        """To type again with further options, in front of a ``--`` behind which no option is read.

        >>> Running(("patches", "--", "-photos"), {}).line_with("--checkpoint", "state")
        'absence-plugins patches --checkpoint state -- -photos'
        """
        end = self.words.index("--") if "--" in self.words else len(self.words)
        return join_command(["absence-plugins", *self.words[:end], *more, *self.words[end:]])

    @property
    def is_kept(self) -> bool:
        """Whether there is a state to resume from."""
        return self.state is not None and any(
            path.is_file() for pattern in self.keeps for path in self.state.glob(pattern)
        )

    def going_on(self, notes: Sequence[str] = ()) -> list[str]:
        """What is kept, and what to type; ``notes``: what the command itself says of what is done."""
        if notes:
            return [*notes, "To begin again:", f"  {self.line}"]
        if self.is_kept:
            return [f"What was done is kept in {self.state}. The same command resumes from there:", f"  {self.line}"]
        if "checkpoint" in self.options and self.state is None:
            folder = Path(str(self.options.get("out") or "absence"))
            state = str(folder.with_name(f"{folder.name}-state"))
            return [
                "Nothing of the work is kept. With --checkpoint FOLDER a stopped command resumes when it is called "
                "again:",
                f"  {self.line_with('--checkpoint', state)}",
            ]
        return ["Nothing of the work is kept. To begin again:", f"  {self.line}"]


class Command(TyperCommand):
    """A command that is known while it runs, so that its end can say how to resume."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words before they are parsed."""
        ctx.meta["words"] = (str(ctx.info_name), *args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and remember its words and options for the message at its end."""
        mark = _running.set(_known(ctx.meta.get("words", ()), dict(ctx.params)))
        try:
            return super().invoke(ctx)
        finally:
            _running.reset(mark)


NOTHING = Running((), {})  # is running
_running: ContextVar[Running] = ContextVar("running", default=NOTHING)


def running() -> Running:
    """The command that is running; one without words where none is."""
    return _running.get()


def _known(words: tuple[str, ...], options: dict[str, Any]) -> Running:
    if words[:1] == ("report",):
        return Running(words, options, ("state/**/*", "unit-*.json"), options.get("out"))
    if words[:1] != ("experiment",):
        return Running(words, options, state=options.get("checkpoint"))
    from absence_plugins.experiments.registry import KEPT_IN_OUT, taken  # loads no torch

    name = options["name"]
    out = options["out"] or Path(f"absence-{name}")
    options = {**{option: options.get(option) for option in taken(name)}, "out": out}
    if name in KEPT_IN_OUT:
        return Running(words, options, KEPT_IN_OUT[name], out)
    return Running(words, options, state=options.get("checkpoint"))


def ending(error: BaseException, command: Running) -> tuple[int, list[str]] | None:
    """Exit code and lines for what ended a command; None for an error of the program, which shows its traceback.

    An error in the user's own code, such as the forward of a model, is said with its type, file and line; a
    ``sys.exit`` in it is one, too.
    """
    notes = getattr(error, "__notes__", [])
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, ["stopped.", *command.going_on(notes)]
    if _is_full(error):
        path = getattr(error, "filename", None)
        where = f" in {Path(path).absolute().parent}, while writing {Path(path).name}" if path else ""
        return FAILED, [
            f"error: no space left{where}. Files that were there before are whole; make space and run the command "
            "again.",
            *command.going_on(notes),
        ]
    if _mentions(error, SHARED):
        return FAILED, [
            "error: the shared memory (/dev/shm) through which images come from --workers is full; use fewer, or "
            "--workers 0.",
            *command.going_on(),
        ]
    if isinstance(error, MemoryError) or _mentions(error, EXHAUSTED):
        return FAILED, [f"error: memory is exhausted. {_remedy(command)}", *command.going_on(notes)]
    if isinstance(error, SystemExit) or describe_place(error):
        return FAILED, [f"error: {describe_error(error)}", *notes]
    return (FAILED, [f"error: {error}", *notes]) if isinstance(error, BAD) else None


def _is_full(error: BaseException | None) -> bool:
    """A full disk or quota, also where another error came of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def _mentions(error: BaseException, phrases: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def _remedy(command: Running) -> str:
    options = command.options
    found = [
        text if name != "batch_size" or not options.get(name) else f"{text} (now {options[name]})"
        for name, text in REMEDIES.items()
        if name in options and not (name == "workers" and not options[name])
    ]
    if not found:
        return "Close other programs."
    if command.is_kept and "batch_size" in options:
        found[0] += ", with a new --checkpoint as other batches are other work" if "checkpoint" in options else ""
    return f"Try {'; or '.join(found)}."

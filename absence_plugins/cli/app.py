"""The command line ``absence-plugins``: arguments in, a page or a table out.

Commands import what they need when they run, so that ``--help`` is quick and a missing extra is one clear line.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from absence_plugins import __version__
from absence_plugins.cli.endings import STOPPED, ending, running
from absence_plugins.cli.ranked import is_first_rank, is_speaking, mark_rank, wait_for_turn
from absence_plugins.core.checks import check_distinct
from absence_plugins.core.collecting import end_without_search, importing
from absence_plugins.core.freed_memory import keep_freed_memory
from absence_plugins.core.interrupts import guarding
from absence_plugins.core.names import read_number
from absence_plugins.core.printable import make_printable

if TYPE_CHECKING:
    from absence_plugins.commands.models import LoadedModel


class Group(TyperGroup):
    """All commands; what a terminal cannot show is written to it as an escape, so that no work is lost at its end."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        end_without_search()
        return super().main(*args, **kwargs)


MOST_UNITS = 10_000_000  # of a layer
app = typer.Typer(
    cls=Group,
    name="absence-plugins",
    help="See what a vision network computes from what is missing in an image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_results: ContextVar[Any] = ContextVar("results", default=None)  # the stream of a command's result; None: stdout


@contextmanager
def clear_errors() -> Iterator[None]:
    """What ends a command early becomes a line or a few on stderr and an exit code, not a traceback; warnings are
    lines, too.

    What is said and which code it is, :mod:`~absence_plugins.cli.endings` decides.
    """
    mark = _results.set(sys.stdout)
    try:
        with guarding(), warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.showwarning = _shown
            # Pillow's own on damaged EXIF data and the like name no file; what matters of one, data.pictures says
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except (typer.Exit, typer.Abort):
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        found = ending(error, running())
        if found is None:
            raise
        code, lines = found
        if code != STOPPED or is_first_rank():  # Ctrl-C reaches all ranks; one says it
            wait_for_turn(error)
            typer.secho(make_printable(mark_rank() + "\n".join(lines)), fg=typer.colors.RED, err=True)
        raise typer.Exit(code) from None
    finally:
        _results.reset(mark)


def say(result: object) -> None:
    """Print what a command has made; of several ranks the first does. What the user's own code prints goes to stderr,
    so that this can be read on.
    """
    if is_first_rank():
        typer.echo(result, file=_results.get())


def _shown(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    if is_speaking():
        typer.secho(make_printable(f"{mark_rank()}warning: {message}"), fg=typer.colors.YELLOW, err=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"absence-plugins {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what a vision network computes from what is missing in an image."""


def command_line() -> str:
    """This call, for the foot of a page: what is pasted into a shell makes the page again."""
    return running().line


def load(
    model: str, weights: str, size: int | None, channels: int | None, mean: str | None, std: str | None
) -> LoadedModel:
    """The model that the options --model, --weights, --size, --channels, --mean and --std name; under ``torchrun`` on
    the process's own GPU, where there are any.

    Which weights these are, and how its images are made, is said on stderr, also with --quiet.
    """
    with importing():
        from absence_plugins.commands.models import load_model, to_own_gpu

    keep_freed_memory()
    means, stds = numbers("--mean", mean), numbers("--std", std)
    loaded = to_own_gpu(load_model(model, weights, size=size, channels=channels, mean=means, std=stds))
    if is_first_rank():
        for note in loaded.notes:
            typer.echo(make_printable(note), err=True)
    return loaded


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Comma-separated numbers. Raises ValueError with the option's name for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text!r} must be comma-separated numbers") from None


def unit_numbers(text: str | None) -> list[int] | None:
    """Unit numbers such as 0,5,8-15; None for all. Raises ValueError for anything else."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        ends = [
            number for one in part.strip().split("-", 1) if (number := read_number(one)) is not None and number >= 0
        ]
        if len(ends) != 1 + part.count("-"):
            raise ValueError(f"--units {text!r} must be unit numbers such as 0,5,8-15")
        if ends[-1] < ends[0]:
            raise ValueError(f"--units {text!r}: {part.strip()} counts down; write {ends[1]}-{ends[0]}")
        if ends[-1] >= MOST_UNITS:
            raise ValueError(f"--units {text!r}: {ends[-1]} must be below {MOST_UNITS:,}")
        numbers += range(ends[0], ends[-1] + 1)
    return check_distinct("--units", numbers)


def two_channels(text: str) -> tuple[int | None, str]:
    """The images' channels, and the layer's axis: from ``last``, ``1``, or both as ``1,last``.

    Raises:
        ValueError: anything else.

    >>> two_channels("1,last"), two_channels("auto")
    ((1, 'last'), (None, 'auto'))
    """
    images, axis = None, "auto"
    for part in (one.strip() for one in text.split(",")):
        number = read_number(part)
        if number is not None and number > 0:
            images = number
        elif part in ("auto", "first", "last"):
            axis = part
        else:
            raise ValueError(
                f"--channels {text!r} must be auto, first or last (the layer's axis of channels), a number of the "
                "images' channels such as 1, or both, as in 1,last"
            )
    return images, axis

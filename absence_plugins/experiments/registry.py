"""The experiments by name, and the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absence_plugins.core.files import require_folder


def experiments() -> dict[str, Callable[..., Path]]:
    """Every experiment by the name on the command line; a function of a folder and options to the page's path."""
    from absence_plugins.experiments.debias.digits import run_debias
    from absence_plugins.experiments.digits import run_digits
    from absence_plugins.experiments.directions.digits import run_digits as run_direction_digits
    from absence_plugins.experiments.directions.synthetic import run_synthetic
    from absence_plugins.experiments.imagenet import run_imagenet
    from absence_plugins.experiments.toys import run_colored_pixels, run_reichardt

    return {
        "reichardt": run_reichardt,
        "colored-pixels": run_colored_pixels,
        "imagenet": run_imagenet,
        "digits": run_digits,
        "debias": run_debias,
        "directions-synthetic": run_synthetic,
        "directions-digits": run_direction_digits,
    }


# Experiments that keep what is done beside their page, as these files; others take --checkpoint, or are short.
KEPT_IN_OUT = {"debias": ("trainings/*.safetensors", "*/state.safetensors")}


def taken(name: str) -> tuple[str, ...]:
    """The options that an experiment takes; none if it does not exist.

    >>> taken("reichardt")
    ('seed',)
    """
    known = experiments()
    parameters = inspect.signature(known[name]).parameters if name in known else ()
    return tuple(option for option in parameters if option not in ("out", "progress", "command", "quick"))


def run_experiment(name: str, out: Path, **options: Any) -> Path:
    """Run one; options that are None were not given.

    Raises ValueError for a name that does not exist, an option that the experiment does not take, a file in the way.

    >>> run_experiment("reichardt", Path("page"), weights="file")
    Traceback (most recent call last):
    ValueError: experiment reichardt takes no --weights; it takes: --seed
    """
    known = experiments()
    if name not in known:
        raise ValueError(f"experiment {name!r} does not exist; there are: {', '.join(known)}")
    parameters = inspect.signature(known[name]).parameters
    takes = taken(name)
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in (*takes, "progress"):
            shown = ", ".join(f"--{other.replace('_', '-')}" for other in takes)
            raise ValueError(f"experiment {name} takes no --{option.replace('_', '-')}; it takes: {shown}")
    require_folder(out)
    if "command" in parameters:
        words = (f" --{option.replace('_', '-')} {value}" for option, value in given.items() if option != "progress")
        given["command"] = f"absence-plugins experiment {name}{''.join(words)}"
    return known[name](out, **given)

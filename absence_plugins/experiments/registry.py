"""The experiments by name, and the options that each takes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from absence_plugins.core.files import require_folder
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.core.shell import write_command

# By the name on the command line: where the function is, and the options that it takes. The modules load torch, and
# what was typed wrong is said before that.
EXPERIMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "reichardt": ("toys:run_reichardt", ("seed",)),
    "colored-pixels": ("toys:run_colored_pixels", ("seed",)),
    "imagenet": (
        "imagenet:run_imagenet",
        ("data", "weights", "model", "protocol", "units", "images_per_unit", "stride", "batch_size", "workers",
         "checkpoint", "seed"),
    ),
    "digits": ("digits:run_digits", ("checkpoint", "seed")),
    "debias": (
        "debias.digits:run_debias",
        ("data", "model", "weights", "epochs", "strengths", "size", "batch_size", "workers", "seed"),
    ),
    "directions-synthetic": ("directions.synthetic:run_synthetic", ("seeds",)),
    "directions-digits": ("directions.digits:run_digits", ("seed", "directions")),
}  # fmt: skip
SHOW_COMMAND = ("imagenet", "directions-synthetic", "directions-digits")  # whose functions take their command


def find_experiment(name: str) -> Callable[..., Path]:
    """A function of a folder and options to the page's path. Raises ValueError for a name that does not exist."""
    check_experiment(name)
    module, _, function = EXPERIMENTS[name][0].partition(":")
    found: Callable[..., Path] = getattr(import_module(f"absence_plugins.experiments.{module}"), function)
    return found


# Experiments that keep what is done beside their page, as these files; others take --checkpoint, or are short.
KEPT_IN_OUT = {"debias": ("trainings/*.safetensors", "*/state.safetensors")}


def taken(name: str) -> tuple[str, ...]:
    """The options that an experiment takes; none if it does not exist.

    >>> taken("reichardt")
    ('seed',)
    """
    return EXPERIMENTS[name][1] if name in EXPERIMENTS else ()


def check_experiment(name: str, **options: Any) -> None:
    """Raise ValueError for a name that does not exist, and an option that the experiment does not take (None: not
    given).

    >>> check_experiment("reichardt", seed=1, weights="file")
    Traceback (most recent call last):
    ValueError: experiment reichardt takes no --weights; it takes: --seed
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment {name!r} does not exist; there are: {describe_nearest(name, EXPERIMENTS)}")
    for option, value in options.items():
        if value is not None and option not in taken(name):
            shown = ", ".join(f"--{other.replace('_', '-')}" for other in taken(name))
            raise ValueError(f"experiment {name} takes no --{option.replace('_', '-')}; it takes: {shown}")


def run_experiment(name: str, out: Path, *, progress: bool = True, **options: Any) -> Path:
    """Run one; options that are None were not given.

    Raises ValueError for what :func:`check_experiment` rejects, and a file in the way.

    >>> run_experiment("reichardt", Path("page"), weights="file")
    Traceback (most recent call last):
    ValueError: experiment reichardt takes no --weights; it takes: --seed
    """
    check_experiment(name, **options)
    require_folder(out)
    given = {option: value for option, value in options.items() if value is not None}
    if name in SHOW_COMMAND:
        given["command"] = write_command("experiment", name, **given)
    return find_experiment(name)(out, progress=progress, **given)

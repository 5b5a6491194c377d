"""What can be known of a command's words at once: files, folders, numbers. Imports nothing that takes time."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from absence_plugins.core.checks import check_integer

SOURCES = ("torchvision", "timm", "hf")  # of models; anything else in front of the colon is a Python module
SHOWN = 3
REFERENCE_KINDS = ("auto", "features", "pixels", "blurred", "grey", "inpainted", "none")
MADE_KINDS = REFERENCE_KINDS[3:6]


def check_images(paths: Sequence[Path]) -> None:
    """Raise ValueError unless every path is a file; what the files hold is seen when they are read."""
    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise ValueError(f"{folders[0]} is a folder; name image files, for example {folders[0]}/*.png")
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == 1:
        raise ValueError(f"image {missing[0]} does not exist")
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ValueError(f"images {', '.join(map(str, missing[:SHOWN]))}{more} do not exist")


def check_model_words(model: str, weights: str = "none") -> None:
    """Raise ValueError for a ``--model`` whose source does not exist, and a weights file that does not exist."""
    source, separator, name = model.partition(":")
    if separator and source not in SOURCES:
        check_module_name(source, name)
    if separator and source not in SOURCES and not _is_module(source.partition(".")[0]):
        near = difflib.get_close_matches(source, SOURCES, 1)
        hint = f"; did you mean {near[0]}:{model.partition(':')[2]}?" if near else ""
        raise ValueError(f"module {source!r} cannot be imported: there is no such module{hint}")
    looks_like_file = "/" in weights or Path(weights).suffix in (".pt", ".pth", ".safetensors", ".bin", ".ckpt")
    if looks_like_file and not Path(weights).exists():
        raise ValueError(f"weights file {weights} does not exist")


def check_module_name(module: str, name: str) -> None:
    """Raise ValueError for the module of ``module:factory`` that is a path, or has no name.

    >>> check_module_name("nets/own.py", "build")
    Traceback (most recent call last):
    ValueError: --model nets/own.py:build: 'nets/own.py' is no name of a module, as in `import nets.own`; write nets.own:build
    """
    if not all(part.isidentifier() for part in module.split(".")):
        written = module.removesuffix(".py").lstrip("./").replace("/", ".") or "models"
        raise ValueError(
            f"--model {module}:{name}: {module!r} is no name of a module, as in `import {written}`; write {written}:{name}"
        )


def check_folder(option: str, folder: Path | None) -> None:
    """Raise ValueError unless a folder that is named exists."""
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{option} folder {folder} {'is a file' if folder.exists() else 'does not exist'}")


def check_reference_kind(kind: str, *, has_folder: bool) -> None:
    """Raise ValueError for a ``--reference-kind`` that does not exist, or does not go with what is compared.

    >>> check_reference_kind("pixels", has_folder=False)
    Traceback (most recent call last):
    ValueError: --reference-kind pixels says how the nearest of a folder are searched; it needs --references FOLDER
    """
    if kind not in REFERENCE_KINDS:
        near = difflib.get_close_matches(kind, REFERENCE_KINDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"--reference-kind {kind!r} must be one of {', '.join(REFERENCE_KINDS)}{hint}")
    if kind in ("features", "pixels") and not has_folder:
        raise ValueError(
            f"--reference-kind {kind} says how the nearest of a folder are searched; it needs --references FOLDER"
        )
    if kind in (*MADE_KINDS, "none") and has_folder:
        raise ValueError(
            f"--reference-kind {kind} takes no --references: it makes them from each image itself, or none"
        )


def check_numbers(**values: int | None) -> None:
    """Raise ValueError for a number below 1, by the option's name; None is "not given".

    >>> check_numbers(size=None, steps=0)
    Traceback (most recent call last):
    ValueError: --steps 0 must be at least 1
    """
    for name, value in values.items():
        if value is not None:
            check_integer(f"--{name.replace('_', '-')}", value)


def _is_module(name: str) -> bool:
    sys.path.insert(0, "")  # as the model will be imported
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
    finally:
        sys.path.remove("")

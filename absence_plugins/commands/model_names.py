"""The names of the models that are installed, read from the packages' files: importing the packages takes seconds."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from absence_plugins.core.nearest import describe_nearest

PIP = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}  # what --model SOURCE:NAME needs
WHAT = {"torchvision": "classification model", "timm": "model"}


def check_model_name(source: str, name: str) -> None:
    """Raise ValueError for a model that torchvision or timm does not have, ImportError where the package is missing.

    >>> check_model_name("torchvision", "resnet81")
    Traceback (most recent call last):
    ValueError: torchvision has no classification model 'resnet81'; it has: resnet18, resnet101, resnet152 and 77 more (these are the nearest names)
    """
    if importlib.util.find_spec(PIP[source]) is None:
        raise ImportError(f"--model {source}:NAME needs {PIP[source]}; pip install {PIP[source]}")
    if source == "torchvision":
        known = torchvision_names()
        if name not in known:
            raise unknown_model(source, name, known)
    elif source == "timm":
        known = timm_names()
        if name.partition(".")[0] not in known and not _is_written(name.partition(".")[0]):
            raise unknown_model(source, name, known)


def unknown_model(source: str, name: str, known: Sequence[str]) -> ValueError:
    """The error for a name that a package does not have."""
    return ValueError(f"{source} has no {WHAT[source]} {name!r}; it has: {describe_nearest(name, known)}")


@cache
def torchvision_names() -> tuple[str, ...]:
    """Its classification models, in order of their names; () without torchvision."""
    return _registered("torchvision")


@cache
def timm_names() -> tuple[str, ...]:
    """Its models without the tags of weights, in order of their names; () without timm."""
    return _registered("timm")


def _registered(package: str) -> tuple[str, ...]:
    """The functions behind ``@register_model`` in ``package/models/*.py``, or the name that the decorator is given."""
    found: list[str] = []
    for path in _files(package):
        for part in path.read_text(encoding="utf-8").split("\n@register_model")[1:]:
            given = re.match(r'\(name="([^"]+)"\)', part)
            function = re.search(r"^def (\w+)\(", part, re.MULTILINE)
            if given or function:
                found.append((given or function)[1])  # type: ignore[index]
    return tuple(sorted(found))


def _files(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    places = () if spec is None else spec.submodule_search_locations or ()
    return [path for place in places for path in sorted((Path(place) / "models").glob("*.py"))]


def _is_written(name: str) -> bool:
    """Whether timm has the name as a text: of former names there is a list in each file."""
    return any(
        f"'{name}'" in (text := path.read_text(encoding="utf-8")) or f'"{name}"' in text for path in _files("timm")
    )

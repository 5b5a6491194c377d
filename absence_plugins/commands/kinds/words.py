"""What can be known of the options of ``explain --table`` and the like at once. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absence_plugins.commands.early_checks import check_file, check_images
from absence_plugins.core.checks import check_choice

KINDS = ("table", "text", "signal", "volume")
MISSING_WORDS = ("refuse", "median", "drop")
IMAGES_ONLY = ("size", "mean", "std", "steps")  # options without a default
# Options of some kinds only: what they are for.
ONLY = {"categories": ("table",), "rate": ("signal",), "channels": ("signal", "volume")}
SAMPLES_ONLY = ("label", "rows", "categories", "rate", "classes")
RELEVANCE = "relevance"


def find_kind(given: Mapping[str, Any]) -> str | None:
    """The kind that a command's options name; None: images.

    Raises:
        ValueError: several.

    >>> find_kind({"table": True}), find_kind({"table": False})
    ('table', None)
    """
    named = [kind for kind in KINDS if given.get(kind)]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(f'--{kind}' for kind in named)} are different kinds of data; name one")
    return named[0] if named else None


def check_kind_words(kind: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError for options that do not belong to these kinds, and files that do not exist."""
    check_images(given["images"])
    for name in IMAGES_ONLY:
        if name in given:
            raise ValueError(f"--{name} belongs to images; leave it out with --{kind}")
    for name, kinds in ONLY.items():
        if name in given and kind not in kinds:
            raise ValueError(f"--{name} belongs to {' and '.join(f'--{one}' for one in kinds)}, not to --{kind}")
    if given.get("reference_kind", "auto") != "auto":
        raise ValueError(f"--reference-kind belongs to images; leave it out with --{kind}")
    rule = read_rule(str(given.get("method", "auto")))
    if kind == "text" and rule != "epsilon":
        raise ValueError(
            f"--method {given['method']}: texts are explained by relevance with Epsilon; leave --method out"
        )
    check_choice("--missing", given.get("missing", MISSING_WORDS[0]), MISSING_WORDS)
    rate = given.get("rate")
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"--rate {rate} must be a positive number of samples per second")
    references = given.get("references")
    if references is not None and not (kind == "signal" and Path(references).is_dir()):
        check_file("references", Path(references))
    if str(given.get("model", "")) == "torchvision:resnet18":
        other = "hf:FOLDER or module:factory" if kind == "text" else "module:factory"
        raise ValueError(f"--{kind} needs --model {other}; the default is a model of images")


def check_image_words(given: Mapping[str, Any]) -> None:
    """Raise ValueError for options of rows, texts, signals or volumes without the one that says so."""
    for name in SAMPLES_ONLY:
        if name in given:
            kinds = " or ".join(f"--{kind}" for kind in ONLY.get(name, KINDS))
            raise ValueError(f"--{name} says how other data than images are read; it needs {kinds}")


def read_rule(method: str) -> str:
    """The rule of relevance that ``--method`` names.

    Raises:
        ValueError: another method.

    >>> read_rule("auto"), read_rule("relevance:gamma")
    ('epsilon', 'gamma')
    """
    name, _, rule = method.lower().partition(":")
    if name not in ("auto", RELEVANCE):
        raise ValueError(
            f"--method {method}: rows, texts, signals and volumes are explained by relevance, or relevance:RULE"
        )
    return rule or "epsilon"


def split_names(text: str | None) -> tuple[str, ...]:
    """Comma-separated names.

    Raises:
        ValueError: an empty one.

    >>> split_names("no, yes")
    ('no', 'yes')
    """
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError(f"{text!r} must be names, divided by commas")
    return names

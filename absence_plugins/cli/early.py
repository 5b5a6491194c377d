"""What is wrong with a command's words, said before torch is imported: in two seconds, not after the model is loaded.

An option has the same meaning in every command, so the checks go by its name; a new command has them without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absence_plugins.cli.app import clear_errors, numbers, two_channels, unit_numbers
from absence_plugins.cli.endings import Command
from absence_plugins.cli.ranked import check_shared, is_first_rank
from absence_plugins.commands import known_words as words
from absence_plugins.commands.early_checks import (
    DIGITS,
    PHOTOS,
    SOURCES,
    check_file,
    check_folder,
    check_images,
    check_method_name,
    check_model_words,
    check_packages,
    check_reference_kind,
    read_threshold,
)
from absence_plugins.commands.kinds.words import check_image_words, check_kind_words, find_kind
from absence_plugins.core.checks import LARGEST, LARGEST_SEED, MOST_WORKERS, check_choice, check_integer, check_number
from absence_plugins.core.files import require_folder
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.experiments.registry import check_experiment

Values = Mapping[str, Any]
# The smallest value of every whole number, and the largest of some.
LEAST = {
    "size": 1, "k": 1, "steps": 1, "patch": 1, "stride": 1, "batch_size": 1, "show": 1, "length": 1, "beam": 1,
    "top": 1, "most": 1, "count": 2, "images_per_unit": 3, "rounds": 1, "epochs": 1, "seeds": 1, "pairs": 1, "findings": 1, "scored": 0,
    "workers": 0, "seed": 0, "directions": 0, "min_support": 1,
}  # fmt: skip
SIDE = 16_384  # pixels
MOST = {"size": SIDE, "patch": SIDE, "stride": SIDE, "workers": MOST_WORKERS, "seed": LARGEST_SEED}
SHARES = ("min_fraction", "max_fraction", "holdout")
FOLDERS = ("folder", "images", "references", "data")
FILES = ("image", "attributes", "measured")
WRITTEN = ("out", "checkpoint")
OF_IMAGES = (
    "images",
    "attributes",
    "hypernyms",
    "groups",
    "size",
    "mean",
    "std",
    "checkpoint",
    "batch_size",
    "labels_threshold",
)
CHOICES = {
    "reduce": words.REDUCES,
    "protocol": words.PROTOCOLS,
    "background": words.BACKGROUNDS,
    "recipe": words.RECIPES,
    "device": words.DEVICES,
    "score": words.NAME_SCORES,
    "prefer": words.PREFERENCES,
    "search": words.SEARCHES,
}
MODES = {"label": words.NAME_MODES, "patches": words.SCAN_MODES, "report": words.SCAN_MODES}


class CheckedCommand(Command):
    """A command whose words are checked before it runs."""

    def invoke(self, ctx: Any) -> Any:
        """Check, then run."""
        with clear_errors():
            check_shared(str(ctx.info_name), ctx.params)
            check_call(str(ctx.info_name), {**ctx.params, **_read_paths(self, ctx.params)})
        if "quiet" in ctx.params and not is_first_rank():
            ctx.params["quiet"] = True  # one rank shows bars
        return super().invoke(ctx)


def _read_paths(command: Any, values: Values) -> dict[str, Any]:
    """The options that are paths as paths: older versions of typer make them so only at the call."""
    found: dict[str, Any] = {}
    for option in command.params:
        value = values.get(option.name)
        kind = getattr(getattr(option, "type", None), "name", "")
        if kind in ("path", "file", "directory") and value is not None:
            several = isinstance(value, (list, tuple))
            found[option.name] = [Path(each) for each in value] if several else Path(value)
    return found


def check_call(command: str, values: Values) -> None:
    """Raise ValueError for what can be known of a command's options at once, by the name of the command.

    Args:
        command: such as ``patches``.
        values: of its options and arguments by name; None: not given.

    Raises:
        ValueError: a path that does not exist, a name or word that does not exist (with the nearest), a number out of
            range.
        ImportError: a package that a model needs is not installed.

    >>> check_call("patches", {"model": "digits", "reduce": "mena"})
    Traceback (most recent call last):
    ValueError: --reduce 'mena' must be one of mean, max, min, sum, cls
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        if name in LEAST:
            check_integer(_spell(name), value, LEAST[name], MOST.get(name, LARGEST))
    if command in SPECIFIC:
        SPECIFIC[command](given)
    for name, value in given.items():
        if name in SHARES:
            check_number(_spell(name), value, 0, 1)
        elif name in FOLDERS and isinstance(value, Path) and not (name == "references" and find_kind(given)):
            check_folder(name, value)
        elif name in FILES and isinstance(value, Path):
            check_file(name, value)
        elif name == "groups" and value not in words.GROUPINGS:
            if not Path(value).is_file():
                raise ValueError(f"--groups {value}: no such table; name one, or auto or none")
        elif name in WRITTEN:
            require_folder(value)
        elif name in CHOICES:
            check_choice(f"--{name}", value, CHOICES[name])
        elif name in TEXTS:
            TEXTS[name](value)
    if command in MODES and "mode" in given:
        check_choice("--mode", given["mode"], MODES[command])
    if command != "experiment" and "model" in given:
        check_model_words(given["model"], given.get("weights", "none"))


def _check_channels(value: int | str) -> None:
    if isinstance(value, str):
        two_channels(value)
    else:
        check_integer("--channels", value)


def _spell(name: str) -> str:
    """As it is typed."""
    return f"--{name.replace('_', '-')}"


def _check_numbers(option: str, **bounds: float) -> Callable[[str], object]:
    def check(text: str) -> object:
        return [check_number(option, value, **bounds) for value in numbers(option, text) or ()]

    return check


def _check_skip(text: str) -> None:
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in words.SKIPPED:
            raise ValueError(f"--skip {name!r} is not known; there are: {', '.join(words.SKIPPED)}")


# Texts that are read, each by the function that the command reads it with.
TEXTS: dict[str, Callable[[Any], object]] = {
    "units": unit_numbers,
    "channels": _check_channels,
    "mean": _check_numbers("--mean"),
    "std": _check_numbers("--std", above=0),
    "strengths": _check_numbers("--strengths", least=0),
    "method": check_method_name,
    "skip": _check_skip,
}


def _check_explain(given: Values) -> None:
    kind = find_kind(given)
    if kind is not None:
        check_kind_words(kind, given)
        return
    check_image_words(given)
    check_images(given["images"])
    contrast, method = given.get("contrast"), str(given.get("method", "auto"))
    if contrast is not None and "references" not in given and not Path(contrast).is_dir():
        raise ValueError(f"--contrast {contrast!r} needs --references FOLDER, or must be a folder itself")
    if method.lower().startswith("lucent:") and (contrast is not None or "target" in given):
        raise ValueError(f"--method {method} names its unit itself; leave --target and --contrast out")
    has_folder = contrast is not None or "references" in given
    check_reference_kind(given.get("reference_kind", "auto"), has_folder=has_folder)
    if method == "auto" and "steps" in given:
        raise ValueError("--steps needs --method, such as IntegratedGradients")


def _check_images_of(argument: str, what: str) -> Callable[[Values], None]:
    def check(given: Values) -> None:
        if argument not in given and given["model"] != DIGITS:
            raise ValueError(f"{what}; only --model digits brings its own")

    return check


def _check_patches(given: Values) -> None:
    _check_groups(given, "folder")
    if "folder" not in given and given["model"].partition(":")[0] in SOURCES:
        raise ValueError("name a folder of images; the bundled digits are for --model digits")


def _check_groups(given: Values, folder: str) -> None:
    if "groups" in given and folder not in given:
        raise ValueError("--groups describes the files of a folder of images; name that folder too")


def _check_label(given: Values) -> None:
    if "values" in given:
        check_file("values", given["values"])
        if "labels" not in given:
            raise ValueError("--values needs --labels FILE, a table with a row per sample and a column per concept")
        described = [f"--{n.replace('_', '-')}" for n in OF_IMAGES if n in given]
        if described:
            raise ValueError(f"{' and '.join(described)} belong to images; with --values there are none")
        check_choice("--labels-minus", given.get("labels_minus", "auto"), words.MEANINGS)
    else:
        _check_images_of("images", "--images must name a folder with one subfolder of images per class")(given)
    least, most = given.get("min_fraction", 0.0), given.get("max_fraction", 1.0)
    if least > most:
        raise ValueError(f"--min-fraction {least} is above --max-fraction {most}; no name holds on so many images")
    if given.get("holdout") == 1:
        raise ValueError("--holdout 1.0 leaves no images to search; 0.5 holds out half")
    if given.get("search") == "certified":
        if given["length"] > words.PROVEN_LENGTH:
            raise ValueError(
                f"--search certified proves names of up to {words.PROVEN_LENGTH} concepts; --length {given['length']} takes --search beam"
            )
        if not given["exact_pairs"]:
            raise ValueError("--search certified searches all pairs of concepts; leave --no-exact-pairs out")
    check_number("--budget", given.get("budget", 1.0), 1)
    described = [f"--{name}" for name in ("labels", "attributes", "hypernyms") if name in given]
    if "images" not in given and "values" not in given and described:
        raise ValueError(f"{' and '.join(described)} describe --images; name that folder too")
    if "labels" in given:
        if "attributes" in given:
            raise ValueError("--labels describe images and --attributes their class folders; pass one of them")
        if not Path(given["labels"]).is_dir():
            check_file("labels", given["labels"])
        check_choice("--labels-format", given["labels_format"], words.LABEL_FORMATS)
        check_choice("--labels-minus", given.get("labels_minus", "auto"), words.MEANINGS)
        _check_threshold(given)
    elif "labels_threshold" in given or any(
        given.get(name, "auto") != "auto" for name in ("labels_format", "labels_minus")
    ):
        raise ValueError(
            "--labels-format, --labels-threshold and --labels-minus say how --labels are read; name that file, too"
        )
    if given.get("hypernyms", words.WORDNET) != words.WORDNET:
        check_file("hypernyms", Path(given["hypernyms"]))
    _check_groups(given, "images")


def _check_threshold(given: Values) -> None:
    if "labels_threshold" not in given or read_threshold(given["labels_threshold"]) != words.CHOSEN:
        return
    if "hypernyms" in given:
        raise ValueError("--hypernyms need labels, and --labels-threshold auto makes them later; write a number there")
    if given.get("labels_minus", "auto") != "auto":
        raise ValueError(
            "--labels-threshold auto takes -1 for a score; leave --labels-minus out, or write a number there"
        )


def _check_report(given: Values) -> None:
    _check_groups(given, "folder")
    _check_images_of("folder", "name a folder of images")(given)
    if "attributes" in given and "folder" not in given:
        raise ValueError("--attributes describe the classes of a folder of images; name that folder too")
    directions = given.get("directions", 0)
    if directions == 1:
        raise ValueError(f"--directions {directions} must be 0 (none), or 2 or more")
    if "directions_layer" in given and not directions:
        raise ValueError("--directions-layer says where directions are fitted; pass --directions N, too")


def _check_check(given: Values) -> None:
    check_number("--budget", given["budget"], 0)


def _check_demo(given: Values) -> None:
    if given["photos"]:
        if "pairs" in given:
            raise ValueError("--pairs belongs to the demo on digits; with --photos it is --findings")
        check_packages("photos", PHOTOS)
    elif "findings" in given:
        raise ValueError("--findings belongs to demo --photos; of digits it is --pairs")


def _check_experiment(given: Values) -> None:
    own = ("name", "out", "quiet")
    name, model = given["name"], given.get("model")
    check_experiment(name, **{option: value for option, value in given.items() if option not in own})
    if name == "imagenet":
        if model is not None and model not in words.PUBLISHED:
            raise ValueError(f"--model {model!r} is none of the published networks: {', '.join(words.PUBLISHED)}")
        if "data" not in given:
            raise ValueError(
                "experiment imagenet needs --data FOLDER, a folder of images such as ImageNet's validation set"
            )
    elif model is not None:
        check_model_words(model if ":" in model else f"{SOURCES[0]}:{model}")
    check_model_words(DIGITS, given.get("weights", "none"))


def _check_bench(given: Values) -> None:
    host = given["host"]
    if host not in words.BENCHES:
        raise ValueError(f"bench {host!r} does not exist; there are: {describe_nearest(host, words.BENCHES)}")
    if given.get("into") and host not in ("planted", "models", "references", "directions", "kinds"):
        raise ValueError("--into belongs to bench planted, models, references, directions and kinds")
    if "measured" in given and host not in ("planted", "kinds"):
        raise ValueError("--from belongs to bench planted and bench kinds")
    for path in given.get("into", ()):
        check_file("into", path)


SPECIFIC: dict[str, Callable[[Values], None]] = {
    "demo": _check_demo,
    "explain": _check_explain,
    "patches": _check_patches,
    "label": _check_label,
    "report": _check_report,
    "check": _check_check,
    "experiment": _check_experiment,
    "bench": _check_bench,
}

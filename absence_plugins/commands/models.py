"""From what a user names on the command line to a model, its preprocessing, images and references."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.commands.factories import build_model
from absence_plugins.commands.weights import load_weights
from absence_plugins.core.randomness import seeded

try:
    import torchvision
    from PIL import Image, UnidentifiedImageError
    from torchvision import transforms
except ImportError as error:
    raise ImportError(
        f'loading images needs torchvision and Pillow ({error}); pip install "absence-plugins[report]"'
    ) from error

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OF_THE_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # too many open files, no memory: no fault of the image
IMAGE_FILES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class UnreadableImage(ValueError):
    """A file that is no image, or half of one; ``why`` says how in a few words."""

    def __init__(self, text: str, why: str = "") -> None:  # with one argument, workers of a DataLoader can pass it on
        super().__init__(text)
        self.why = why


def decoded(path: Path, channels: int) -> Image.Image:
    """A file's picture, all of it read: in gray (``channels=1``) or RGB.

    Raises:
        UnreadableImage: whatever is wrong with the file.
    """
    if path.is_dir():
        raise UnreadableImage(f"{path} is a folder; name image files, for example {path}/*.png", "a folder")
    if not path.is_file():
        raise UnreadableImage(f"image {path} does not exist", "no file")
    try:
        with Image.open(path) as opened:
            return opened.convert("L" if channels == 1 else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # OSError, SyntaxError, struct.error, ...: whatever the bytes of a foreign file lead to
        if isinstance(error, OSError) and error.errno in OF_THE_SYSTEM:
            raise
        why = (
            "not an image"
            if isinstance(error, UnidentifiedImageError)
            else (str(error) or type(error).__name__).splitlines()[0]
        )
        raise UnreadableImage(f"{path} is not an image that Pillow can read ({error})", why) from None


@dataclass(frozen=True)
class Preprocessing:
    """Image file -> model input: grayscale or RGB, resized and center-cropped to ``size``, normalized."""

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def picture(self, path: Path) -> Tensor:
        """The image as a person sees it: [C, size, size] in [0, 1].

        Raises:
            UnreadableImage: no such file, or not an image.
        """
        image = decoded(path, self.channels)
        steps = [transforms.Resize(self.size), transforms.CenterCrop(self.size), transforms.ToTensor()]
        picture: Tensor = transforms.Compose(steps)(image)
        return picture

    def normalize(self, picture: Tensor) -> Tensor:
        """Pictures [..., C, H, W] in [0, 1] -> model inputs."""
        return (picture - self._column(self.mean)) / self._column(self.std)

    @property
    def empty(self) -> Tensor:
        """What black becomes: one value per channel [C, 1, 1]."""
        return self.normalize(torch.zeros(self.channels, 1, 1))

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values).reshape(-1, 1, 1)


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode, the preprocessing of its images, and its classes' names ([] if unknown)."""

    model: nn.Module
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """``class 3`` or ``class 3 (magpie)``."""
        known = index < len(self.categories) and self.categories[index] != str(index)
        return f"class {index} ({self.categories[index]})" if known else f"class {index}"


def load_model(
    spec: str,
    weights: str = "none",
    *,
    size: int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """A model from ``torchvision:NAME``, ``module:factory`` (called without arguments), or ``digits``.

    ``weights``: "none" (the factory's own), "DEFAULT" (torchvision's, which are downloaded unless they
    are in torch's cache), or a file: safetensors, or a state dict that loads with ``weights_only=True``;
    no code is ever unpickled.

    Raises:
        ValueError: what does not exist, does not fit, or would execute code.
    """
    if spec == "digits":
        from absence_plugins.data import digits_cnn

        model, notes = _weighted(digits_cnn(), weights)
        prepared = _preprocessing(size or 32, channels or 1, mean, std, plain=True)
        return LoadedModel(model, prepared, tuple("0123456789"), notes)
    source, separator, name = spec.partition(":")
    if not separator or not name:
        raise ValueError(f"--model {spec!r} must be torchvision:NAME, module:factory, or digits")
    if source == "torchvision":
        return _torchvision_model(name, weights, size, mean, std)
    model, notes = _weighted(build_model(source, name), weights)
    prepared = _preprocessing(size or 224, channels or 3, mean, std, plain=mean is None)
    return LoadedModel(model, prepared, (), notes)


def _preprocessing(
    size: int, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None, *, plain: bool
) -> Preprocessing:
    means = tuple(mean or ((0.0,) * channels if plain else IMAGENET_MEAN))
    stds = tuple(std or ((1.0,) * channels if plain else IMAGENET_STD))
    for option, values in (("--mean", means), ("--std", stds)):
        if len(values) != channels:
            raise ValueError(f"{option} has {len(values)} values for {channels} channels; pass one per channel")
    if any(value <= 0 for value in stds):
        raise ValueError(f"--std {stds} must be positive")
    return Preprocessing(size, channels, means, stds)


def _torchvision_model(
    name: str, weights: str, size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> LoadedModel:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = [other for other in known if other.startswith(name[:3])][:8] or known[:8]
        raise ValueError(f"torchvision has no classification model {name!r}; for example: {', '.join(close)}")
    published = torchvision.models.get_model_weights(name).DEFAULT
    # a vision transformer is built for one size of image
    options = {"image_size": size} if size is not None and name.startswith("vit_") else {}
    notes: tuple[str, ...] = ()
    if weights == "DEFAULT":
        try:
            model = torchvision.models.get_model(name, weights=published, **options)
        except OSError as error:
            raise ValueError(
                f"torchvision's weights of {name} could not be downloaded ({error}); fetch the file and pass --weights "
                "FILE"
            ) from None
    else:
        with seeded(0):
            model, notes = _weighted(torchvision.models.get_model(name, weights=None, **options), weights)
    if weights == "none":
        notes = (
            f"The weights of {name} are random (no --weights was given): the maps show how it works, nothing learned.",
        )
    crop = int(published.transforms().crop_size[0])
    return LoadedModel(
        model.eval(),
        _preprocessing(size or crop, 3, mean, std, plain=False),
        tuple(published.meta.get("categories", ())),
        notes,
    )


def _weighted(model: nn.Module, weights: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A model with the weights that --weights names, and what to say of them."""
    if weights == "none":
        return model.eval(), ()
    if weights == "DEFAULT":
        raise ValueError("--weights DEFAULT is for torchvision models; pass a file, or none")
    said = load_weights(model, Path(weights))
    return model.eval(), (said,)


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, in order. A folder of such a name is none; what lies in it counts."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_FILES and not path.is_dir())


def load_references(
    folder: Path,
    loaded: LoadedModel,
    *,
    k: int = 8,
    contrast: int | None = None,
    max_samples: int = 2000,
    seed: int = 0,
) -> ReferenceSet:
    """References from a folder of images; its subfolders, if any, are classes.

    A subfolder's class is its name if that is a number, its place among the model's categories if it is
    one of them, else its place in alphabetical order (as torchvision's ImageFolder counts).

    Raises:
        ValueError: no such folder, no images.
    """
    if not folder.is_dir():
        raise ValueError(f"references folder {folder} does not exist")
    files = image_files(folder)
    if not files:
        raise ValueError(f"references folder {folder} holds no images")
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:max_samples].sort().values
    files = [files[int(index)] for index in chosen]
    index_of = folder_classes(folder, loaded.categories)
    if index_of and any(file.parent == folder for file in files):
        raise ValueError(f"references folder {folder} holds images beside its class folders; move them into one")
    labels = [index_of[file.relative_to(folder).parts[0]] for file in files] if index_of else None
    images = torch.stack([loaded.preprocessing.normalize(loaded.preprocessing.picture(file)) for file in files])
    return ReferenceSet(images, labels, empty=loaded.preprocessing.empty, k=k, contrast=contrast, seed=seed)


def reference_notes(folder: Path, loaded: LoadedModel) -> list[str]:
    """How the folders were read as classes, where their names do not say it."""
    classes = folder_classes(folder, loaded.categories)
    if not classes or all(
        name == str(index) or loaded.name(index).endswith(f"({name})") for name, index in classes.items()
    ):
        return []
    read = ", ".join(f"{name} as {loaded.name(index)}" for name, index in classes.items())
    return [
        f"The reference folders were read in alphabetical order: {read}. If the model counts otherwise, name the "
        "folders by class index."
    ]


def folder_classes(folder: Path, categories: Sequence[str]) -> dict[str, int]:
    """Class index of every subfolder; {} if there are none."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and image_files(path))
    if all(name.isdigit() for name in names):
        return {name: int(name) for name in names}
    if categories and all(name in categories for name in names):
        return {name: list(categories).index(name) for name in names}
    return {name: index for index, name in enumerate(names)}

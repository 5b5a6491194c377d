"""References from folders: which folder is which class, and which of them an image is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from absence_plugins import FeatureSpace, MadeReferences, ReferenceSet
from absence_plugins.commands.class_names import find_class
from absence_plugins.commands.models import LoadedModel, image_files
from absence_plugins.commands.pace import show_forwards
from absence_plugins.commands.predictions import predict_classes
from absence_plugins.commands.same_photograph import show_same
from absence_plugins.core.pooling import PHOTOGRAPH

SHOWN = 6  # folders in a line
NAMED = 3  # files in a sentence
MADE = "blurred"  # how a photograph's own reference is made where there are no others, by measurement (docs/how-to/references.md)


class FolderReferences(ReferenceSet):
    """References whose files are known, and what the model itself says of them.

    Args:
        images, labels, options: as of a :class:`~absence_plugins.ReferenceSet`.
        files: of the images.
        folder: that all lie in.
        classes: the class of every subfolder, None for one that is no class of the model.
        predicted: the class that the model itself predicts for every image [N].
        is_named: whether the label is that of the image's folder [N]; the others are what the model predicts.
        is_contrast: whether the folder itself is what was asked for as the contrast.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None,
        *,
        files: Sequence[Path],
        folder: Path,
        classes: Mapping[str, int | None],
        predicted: Tensor,
        is_named: Tensor,
        is_contrast: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(images, labels, **options)
        self.files, self.folder, self.classes, self.predicted = tuple(files), folder, dict(classes), predicted
        self.is_named, self.is_contrast = is_named, is_contrast

    def choose_for(self, x: Tensor, target: int, predicted: int | None = None) -> ChosenReferences:
        """The nearest references of one image [1, C, H, W]: not of the class that is explained, nor of its photograph.

        Left out are those that the model itself predicts to be ``target``, whatever their folder is called, those of
        the class that it predicts for x (unless there are no others, or they are the contrast), and, of photographs,
        those that show the same scene as x in another crop.

        Raises:
            ValueError: nothing is left; the contrast class is the target.
        """
        contrast = self.contrast
        assert contrast is None or isinstance(contrast, int)
        if contrast == target:
            raise ValueError(
                f"class {target} would be compared with itself; name another contrast class than the target"
            )
        assert self.labels is not None
        by_folder = torch.where(self.is_named, self.labels, -1)  # elsewhere the model alone says what they are
        is_other = torch.ne(by_folder, target) if contrast is None else torch.eq(self.labels, contrast)
        pool = is_other.nonzero().flatten()
        by_model = self.predicted[pool] == target
        left = pool[~by_model]
        by_image = torch.zeros_like(left, dtype=torch.bool)
        if predicted is not None and predicted != target and contrast is None and not self.is_contrast:
            by_image = self.predicted[left] == predicted
            by_image = torch.zeros_like(by_image) if bool(by_image.all()) else by_image
        alike = left[by_image].tolist()
        left = left[~by_image]
        order = self._ranked(self._inputs(x), [left])[0] if len(left) else left
        nearest, same = self._take_nearest(x, order)
        left_out = {
            "the model itself gives them the explained class": pool[by_model].tolist(),
            "the model itself gives them the class that it predicts for the image": alike,
            "they show the same photograph": same,
        }
        if not nearest:
            reasons = "; ".join(f"{len(rows)}: {why}" for why, rows in left_out.items() if rows)
            raise ValueError(f"no reference of {self.folder} is left to compare with ({reasons}); add other images")
        chosen = ReferenceSet(
            self.images[0][nearest],
            empty=self.empty[0],
            k=len(nearest),
            seed=self.seed,
            nearest_in=self.nearest_in,  # the same order
        )
        return ChosenReferences(chosen, self._sentences(left_out, len(nearest)), self.files[nearest[0]].name)

    def read_features(self, *, progress: bool) -> None:
        """Read the features of all references now, with a bar; later they are known."""
        if self.nearest_in is not None:
            model, first = self.nearest_in.model, self.images[0][:1]
            with show_forwards(model, len(self) + 1, "features of the references", progress=progress):
                self._in_features((first,))

    def _take_nearest(self, x: Tensor, order: Tensor) -> tuple[list[int], list[int]]:
        """The first k of a list that are no crops of the same photograph, and those that are."""
        if max(x.shape[-2:]) <= PHOTOGRAPH:
            return order[: self.k].tolist(), []
        nearest: list[int] = []
        same: list[int] = []
        for part in torch.split(order, self.k):
            for row, is_same in zip(part.tolist(), show_same(x[0], self.images[0][part]).tolist(), strict=True):
                (same if is_same else nearest).append(row)
            if len(nearest) >= self.k:
                break
        return nearest[: self.k], same

    def _sentences(self, left_out: Mapping[str, Sequence[int]], count: int) -> tuple[str, ...]:
        said = []
        for why, rows in left_out.items():
            if rows:
                names = ", ".join(str(self.files[row].relative_to(self.folder)) for row in rows[:NAMED])
                more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
                were = "reference was" if len(rows) == 1 else "references were"
                reason = why.replace("them", "it").replace("they show", "it shows") if len(rows) == 1 else why
                said.append(f"{len(rows)} {were} left out, as {reason}: {names}{more}.")
        if count < self.k:
            said.append(f"Only {count} reference{'s are' if count > 1 else ' is'} left, fewer than --k {self.k}.")
        return tuple(said)


@dataclass(frozen=True, eq=False)
class ChosenReferences:
    """The references of one image, nearest first; what was left out, in sentences; and the nearest one's file."""

    references: ReferenceSet
    notes: tuple[str, ...] = ()
    nearest: str = ""

    @property
    def made(self) -> str:
        """How the reference was made from the image itself: "blurred", "grey", "inpainted"; "" of real ones."""
        return self.references.kind if isinstance(self.references, MadeReferences) else ""


def choose_references(
    references: ReferenceSet, x: Tensor, target: int, predicted: int | None = None
) -> ChosenReferences:
    """As :meth:`FolderReferences.choose_for`; other sets are taken as they are."""
    if isinstance(references, FolderReferences):
        return references.choose_for(x, target, predicted)
    return ChosenReferences(references)


def make_references(loaded: LoadedModel, kind: str = "auto") -> MadeReferences | None:
    """References made from each image itself, where there are no others.

    kind: "blurred", "grey", "inpainted"; "auto": of photographs (over 64 pixels) what was measured to be the truest,
    of smaller images none; "none".

    Raises:
        ValueError: another kind.
    """
    if kind == "auto":
        kind = MADE if loaded.preprocessing.size > PHOTOGRAPH else "none"
    return None if kind == "none" else MadeReferences(kind, empty=loaded.preprocessing.empty)  # type: ignore[arg-type]


def load_references(
    folder: Path,
    loaded: LoadedModel,
    *,
    k: int = 8,
    contrast: int | str | None = None,
    max_samples: int = 2000,
    seed: int = 0,
    kind: str = "auto",
    progress: bool = False,
) -> FolderReferences:
    """References from a folder of images; its subfolders, if any, are classes (:func:`folder_classes`).

    Images in a folder that is no class of the model count as what the model predicts for them, and so do all images
    of a folder without subfolders.

    Args:
        folder: of images.
        loaded: the model.
        k: references per image.
        contrast: a class by number or name, or a folder: one of the subfolders, or any path, which then takes the
            place of ``folder``. None: every class but the target's.
        max_samples: so many images at most, drawn by ``seed``.
        seed: for the draw.
        kind: "features": the nearest are those in what the model's classifier sees; "pixels"; "auto": "features" for
            images over 64 pixels.
        progress: show progress bars.

    Raises:
        ValueError: no such folder, no images, no such contrast.
    """
    whole = folder
    folder, contrast = _find_contrast(folder, contrast, loaded)
    files = image_files(folder)
    if not files:
        raise ValueError(f"references folder {folder} holds no images")
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:max_samples].sort().values
    files = [files[int(index)] for index in chosen]
    images = torch.stack(
        [
            loaded.preprocessing.normalize(loaded.preprocessing.picture(file))
            for file in tqdm(files, desc="reading references", unit="image", disable=not progress)
        ]
    )
    predicted, count = predict_classes(loaded.model, images, progress=progress)
    classes = folder_classes(folder, loaded.categories, count)
    if classes and any(file.parent == folder for file in files):
        raise ValueError(f"references folder {folder} holds images beside its class folders; move them into one")
    own = [classes[file.relative_to(folder).parts[0]] if classes else None for file in files]
    is_named = torch.tensor([label is not None for label in own])
    labels = torch.where(is_named, torch.tensor([label or 0 for label in own]), predicted)
    in_features = kind == "features" or (kind == "auto" and loaded.preprocessing.size > PHOTOGRAPH)
    options: dict[str, Any] = {
        "nearest_in": FeatureSpace(loaded.model) if in_features else None,
        "is_contrast": folder != whole,
        "empty": loaded.preprocessing.empty,
        "k": k,
        "contrast": contrast,
        "seed": seed,
    }
    references = FolderReferences(
        images, labels, files=files, folder=folder, classes=classes, predicted=predicted, is_named=is_named, **options
    )
    references.read_features(progress=progress)
    return references


def folder_classes(folder: Path, categories: Sequence[str], count: int | None = None) -> dict[str, int | None]:
    """The class of every subfolder that holds images; {} if there are none.

    A folder's name is the number of a class, or its name in any case. Where none of the names is one, and there are as
    many folders as the model has outputs, they are counted in alphabetical order, as torchvision's ``ImageFolder``
    does. Any other folder is None: no class of the model.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and image_files(path))
    found: dict[str, int | None] = {}
    for name in names:
        try:
            found[name] = find_class("folder", name, categories, count)
        except ValueError:
            found[name] = None
    if names and not any(value is not None for value in found.values()) and len(names) == count:
        return {name: index for index, name in enumerate(names)}
    return found


def describe_references(references: FolderReferences, loaded: LoadedModel) -> str:
    """In a sentence: how many, which folder is which class, whether the model agrees, and what is compared."""
    total, known = len(references), {n: index for n, index in references.classes.items() if index is not None}
    unknown = [name for name, index in references.classes.items() if index is None]
    said = f"{total} image{'s' * (total != 1)} of {references.folder}"
    if known:
        counted = not any(_says(name, index, loaded) for name, index in known.items())
        how = "folders, counted in alphabetical order as there are as many as outputs" if counted else "folders"
        said += f"; {how}: {_list([f'{name} is {loaded.name(index)}' for name, index in known.items()])}"
    if unknown:
        said += f"; no class of the model, so that their images count as what it predicts: {_list(unknown)}"
    if not references.classes and not references.is_contrast:
        said += "; there are no class folders, so each counts as the class that the model predicts"
    if known:
        assert references.labels is not None
        named = references.is_named
        agree = int((references.labels == references.predicted)[named].sum())
        said += f"; the model predicts the folder's class for {agree} of {int(named.sum())}"
    near = "pixels" if references.nearest_in is None else "the model's features"
    compared = "all of them" if references.is_contrast else "every class but the explained one"
    if isinstance(references.contrast, int):
        compared = f"{loaded.name(references.contrast)} only"
    return f"{said}; compared with {compared}, the nearest in {near}."


def _list(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def _says(name: str, index: int, loaded: LoadedModel) -> bool:
    try:
        return find_class("folder", name, loaded.categories) == index
    except ValueError:
        return False


def _find_contrast(folder: Path, contrast: int | str | None, loaded: LoadedModel) -> tuple[Path, int | None]:
    """The folder to read, and the class to compare with, from what ``--contrast`` says."""
    if contrast is None or isinstance(contrast, int):
        return folder, contrast
    if (folder / contrast).is_dir() and not contrast.isdigit() and image_files(folder / contrast):
        return folder / contrast, None
    try:
        return folder, find_class("--contrast", contrast, loaded.categories)
    except ValueError as error:
        if Path(contrast).is_dir():
            return Path(contrast), None
        folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
        near = f"; the folders of {folder} are: {', '.join(folders[:SHOWN])}" if folders else ""
        raise ValueError(f"{error}{near}") from None

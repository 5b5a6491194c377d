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
from absence_plugins.commands.class_folders import ClassFolders, match_folders
from absence_plugins.commands.class_names import find_class
from absence_plugins.commands.image_folder import Readable, readable
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pace import show_forwards
from absence_plugins.commands.predictions import predict_classes
from absence_plugins.commands.reading import collect, read_inputs
from absence_plugins.core.names import normal_name, read_number, spell_name
from absence_plugins.core.pooling import PHOTOGRAPH
from absence_plugins.data.folders import FoundImages, find_images, list_names
from absence_plugins.data.same_photograph import show_same

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
        folders: how the class of every subfolder was read; None: ``classes`` as they are.
        read: which files were read, and which were left out.
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
        folders: ClassFolders | None = None,
        read: Readable | None = None,
        **options: Any,
    ) -> None:
        super().__init__(images, labels, **options)
        self.folders, self.read = folders or ClassFolders(dict(classes)), read
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
            raise ValueError(
                f"no reference of {spell_name(self.folder)} is left to compare with ({reasons}); add other images"
            )
        chosen = RankedReferences(
            self.images[0][nearest],
            ranked_for=x,
            empty=self.empty[0],
            k=len(nearest),
            seed=self.seed,
            nearest_in=self.nearest_in,  # the same order
        )
        return ChosenReferences(
            chosen, self._sentences(left_out, len(nearest)), spell_name(self.files[nearest[0]].name)
        )

    def read_features(self, *, progress: bool) -> None:
        """Read the features of all references now, with a bar; later they are known."""
        if isinstance(self.nearest_in, FeatureSpace):
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
                names = ", ".join(spell_name(self.files[row].relative_to(self.folder)) for row in rows[:NAMED])
                more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
                were = "reference was" if len(rows) == 1 else "references were"
                reason = why.replace("them", "it").replace("they show", "it shows") if len(rows) == 1 else why
                said.append(f"{len(rows)} {were} left out, as {reason}: {names}{more}.")
        if count < self.k:
            said.append(f"Only {count} reference{'s are' if count > 1 else ' is'} left, fewer than --k {self.k}.")
        return tuple(said)


class RankedReferences(ReferenceSet):
    """References in the order in which they are near to one image, which is not asked about again; others are ranked as
    ever.
    """

    def __init__(self, images: Tensor, *, ranked_for: Tensor, **options: Any) -> None:
        super().__init__(images, **options)
        self.ranked_for = ranked_for

    def _ranked(self, inputs: tuple[Tensor, ...], pools: Sequence[Tensor]) -> list[Tensor]:
        is_known = len(inputs) == 1 and torch.equal(inputs[0].to(self.ranked_for), self.ranked_for)
        return list(pools) if is_known else super()._ranked(inputs, pools)


@dataclass(frozen=True, eq=False)
class ChosenReferences:
    """The references of one image, nearest first; what was left out, in sentences; and the nearest one's file."""

    references: ReferenceSet
    notes: tuple[str, ...] = ()
    nearest: str = ""

    @property
    def made(self) -> str:
        """How the reference was made from the image itself: "blurred", "grey", "inpainted"; "" of real ones."""
        return self.references.filling if isinstance(self.references, MadeReferences) else ""


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
    """References from a folder of images; its subfolders, if any, are classes
    (:func:`~absence_plugins.commands.class_folders.match_folders`).

    Files that cannot be read are left out, with a warning (:func:`~absence_plugins.commands.image_folder.readable`).

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
    walked = find_images(folder, "references folder")
    found, contrast_class = _find_contrast(walked, contrast, loaded)
    is_contrast = found is not walked
    found = found.with_class() if found.classes else found
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:max_samples].sort().values
    read = readable(
        found.take(chosen.tolist()), loaded.preprocessing.channels, has_classes=bool(found.classes), progress=progress
    )
    files = tqdm(read.files, desc="reading references", unit="image", disable=not progress)
    images = collect(read_inputs(files, loaded.preprocessing), len(read))
    predicted, count = predict_classes(loaded.model, images, progress=progress)
    named = [None if label is None else found.classes[label] for label in read.found.labels]
    pairs = [(name, index) for name, index in zip(named, predicted.tolist(), strict=True) if name is not None]
    folders = match_folders(found.classes, loaded.categories, count, pairs)
    _check_numbered(contrast, contrast_class, folders, walked)
    own = [None if name is None else folders.classes[name] for name in named]
    is_named = torch.tensor([label is not None for label in own])
    labels = torch.where(is_named, torch.tensor([label or 0 for label in own]), predicted)
    in_features = kind == "features" or (kind == "auto" and loaded.preprocessing.size > PHOTOGRAPH)
    options: dict[str, Any] = {
        "nearest_in": FeatureSpace(loaded.model) if in_features else None,
        "is_contrast": is_contrast,
        "empty": loaded.preprocessing.empty,
        "k": k,
        "contrast": contrast_class,
        "seed": seed,
    }
    references = FolderReferences(
        images,
        labels,
        files=read.files,
        folder=found.folder,
        classes=folders.classes,
        predicted=predicted,
        is_named=is_named,
        folders=folders,
        read=read,
        **options,
    )
    references.read_features(progress=progress)
    return references


def describe_references(references: FolderReferences, loaded: LoadedModel) -> str:
    """In a sentence: how many, which folder is which class, whether the model agrees, and what is compared."""
    total, known = len(references), {n: index for n, index in references.classes.items() if index is not None}
    unknown = [name for name, index in references.classes.items() if index is None]
    said = f"{total} image{'s' * (total != 1)} of {spell_name(references.folder)}"
    if known:
        how = f"folders{', ' if references.folders.note else ''}{references.folders.note}"
        said += f"; {how}: {list_names([f'{name} is {loaded.name(index)}' for name, index in known.items()], SHOWN)}"
    if unknown:
        said += f"; no class of the model, so that their images count as what it predicts: {list_names(unknown, SHOWN)}"
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


def _find_contrast(
    walked: FoundImages, contrast: int | str | None, loaded: LoadedModel
) -> tuple[FoundImages, int | None]:
    """The images to read, and the class to compare with, from what ``--contrast`` says."""
    if contrast is None or isinstance(contrast, int):
        return walked, contrast
    is_number = read_number(contrast) is not None
    if not is_number and normal_name(contrast) in walked.classes:
        return walked.of_class(normal_name(contrast)), None
    if not is_number and (walked.folder / contrast).is_dir():
        return find_images(walked.folder / contrast, "--contrast folder"), None
    try:
        return walked, find_class("--contrast", contrast, loaded.categories)
    except ValueError as error:
        if Path(contrast).is_dir():
            return find_images(contrast, "--contrast folder"), None
        near = (
            f"; the folders of {spell_name(walked.folder)} are: {list_names(walked.classes, SHOWN)}"
            if walked.classes
            else ""
        )
        raise ValueError(f"{error}{near}") from None


def _check_numbered(contrast: int | str | None, number: int | None, folders: ClassFolders, walked: FoundImages) -> None:
    """Raise ValueError where a contrast is a number that a folder has as its name, and the folder is another class."""
    name = str(contrast)
    if number is not None and name == str(number) and folders.classes.get(name, number) != number:
        own = folders.classes[name]
        is_class = "no class of the model" if own is None else f"class {own}"
        raise ValueError(
            f"--contrast {name}: class {number} of the model, or the folder {name}, which is {is_class}? Name the folder "
            f"as {spell_name(walked.folder / name)}, or the class by its name"
        )

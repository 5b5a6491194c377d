"""The images that ``absence-plugins label`` names units by, with their labels: class folders, a file of labels,
digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from absence_plugins.commands.early_checks import read_threshold
from absence_plugins.commands.image_folder import Readable, group_images, readable
from absence_plugins.commands.known_words import CHOSEN
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pace import say_line
from absence_plugins.commands.reading import read_batches
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import spell_name
from absence_plugins.data.file_names import index_paths, key_of, list_files
from absence_plugins.data.folders import FoundImages, find_images, list_names
from absence_plugins.data.groups import Groups
from absence_plugins.data.labels import ImageLabels, Synset, name_synsets, read_labels, recognize_labels
from absence_plugins.data.labels.sources import SPOKEN
from absence_plugins.data.labels.synsets import is_synset
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.identity import NOTHING, Identity, identify_data
from absence_plugins.methods.invert import ConceptScores
from absence_plugins.methods.invert.concepts import FolderConcepts, concepts_of

BATCH = 64
LISTED = 12  # concepts that were left out, by name


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with their labels.

    Attributes:
        batches: of model inputs, N images in all.
        picture: one of them, to show; None: they are no images.
        concepts: labels [N, K], or scores.
        names: of the concepts.
        source: what they are, for the page.
        left_out: what the page says of files that cannot be read; None if the images are not files.
        data: by which a checkpoint knows them.
        groups: which of them are not independent; None: each is alone.
        meanings: the synset of each concept that is one, by its name.
        noun: what the samples are.
        unit_names: of the units; () where they have numbers only.
    """

    batches: Batches
    picture: Callable[[int], Tensor] | None
    concepts: Tensor | ConceptScores
    names: tuple[str, ...]
    source: str
    left_out: Readable | None = None
    data: Identity = NOTHING
    groups: Groups | None = None
    meanings: Mapping[str, Synset] = field(default_factory=dict)
    noun: str = "images"
    unit_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.concepts)


def folder_samples(
    folder: Path,
    loaded: LoadedModel,
    attributes: Path | None = None,
    hypernyms: Path | str | None = None,
    *,
    groups: str | Path | None = None,
    batch_size: int = BATCH,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> Samples:
    """Images in class folders; attributes and hypernyms from tables. Concepts that do not vary are left out.

    So are files that are no images, with a warning (:func:`~absence_plugins.commands.image_folder.readable`).
    ``groups``: what ``--groups`` says of images that are not independent.
    """
    walked = find_images(folder, "image folder")
    if not walked.classes:
        raise ValueError(
            f"image folder {spell_name(walked.folder)} has no subfolders of images; every class needs its own, or name a file "
            "with the labels of the images: --labels FILE"
        )
    concepts_of(walked, attributes)  # rejects a bad table before anything is decoded
    files = readable(
        walked.with_class(), loaded.preprocessing.channels, known=checkpoint, has_classes=True, progress=progress
    )
    found = _expand(concepts_of(files.found, attributes), hypernyms)
    constant = (
        f"{spell_name(folder)} has one class only, so no concept varies; add a second class folder or --attributes"
    )
    return _gather(found, files, loaded, constant, groups=groups, batch_size=batch_size, progress=progress)


@dataclass(frozen=True)
class LabelFile:
    """Labels of images, as ``--labels`` and the options beside it say.

    Attributes:
        path: of the file, or the folder of Broden or CUB.
        kind: one of :data:`~absence_plugins.data.labels.sources.FORMATS`.
        threshold: of a table with probabilities or scores: present if above; "auto": chosen on the searched images.
        minus: what -1 means in a table: "absent", "unknown", or "auto".
    """

    path: Path
    kind: str = "auto"
    threshold: float | str | None = None
    minus: str = "auto"

    @classmethod
    def of(cls, path: Path, kind: str = "auto", threshold: str | None = None, minus: str = "auto") -> LabelFile:
        """As typed. Raises ValueError for a threshold that is neither a number nor auto."""
        return cls(path, kind, None if threshold is None else read_threshold(threshold), minus)


def file_samples(
    folder: Path,
    loaded: LoadedModel,
    source: LabelFile,
    hypernyms: Path | str | None = None,
    *,
    groups: str | Path | None = None,
    batch_size: int = BATCH,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> Samples:
    """Images below a folder with the labels of a file; images without labels are left out, which one line on stderr
    says.

    Concepts that do not vary are left out, and files that are no images, with a warning. ``groups``: what ``--groups``
    says.

    Raises ValueError for a file that is not understood, or that has labels of no image there.
    """
    walked = find_images(folder)
    labels, rows, said = _read_rows(walked, source)
    say_line(said)
    files = readable(
        walked.take(rows), loaded.preprocessing.channels, known=checkpoint, has_classes=False, progress=progress
    )
    concepts = labels.take([rows[place] for place in rows]).concepts[list(files.places)]
    if source.threshold == CHOSEN and hypernyms is not None:
        raise ValueError("--hypernyms need labels, and --labels-threshold auto makes them later; write a number there")
    found = _expand(FolderConcepts(concepts, labels.names, files.files), hypernyms)
    constant = (
        f"no concept of {spell_name(source.path)} is present on some of the {len(files):,} images and absent on others"
    )
    return _gather(found, files, loaded, constant, said, groups=groups, batch_size=batch_size, progress=progress)


def _read_rows(walked: FoundImages, source: LabelFile) -> tuple[ImageLabels, dict[int, int], str]:
    """Labels; the row of each image that has some, by its place; and a sentence on them."""
    places = index_paths(walked.files, walked.folder)
    kind = recognize_labels(source.path) if source.kind == "auto" else source.kind
    labels = read_labels(
        source.path,
        kind,
        threshold=source.threshold,
        minus=source.minus,
        wanted=lambda name: key_of(name) in places,
        images=list_files(walked.files, walked.folder) if kind == "invert" else (),
    )
    name = f"{spell_name(source.path)}, read as {SPOKEN[kind]}"
    if not len(labels):
        raise ValueError(
            f"{name}, has labels of no image of {spell_name(walked.folder)}, such as {walked.relative(walked.files[0])}; "
            "--images must be the folder that its names are below"
        )
    row, strange = labels.locate(walked.files, walked.folder)
    row = dict(sorted(row.items()))
    used = labels.take(list(row.values()))
    others = f" (without a file: {len(strange):,}, such as {strange[0]})" if strange else ""
    return (
        labels,
        row,
        (
            f"{name}: labels of {len(row):,} of {len(walked):,} image files{others}; {len(labels.names):,} concepts, "
            f"{used.unknown:,} of {used.concepts.numel():,} labels unknown"
        ),
    )


def _expand(found: FolderConcepts, hypernyms: Path | str | None) -> FolderConcepts:
    """With the hypernyms of a table, or of WordNet, which is said where there are none."""
    if hypernyms is None:
        return found
    expanded = found.expanded(hypernyms)
    if expanded.names == found.names:
        said = (
            f"--hypernyms {hypernyms} adds no concept to {list_names(found.names)}; its children must have these names"
        )
        warnings.warn(said, AbsenceWarning, stacklevel=2)
    return expanded


def _take_varying(found: FolderConcepts) -> FolderConcepts:
    """Only the scores [N, K] that differ between images."""
    filled = [column[~column.isnan()] for column in found.concepts.T]
    kept = [k for k, column in enumerate(filled) if len(column) and bool((column != column[0]).any())]
    return replace(found, concepts=found.concepts[:, kept], names=tuple(found.names[k] for k in kept))


def _name(found: FolderConcepts) -> tuple[FolderConcepts, dict[str, Synset]]:
    """With words in place of keys of WordNet such as n02123045, and what they mean, where a package knows them."""
    try:
        names, meanings = name_synsets(found.names)
    except ImportError as error:
        say_line(f"concepts such as {next(filter(is_synset, found.names))} keep their keys: {error}")
        return found, {}
    return replace(found, names=names), meanings


def _gather(
    found: FolderConcepts,
    files: Readable,
    loaded: LoadedModel,
    constant: str,
    said: str = "",
    *,
    groups: str | Path | None,
    batch_size: int,
    progress: bool,
) -> Samples:
    """The samples of files that can be read. constant: what is wrong where no concept varies."""
    found, meanings = _name(found)
    is_scored = not bool(((found.concepts == 0) | (found.concepts == 1) | found.concepts.isnan()).all())
    varying = _take_varying(found) if is_scored else found.varying()
    if not varying.names:
        raise ValueError(constant)
    left_out = [name for name in found.names if name not in varying.names]
    note = f"; left out, as the same for all: {list_names(left_out, LISTED)}" if left_out else ""
    prepared = loaded.preprocessing

    def read(wanted: Sequence[range]) -> Iterator[Tensor]:
        return read_batches(prepared.input, found.files, wanted)

    source = f"{len(found.files):,} images of {spell_name(files.folder)}, {len(varying.names)} concepts{note}"
    data = identify_data(files) | Identity({"batch_size": batch_size})
    pictures = (Batches(len(found.files), batch_size, read), lambda i: prepared.picture(found.files[i]))
    grouped = group_images(files, groups, progress)
    source += f". {said}" if said else ""
    concepts = ConceptScores(varying.concepts) if is_scored else varying.concepts
    return Samples(*pictures, concepts, varying.names, source, files, data, grouped, meanings)


def digit_samples(loaded: LoadedModel, *, batch_size: int = 256) -> Samples:
    """The bundled handwritten digits with their classes and strokes."""
    from absence_plugins.data import load_digits
    from absence_plugins.data.digit_strokes import stroke_concepts

    digits = load_digits()
    images = digits.images
    concepts, names = stroke_concepts(digits.labels)
    normalize = loaded.preprocessing.normalize
    source = f"{len(images):,} handwritten digits, {len(names)} concepts: ten classes and the strokes most people write them with; the bundled model was trained on {len(digits.train_images):,} of the images"
    return Samples(
        Batches(len(images), batch_size, lambda wanted: (normalize(images[part.start : part.stop]) for part in wanted)),
        lambda i: images[i],
        concepts,
        tuple(names),
        source,
        data=identify_data(images) | Identity({"batch_size": batch_size}),
    )

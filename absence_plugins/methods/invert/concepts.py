"""Labels from what people have: a folder of classes, a table of their attributes, a table of child and parent."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import spell_name
from absence_plugins.data.folders import FoundImages, find_images
from absence_plugins.data.labels import find_parents, read_invert_parents, stack_truths
from absence_plugins.data.same_names import describe_missing, match_names, unify_names
from absence_plugins.data.tables import decide_minus, read_columns, read_pairs, read_truth
from absence_plugins.methods.invert.inputs import Truth, as_truth, check_names

WORDNET = "wordnet"
Parents = Mapping[str, str | Iterable[str]]


@dataclass(frozen=True, eq=False, repr=False)
class FolderConcepts:
    """Labels of the images below a folder.

    Attributes:
        concepts: [N, K] bool; with unknown attributes float64 and NaN.
        names: of the K concepts: the classes, then their attributes.
        files: the N images, in the order of torchvision's ``ImageFolder``.
    """

    concepts: Tensor
    names: tuple[str, ...]
    files: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"FolderConcepts({len(self.files)} images, {len(self.names)} concepts)"

    def varying(self) -> FolderConcepts:
        """Only the concepts that hold on some images and not on all, which is what ``label_units`` takes."""
        truth = as_truth(self.concepts)
        kept = (truth.true.any(0) & truth.false.any(0)).nonzero()[:, 0].tolist()
        return replace(self, concepts=self.concepts[:, kept], names=tuple(self.names[k] for k in kept))

    def expanded(self, parents: Any) -> FolderConcepts:
        """With :func:`expand_hypernyms`."""
        concepts, names = expand_hypernyms(self.concepts, self.names, parents)
        return replace(self, concepts=concepts, names=names)

    def to_dict(self) -> dict[str, Any]:
        """Concepts (not copied), names and files by name."""
        return {"concepts": self.concepts, "names": list(self.names), "files": [str(file) for file in self.files]}


def concepts_from_folder(folder: str | Path, attributes: str | Path | None = None) -> FolderConcepts:
    """Every subfolder is a class and a concept; a table of attributes adds one concept per column.

    Args:
        folder: one subfolder per class, images in it or below it: see
            :func:`~absence_plugins.data.folders.find_images`. The samples come in the order of torchvision's
            ``ImageFolder``, so activations collected with it fit where nothing is left out.
        attributes: a table with a header (CSV, TSV or JSON in any usual encoding:
            :func:`~absence_plugins.data.tables.read_table`); the first column names the class, every other one is an
            attribute: 0 or 1, true or false, yes or no, blank where unknown. -1 is absent in a table without a 0, else
            unknown (:func:`~absence_plugins.data.tables.decide_minus`), with a warning. Names may differ from the
            folders' in case and composition. Rows of classes that are not in the folder are passed over.

    Warns:
        AbsenceWarning: what was left out: hidden folders, other files, images beside the class folders, ...

    Raises:
        ValueError: no such folder, no subfolders of images, an attribute that is not understood or has a class's name,
            a class that the table lacks or has twice.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         _ = (Path(folder) / name).mkdir(), (Path(folder) / name / "1.png").touch()
    ...     found = concepts_from_folder(folder)
    >>> found.names, found.concepts.int().tolist()
    (('cat', 'dog'), [[1, 0], [0, 1]])
    """
    found = find_images(folder, "image folder")
    concepts = concepts_of(found, attributes)
    for note in (*found.notes, *found.class_notes):
        warnings.warn(note, AbsenceWarning, stacklevel=2)
    return concepts


def concepts_of(found: FoundImages, attributes: str | Path | None = None) -> FolderConcepts:
    """As :func:`concepts_from_folder`, of the images that were found in a folder, without a warning.

    Raises ValueError if none of them lies in a subfolder, and for a bad table of attributes.
    """
    if not found.classes:
        raise ValueError(
            f"image folder {spell_name(found.folder)} has no subfolders of images; every class needs its own"
        )
    found = found.with_class()
    member = torch.tensor([label for label in found.labels if label is not None])
    concepts = member[:, None] == torch.arange(len(found.classes))
    names = list(found.classes)
    if attributes is not None:
        columns, table = _attributes(Path(attributes), found.classes)
        concepts = torch.cat([concepts.to(table.dtype), table[member]], 1)
        names += columns
    return FolderConcepts(concepts, tuple(names), found.files)


def expand_hypernyms(concepts: Any, names: Sequence[str], parents: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Add what the concepts are kinds of: a parent holds wherever one of its children does, over all generations.

    Where none of its children is known to hold and one is unknown, the parent is unknown, unless it has a label itself.

    Args:
        concepts: [N, K] of 0, 1 and, where unknown, NaN.
        names: of the K concepts.
        parents: a mapping from child to its parent or parents; or a table (CSV, TSV or JSON) of child,parent, one pair
            per line, with or without a header; or INVERT's JSON with the ``hypernyms`` of its entries; or "wordnet",
            for names such as n02123045 (:func:`~absence_plugins.data.labels.find_parents`); or a NetworkX graph with
            edges from child to parent. It may know more concepts than ``names``.

    Returns:
        Labels [N, K + M], bool if all are known, and names. The parents follow the concepts, those of the first concept
        first, nearest first. A parent that is itself among ``names`` gains its children's samples. Parents that fail on
        no sample, such as "entity", are left out.

    Raises:
        ValueError: a cycle, a line without child and parent, labels other than 0, 1 and NaN.

    >>> labels, names = expand_hypernyms([[1, 0, 0], [0, 1, 0], [0, 0, 1]], ["cat", "dog", "car"], {"cat": "pet", "dog": "pet"})
    >>> names, labels[:, 3].tolist()
    (('cat', 'dog', 'car', 'pet'), [True, True, False])
    """
    labels = as_truth(concepts)
    known = check_names(names, labels.true.shape[1])
    graph = _parents(parents, known)
    column = {name: k for k, name in enumerate(known)}
    members: dict[str, set[int]] = {}
    for name in known:
        for ancestor in _ancestors(name, graph):
            members.setdefault(ancestor, set()).add(column[name])
    added: list[str] = []
    true, false = list(labels.true.T), list(labels.false.T)
    for ancestor, children in members.items():
        below = labels[:, sorted(children)]
        holds, fails = below.true.any(1), below.false.all(1)
        if ancestor in column:
            own = column[ancestor]
            true[own], false[own] = true[own] | holds, false[own] & ~holds
        elif bool(fails.any()):
            added.append(ancestor)
            true.append(holds)
            false.append(fails)
    return Truth(torch.stack(true, 1), torch.stack(false, 1)).values(), (*known, *added)


def _attributes(path: Path, classes: Sequence[str]) -> tuple[list[str], Tensor]:
    """Names of the attributes and their values, [classes, attributes]: bool, or with NaN where they are unknown."""
    table = read_columns(path, "class", classes, what="attribute")
    is_absent, noted = decide_minus(
        (cell for cells in table.cells.values() for cell in cells),
        table.table,
        remedy="write 0 for absent and leave the cell blank for unknown",
    )
    values = {}
    for key, cells in table.cells.items():  # of classes that are not in the folder, too: a slip there is a slip here
        where = [partial(table.where, key, column) for column in range(len(cells))]
        values[key] = [read_truth(cell, place, is_absent=is_absent) for cell, place in zip(cells, where, strict=True)]
    rows = match_names(classes, table.cells)
    for name in classes:
        if name not in rows:
            near = describe_missing(name, table.cells)
            raise ValueError(f"table {path} lacks the class {name!r}; {near}; add its line, or remove its folder")
    noted.warn()
    return list(table.names), stack_truths([values[rows[name]] for name in classes])


def _parents(parents: Any, names: Sequence[str]) -> dict[str, list[str]]:
    if parents == WORDNET:
        return find_parents(names)
    if isinstance(parents, (str, Path)):
        found = read_invert_parents(parents)
        if found is not None:
            return found
        graph: dict[str, list[str]] = {}
        for child, parent in unify_names(read_pairs(parents, "child", "parent", names), names):
            graph.setdefault(child, []).append(parent)
        return graph
    if isinstance(parents, Mapping):
        return {child: [own] if isinstance(own, str) else list(own) for child, own in parents.items()}
    if hasattr(parents, "edges"):  # a NetworkX graph
        graph = {}
        for child, parent in parents.edges():
            graph.setdefault(child, []).append(parent)
        return graph
    raise TypeError(f"parents must be a mapping, a CSV file or a graph with edges, got {type(parents).__name__}")


def _ancestors(name: str, graph: Mapping[str, Sequence[str]]) -> list[str]:
    """All of a concept's ancestors, nearest first. Raises ValueError for a cycle."""
    found: dict[str, None] = {}
    current = [name]
    while current := [p for p in dict.fromkeys(p for child in current for p in graph.get(child, ())) if p not in found]:
        found |= dict.fromkeys(current)
    try:
        TopologicalSorter({child: graph.get(child, ()) for child in (name, *found)}).prepare()
    except CycleError as error:
        raise ValueError(
            f"the table of parents has a cycle: {' -> '.join(error.args[1])}; remove one of its lines"
        ) from None
    return list(found)

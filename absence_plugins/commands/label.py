"""``absence-plugins label``: names for all units of a layer, and which of them have a NOT."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from absence_plugins.commands.label_page import SHOWN, Q, count_named, label_page, say_worths
from absence_plugins.commands.label_samples import LabelFile, Samples, digit_samples, file_samples, folder_samples
from absence_plugins.commands.layers import named_layer, say
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pace import estimating, say_expected, time_forward
from absence_plugins.core.checks import check_integer
from absence_plugins.core.devices import device_of
from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.table import write_csv
from absence_plugins.core.units import Layer, LayerShape
from absence_plugins.data.folders import list_names
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.identity import Identity, digest_of, identify_model
from absence_plugins.methods.invert import ConceptScores, UnitLabel, UnitLabels, label_units
from absence_plugins.methods.kept_rows import KeptRows
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.ranks import alone, is_first, ranks
from absence_plugins.report import write_page


@dataclass(frozen=True, eq=False)
class LayerLabels:
    """What the command found: the labels, the units with a NOT, strongest first, how the layer was read, and where it
    was written.
    """

    labels: UnitLabels
    absent: tuple[UnitLabel, ...]
    read: LayerShape
    page: Path

    def summary(self, most: int | None = None) -> str:
        """How many units are named, and those with a NOT, strongest first, with what it is worth: at most ``most``.

        Where a proof was asked for and not reached, how far the search came.
        """
        head = [f"{self.read.layer or 'output'}: {count_named(self.labels)}"]
        if self.labels.settings["search"] == "certified" and not all(one.certified for one in self.labels):
            head.append(f"  {self.labels.certainty}")
        lines = [f"  unit {one.unit}: {one.best.formula}   {say_worths(one)}" for one in self.absent[:most]]
        others = len(self.absent) - len(lines)
        return "\n".join([*head, *lines, *([f"  and {others} more: see labels.txt and the page"] if others else [])])


def label_layer(
    loaded: LoadedModel,
    layer: str | Layer,
    samples: Samples,
    out: Path,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    command: str = "",
    progress: bool = True,
    **options: Any,
) -> LayerLabels | None:
    """Name every unit of a layer; write ``index.html``, ``labels.csv``, ``labels.json`` and ``labels.txt`` to ``out``.

    Under ``torchrun`` the ranks share out the images; rank 0 names and writes, and the others get None.

    A channel counts with its mean (or another ``reduce`` of the :class:`~absence_plugins.Layer`) over positions, before
    the nonlinearity. ``options`` are those of ``label_units``. Model and random state are as before. ``checkpoint``: a
    folder for the values, which are computed once.

    Raises:
        ValueError: a layer that does not exist or does not run, a reduction that is not known, values that are NaN,
            and whatever ``label_units`` rejects.
    """
    out = require_folder(out)
    at = Layer.of(layer)
    device = device_of(loaded.model)
    shape = at.shape(loaded.model, samples.batches.first()[:1].to(device))
    say(shape)
    values = read_layer(loaded.model, at, samples, checkpoint=checkpoint, progress=progress)
    if not is_first():
        return None
    with alone():
        return write_labels(
            values, samples, shape, loaded.notes, out, seed=seed, command=command, progress=progress, **options
        )


def write_labels(
    values: Tensor,
    samples: Samples,
    shape: LayerShape,
    notes: tuple[str, ...],
    out: Path,
    *,
    seed: int = 0,
    command: str = "",
    progress: bool = True,
    **options: Any,
) -> LayerLabels:
    """Name units by their values [N, U] on the samples; write ``index.html``, ``labels.csv``, ``.json`` and ``.txt``.

    notes: on the model, for the page; ``options`` are those of ``label_units``.

    Raises:
        ValueError: whatever ``label_units`` rejects.
    """
    groups = None if samples.groups is None else samples.groups.tensor()
    labels = label_units(
        values, samples.concepts, samples.names, seed=seed, groups=groups, progress=progress, **options
    )
    if isinstance(samples.concepts, ConceptScores):
        thresholds = labels.settings["thresholds"]
        said = list_names([f"{name} {value:.3g}" for name, value in thresholds.items()], SHOWN)
        source = f"{samples.source}. Present above, as chosen on the searched images: {said}"
        samples = replace(samples, concepts=samples.concepts.apply(list(thresholds.values())), source=source)
    absent = tuple(labels.with_not(Q))
    left_out = () if samples.left_out is None else samples.left_out.notes
    grouped = (samples.groups.note,) if samples.groups is not None and samples.groups.note else ()
    notes = (*notes, *left_out, *grouped)
    page = write_page(label_page(labels, shape, samples, values, notes, seed, command), out)
    if samples.left_out is not None:
        samples.left_out.write(out)
    if samples.meanings:
        meant = [(name, one.key, one.gloss) for name, one in samples.meanings.items()]
        write_whole(out / "concepts.csv", write_csv([("concept", "synset", "gloss"), *meant]))
    labels.to_csv(out / "labels.csv")
    labels.to_json(out / "labels.json")
    found = LayerLabels(labels, absent, shape, page)
    named = "".join(f"unit {number}: {name}\n" for number, name in enumerate(samples.unit_names))
    write_whole(out / "labels.txt", f"{labels.table()}\n\n{found.summary()}\n{named}")
    return found


def read_layer(
    model: nn.Module,
    layer: str | Layer,
    samples: Samples,
    *,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> Tensor:
    """Every unit of a layer on every sample: [N, U] on the CPU; of several ranks the first gets them.

    checkpoint: a folder in which they are kept, every minute and at the end; what is there is not computed again.
    Raises ValueError for the values of another model, layer, way of reading it, or other images.
    """
    at = Layer.of(layer)
    keeper = None
    with own_folder(checkpoint):
        if checkpoint is not None:
            first = samples.batches.first()
            how = {"reduce": at.reduce, "channels": at.channels, "side": at.side}
            settings = {"layer": at.name, **how, "images": len(samples)}
            belongs = samples.data | Identity({"pixels": digest_of(first)}) | identify_model(model, first[:1], at)
            keeper = Checkpoint(checkpoint, settings, "labelling", belongs=belongs)
        with KeptRows(keeper, len(samples)) as kept:
            if progress and is_first() and len(kept) < len(samples):
                _say_expected(model, at, samples, len(samples) - len(kept))
            return layer_values(model, at, samples.batches, kept=kept, first_only=True, progress=progress)


def _say_expected(model: nn.Module, layer: Layer, samples: Samples, count: int) -> None:
    """How long ``count`` images take, as the first batch does; each of several ranks its share."""
    with estimating(), layer.reading(model) as run:
        start = time.perf_counter()
        batch = samples.batches.first()
        seconds = (time.perf_counter() - start) / len(batch) + time_forward(run, batch.to(device_of(model)))
        shorter = ["fewer images", "a smaller --size"]
        say_expected(count * seconds / ranks()[1], f"running {layer} on {count:,} images", shorter)


def run_label(
    loaded: LoadedModel,
    layer: str,
    out: Path,
    *,
    images: Path | None = None,
    attributes: Path | None = None,
    labels: LabelFile | None = None,
    hypernyms: Path | str | None = None,
    groups: str | Path | None = None,
    is_digits: bool = False,
    reduce: str = "mean",
    channels: str = "auto",
    batch_size: int | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
    **options: Any,
) -> LayerLabels | None:
    """The command: samples from a folder, or the bundled digits where the model is that of the digits and no folder is
    named.

    Raises:
        ValueError: no folder for another model, tables without a folder, and what :func:`label_layer` rejects.
    """
    given = {} if batch_size is None else {"batch_size": check_integer("--batch-size", batch_size)}
    at = named_layer(loaded.model, layer, reduce, channels)
    if images is None:
        if attributes is not None or hypernyms is not None or labels is not None:
            raise ValueError("--labels, --attributes and --hypernyms describe --images; name that folder too")
        if groups is not None:
            raise ValueError("--groups describes the files of a folder of images; name that folder too")
        if not is_digits:
            raise ValueError(
                "--images must name a folder with one subfolder of images per class (only --model digits brings its "
                "own)"
            )
        samples = digit_samples(loaded, **given)
    else:
        reading: dict[str, Any] = {"groups": groups, "checkpoint": checkpoint, "progress": progress, **given}
        if labels is not None:
            samples = file_samples(Path(images), loaded, labels, hypernyms, **reading)
        else:
            samples = folder_samples(Path(images), loaded, attributes, hypernyms, **reading)
    found = label_layer(loaded, at, samples, out, checkpoint=checkpoint, progress=progress, **options)
    return None if found is None else replace(found, page=found.page.resolve())

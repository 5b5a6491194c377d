"""Commands about the units of a layer: ``patches``, ``label``, ``directions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from absence_plugins.cli.app import app, clear_errors, command_line, load, say, two_channels, unit_numbers
from absence_plugins.cli.options import (
    Attributes,
    Groups,
    Hypernyms,
    Labels,
    LabelsFormat,
    LabelsMinus,
    LabelsThreshold,
    LayerChannels,
    Mean,
    MinSupport,
    Model,
    NameBudget,
    NameScore,
    NameSearch,
    Page,
    Patch,
    PatchesPerForward,
    PatchesPerSide,
    Prefer,
    Quiet,
    Reduce,
    ScanMode,
    Seed,
    Size,
    Std,
    Stride,
    Weights,
    Workers,
)
from absence_plugins.cli.ranked import is_first_rank

STRONGEST = 5  # units that `label` prints; all are in its files


@app.command()
def patches(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of images; none: the bundled digits.", show_default=False)
    ] = None,
    model: Model = "digits",
    weights: Weights = "none",
    layer: Annotated[str | None, typer.Option(help="As in model.named_modules(); of a ReLU its input is read.")] = None,
    units: Annotated[str | None, typer.Option(help="Unit numbers, for example 0,5,8-15; default: all.")] = None,
    patch: Patch = None,
    stride: Stride = None,
    k: PatchesPerSide = 8,
    mode: ScanMode = None,
    reduce: Reduce = "mean",
    images_per_unit: Annotated[int, typer.Option(help="Images that the test pastes into, per unit.")] = 100,
    protocol: Annotated[str, typer.Option(help="controlled, or paper.")] = "controlled",
    groups: Groups = None,
    out: Page = Path("absence-patches"),
    show: Annotated[int, typer.Option(help="Units on the page, the encoded absences first.")] = 12,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for what is done: run the command again to resume.")
    ] = None,
    batch_size: PatchesPerForward = None,
    size: Size = None,
    channels: LayerChannels = "auto",
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Highest and lowest patches of every unit of a layer, with the insertion test, as one page."""
    with clear_errors():
        from dataclasses import replace

        from absence_plugins.commands.patches import default_scan, patches_page

        pixels, axis = two_channels(channels)
        loaded = load(model, weights, size, pixels, mean, std)
        given = {"size": patch, "stride": stride, "mode": mode, "batch_size": batch_size}
        scan = replace(
            default_scan(model == "digits"),
            k=k,
            reduce=reduce,
            channels=axis,
            units=unit_numbers(units),
            images_per_unit=images_per_unit,
            protocol=protocol,
            checkpoint=checkpoint,
            workers=workers,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
        command = command_line()
        path = patches_page(
            loaded, folder, layer, scan, out, groups=groups, shown=show, command=command, progress=not quiet
        )
        say(path.resolve())


@app.command()
def label(
    model: Model = "digits",
    layer: Annotated[
        str, typer.Option(help="As in model.named_modules(); of a ReLU its input is read; '' is the output.")
    ] = "linear1",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a subfolder of images per class, or any with --labels; the digits model brings its own."
        ),
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(
            help="Values of units in a file, in place of images and a model: .npy [N, units], or a table with a column per unit; with --labels."
        ),
    ] = None,
    attributes: Attributes = None,
    labels: Labels = None,
    labels_format: LabelsFormat = "auto",
    labels_threshold: LabelsThreshold = None,
    labels_minus: LabelsMinus = "auto",
    hypernyms: Hypernyms = None,
    groups: Groups = None,
    weights: Weights = "none",
    length: Annotated[int, typer.Option(help="Most concepts in a name; up to 4 can be certified.")] = 3,
    score: NameScore = "auc",
    prefer: Prefer = "short",
    search: NameSearch = "auto",
    budget: NameBudget = 2e8,
    beam: Annotated[int, typer.Option(help="Width of the search beyond pairs of concepts.")] = 5,
    min_support: MinSupport = None,
    min_fraction: Annotated[float, typer.Option(help="Least share of the images on which a name holds.")] = 0.01,
    max_fraction: Annotated[
        float, typer.Option(help="Largest share; 1.0 admits names that fail on a handful of images only.")
    ] = 0.99,
    mode: Annotated[str, typer.Option(help="positive (names where a unit is high) or negative (low).")] = "positive",
    exact_pairs: Annotated[bool, typer.Option(help="Search all pairs of concepts.")] = True,
    holdout: Annotated[float, typer.Option(help="Share of the images that judge and are not searched.")] = 0.5,
    top: Annotated[int, typer.Option(help="Names per unit.")] = 5,
    reduce: Reduce = "mean",
    out: Annotated[Path, typer.Option(help="Folder for the page, labels.csv and labels.json.")] = Path("absence-label"),
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the units' values: run the command again to resume.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per forward; default 64 (digits 256).")] = None,
    size: Size = None,
    channels: LayerChannels = "auto",
    mean: Mean = None,
    std: Std = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Name every unit of a layer by concepts with AND, OR and NOT; says what each NOT is worth."""
    with clear_errors():
        from absence_plugins.commands.label import run_label
        from absence_plugins.commands.label_samples import LabelFile

        options: dict[str, Any] = {
            "length": length,
            "score": score,
            "prefer": prefer,
            "search": search,
            "budget": budget,
            "beam": beam,
            "min_support": min_support,
            "min_fraction": min_fraction,
            "max_fraction": max_fraction,
            "mode": mode,
            "exact_pairs": exact_pairs,
            "holdout": holdout,
            "top": top,
            "seed": seed,
            "command": command_line(),
            "progress": not quiet,
        }
        if values is not None and labels is not None:
            from absence_plugins.commands.label_values import run_label_values

            found = run_label_values(values, labels, out, minus=labels_minus, **options) if is_first_rank() else None
        else:
            pixels, axis = two_channels(channels)
            loaded = load(model, weights, size, pixels, mean, std)
            found = run_label(
                loaded,
                layer,
                out,
                images=images,
                attributes=attributes,
                labels=None if labels is None else LabelFile.of(labels, labels_format, labels_threshold, labels_minus),
                hypernyms=hypernyms,
                groups=groups,
                is_digits=model == "digits",
                reduce=reduce,
                channels=axis,
                checkpoint=checkpoint,
                batch_size=batch_size,
                **options,
            )
        if found is not None:  # of several ranks the first has it
            if not quiet:
                say(found.summary(STRONGEST))
            say(found.page)


@app.command()
def directions(
    images: Annotated[Path, typer.Argument(help="Folder of images; labels are not needed.", show_default=False)],
    layer: Annotated[str, typer.Option(help="As in model.named_modules(), for example layer4.", show_default=False)],
    count: Annotated[int, typer.Option(help="Number of directions; too many are reported.")] = 16,
    model: Model = "torchvision:resnet18",
    weights: Weights = "none",
    out: Page = Path("absence-directions"),
    most: Annotated[int, typer.Option(help="Images that are read at most, drawn at random.")] = 2000,
    background: Annotated[
        str, typer.Option(help="none, virtual, or detectors; the last two with --recipe paper only.")
    ] = "none",
    recipe: Annotated[str, typer.Option(help="robust, or paper.")] = "robust",
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps of each stage, with --recipe paper; default: as published.")
    ] = None,
    head: Annotated[
        bool, typer.Option(help="Choose and order directions by what the network behind the layer does with them.")
    ] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for features and directions: run the command again to resume.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward.")] = 64,
    groups: Groups = None,
    size: Size = None,
    channels: LayerChannels = "auto",
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Concepts that a layer of your model writes, found without labels, and the outputs that encode their absence."""
    with clear_errors():
        from absence_plugins.commands.directions import Fit, model_directions
        from absence_plugins.core.units import Layer

        pixels, axis = two_channels(channels)
        loaded = load(model, weights, size, pixels, mean, std)
        fit = Fit(count, most, background, recipe, head, seed, batch_size, groups, {"steps": steps})
        path = model_directions(
            images,
            loaded,
            layer if axis == "auto" else Layer(layer, channels=axis),  # type: ignore[arg-type]
            out,
            fit,
            checkpoint=checkpoint,
            command=command_line(),
            progress=not quiet,
        )
        say(path.resolve())

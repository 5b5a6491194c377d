"""The command ``report``: everything about the units that encode an absence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, command_line, load, say, two_channels, unit_numbers
from absence_plugins.cli.options import (
    Attributes,
    Groups,
    LayerChannels,
    Mean,
    Model,
    Patch,
    PatchesPerForward,
    PatchesPerSide,
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


@app.command()
def report(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of images, subfolders are concepts; none: the bundled digits.", show_default=False),
    ] = None,
    model: Model = "digits",
    weights: Weights = "none",
    layer: Annotated[
        str | None, typer.Option(help="As in model.named_modules(); of a ReLU its input is read; digits: conv3.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit numbers, for example 0,5,8-15; only these are tested and reported.")
    ] = None,
    top: Annotated[int, typer.Option(help="Without --units: so many, the strongest encoded absences first.")] = 5,
    attributes: Attributes = None,
    groups: Groups = None,
    directions: Annotated[int, typer.Option(help="Fit so many directions and see which hold a unit down.")] = 0,
    directions_layer: Annotated[
        str | None, typer.Option(help="Their layer; default: the units' own (digits: the one in front).")
    ] = None,
    skip: Annotated[
        str | None, typer.Option(help="Leave out: maps, pictures, name, faithfulness; comma-separated.")
    ] = None,
    scored: Annotated[int, typer.Option(help="Images on which the maps are scored; 0 for none.")] = 8,
    patch: Patch = None,
    stride: Stride = None,
    k: PatchesPerSide = 8,
    mode: ScanMode = None,
    reduce: Reduce = "mean",
    images_per_unit: Annotated[
        int | None, typer.Option(help="Images that the test pastes into; default 100 (digits 60).")
    ] = None,
    batch_size: PatchesPerForward = None,
    out: Annotated[Path, typer.Option(help="Folder for the pages, their JSON, and the state to resume from.")] = Path(
        "absence-report"
    ),
    size: Size = None,
    channels: LayerChannels = "auto",
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Everything about the units that encode an absence: one page, or one page per unit with an index.

    Run the same command again to resume it after it was stopped.
    """
    with clear_errors():
        from dataclasses import replace

        from absence_plugins.commands.patches import default_scan
        from absence_plugins.commands.report import Wanted, run_report

        wanted = Wanted(
            unit_numbers(units),
            top,
            directions,
            directions_layer,
            tuple(part.strip() for part in (skip or "").split(",") if part.strip()),
            scored,
        )
        pixels, axis = two_channels(channels)
        loaded = load(model, weights, size, pixels, mean, std)
        given = {
            "size": patch,
            "stride": stride,
            "mode": mode,
            "images_per_unit": images_per_unit,
            "batch_size": batch_size,
        }
        scan = replace(
            default_scan(model == "digits"),
            k=k,
            reduce=reduce,
            channels=axis,
            workers=workers,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
        path = run_report(
            loaded,
            layer,
            scan,
            wanted,
            out,
            folder=folder,
            attributes=attributes,
            groups=groups,
            is_digits=model == "digits",
            command=command_line(),
            progress=not quiet,
        )
        say(path.resolve())

"""The command ``report``: everything about the units that encode an absence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, numbers, unit_numbers


@app.command()
def report(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of images, subfolders are concepts; none: the bundled digits.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option(help="torchvision:NAME, module:factory, or digits.")] = "digits",
    weights: Annotated[
        str, typer.Option(help="A file (safetensors or state dict), DEFAULT (torchvision's), or none.")
    ] = "none",
    layer: Annotated[
        str | None, typer.Option(help="As in model.named_modules(), in front of a ReLU; digits: conv3.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit numbers, for example 0,5,8-15; only these are tested and reported.")
    ] = None,
    top: Annotated[int, typer.Option(help="Without --units: so many, the strongest encoded absences first.")] = 5,
    attributes: Annotated[Path | None, typer.Option(help="CSV: class,ATTRIBUTE,... with 0 or 1 per class.")] = None,
    directions: Annotated[int, typer.Option(help="Fit so many directions and see which hold a unit down.")] = 0,
    directions_layer: Annotated[
        str | None, typer.Option(help="Their layer; default: the units' own (digits: the one in front).")
    ] = None,
    skip: Annotated[
        str | None, typer.Option(help="Leave out: maps, pictures, name, faithfulness; comma-separated.")
    ] = None,
    scored: Annotated[int, typer.Option(help="Images on which the maps are scored; 0 for none.")] = 8,
    patch: Annotated[int | None, typer.Option(help="Side of a patch in pixels; default 64 (digits 12).")] = None,
    stride: Annotated[int | None, typer.Option(help="Step of the grid in pixels; default 16 (digits 4).")] = None,
    k: Annotated[int, typer.Option(help="Patches per unit and side.")] = 8,
    mode: Annotated[
        str | None, typer.Option(help="crop, or mask for networks of a fixed input size; default crop (digits mask).")
    ] = None,
    reduce: Annotated[str, typer.Option(help="Over positions or tokens: mean, max, min or cls.")] = "mean",
    images_per_unit: Annotated[
        int | None, typer.Option(help="Images that the test pastes into; default 100 (digits 60).")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches per forward; default 128 (digits 256).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pages, their JSON, and the state to go on from.")] = Path(
        "absence-report"
    ),
    size: Annotated[
        int | None, typer.Option(help="Side of the model's input; default: 224, or the model's own.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grayscale models; default 3.")] = None,
    mean: Annotated[str | None, typer.Option(help="Normalization, comma-separated, as in patches.")] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that read images ahead.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Everything about the units that encode an absence: one page, or one page per unit with an index.

    Run the same command again to go on after it was stopped.
    """
    with clear_errors():
        from dataclasses import replace

        from absence_plugins.experiments.loading import load_model
        from absence_plugins.experiments.own_patches import default_scan
        from absence_plugins.experiments.unit_report import Wanted, run_report

        wanted = Wanted(
            unit_numbers(units),
            top,
            directions,
            directions_layer,
            tuple(part.strip() for part in (skip or "").split(",") if part.strip()),
            scored,
        )
        loaded = load_model(
            model, weights, size=size, channels=channels, mean=numbers("--mean", mean), std=numbers("--std", std)
        )
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
            is_digits=model == "digits",
            command="absence-plugins " + " ".join(sys.argv[1:]),
            progress=not quiet,
        )
        typer.echo(path.resolve())

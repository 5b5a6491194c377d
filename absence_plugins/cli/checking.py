"""The command ``check``: what works on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, load, say
from absence_plugins.cli.options import Channels, Mean, Quiet, Size, Std, Weights


@app.command()
def check(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME, timm:NAME, hf:FOLDER, module:factory, digits, or efficientnet-lite0.",
            show_default=False,
        ),
    ],
    image: Annotated[Path | None, typer.Argument(help="An image file; none: a made image.", show_default=False)] = None,
    weights: Weights = "none",
    size: Size = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
    every_layer: Annotated[bool, typer.Option("--all", help="All layers, not only the outer ones.")] = False,
    budget: Annotated[float, typer.Option(help="Seconds after which no further method is tried.")] = 20.0,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """What works on your model: its outputs, its layers, and every method tried on one image. Run this first."""
    with clear_errors():
        from json import dumps

        from absence_plugins.commands.check import check_loaded

        loaded = load(model, weights, size, channels, mean, std)
        found = check_loaded(loaded, image, name=model, budget=budget, every_layer=every_layer, progress=not quiet)
        say(dumps(found.to_dict(), indent=1) if json else found.table())

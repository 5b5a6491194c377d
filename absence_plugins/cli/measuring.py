"""Commands that measure: ``experiment`` and ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, numbers, say, unit_numbers
from absence_plugins.cli.options import Quiet
from absence_plugins.cli.ranked import is_first_rank
from absence_plugins.commands.known_words import BENCHES


@app.command()
def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="reichardt, colored-pixels, digits, imagenet, debias, directions-synthetic, or directions-digits.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the page; default: absence-NAME.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images (imagenet; debias: of two classes).")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file (imagenet, debias).")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="vgg19, resnet50 or vit_b_16 (imagenet); any of torchvision, or module:factory (debias with --data)."
        ),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="controlled, or paper (imagenet).")] = None,
    units: Annotated[str | None, typer.Option(help="Unit numbers, for example 0,5,8-15 (imagenet).")] = None,
    images_per_unit: Annotated[int | None, typer.Option(help="Images pasted into, per unit (imagenet).")] = None,
    stride: Annotated[int | None, typer.Option(help="Step of the grid; published: 16 (imagenet).")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder for what is done: run again to resume (imagenet, digits; debias keeps it in --out)."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images or patches per forward (imagenet, debias with --data).")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images ahead (imagenet, debias).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every training (debias with --data).")] = None,
    strengths: Annotated[
        str | None, typer.Option(help="Weights of the prior, comma-separated (debias with --data).")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the model's input (debias with --data).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of data sets (directions-synthetic).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; default 0.")] = None,
    quiet: Quiet = False,
) -> None:
    """A published experiment: writes a page and results.json, prints the page's path."""
    with clear_errors():
        from absence_plugins.experiments.registry import run_experiment

        path = run_experiment(
            name,
            out or Path(f"absence-{name}"),
            data=data,
            weights=weights,
            model=model,
            protocol=protocol,
            units=unit_numbers(units),
            images_per_unit=images_per_unit,
            stride=stride,
            checkpoint=checkpoint,
            batch_size=batch_size,
            workers=workers,
            epochs=epochs,
            strengths=numbers("--strengths", strengths),
            size=size,
            seeds=seeds,
            seed=seed,
            progress=not quiet,
        )
        say(path.resolve())


_BENCHES = " ".join(f"{name}: {what}." for name, what in BENCHES.items())


@app.command(
    help=f"What things cost next to their host, as ratios from one run, and what they find. {_BENCHES} Exits with 1 if a "
    "ratio is above its limit, an Absence composite misses an absence, or a sum of relevance is wrong."
)
def bench(
    host: Annotated[str, typer.Argument(help=f"{', '.join(BENCHES)}.")] = "captum",
    rounds: Annotated[int, typer.Option(help="Rounds of ours against plain; the median ratio counts.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see that it runs.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; of what is timed.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for NAME.json, with every number; of all one for each bench, as soon as it is done. planted, "
            "models, references, directions and kinds add tables and figures, and resume where they were stopped."
        ),
    ] = None,
    into: Annotated[
        list[Path] | None,
        typer.Option(
            help="Markdown file whose marked tables are replaced (planted, models, references, directions, kinds)."
        ),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--from", help="planted.json or kinds.json of an earlier run: write its tables, measure nothing."),
    ] = None,
) -> None:
    """What things cost next to their host, and what they find."""
    with clear_errors():
        from absence_plugins.bench import BENCHES as FUNCTIONS
        from absence_plugins.bench import KEEPING, write_costs

        asked = {"out": out if host in KEEPING else None, "into": into, "measured": measured}
        options = {name: value for name, value in asked.items() if value}
        result = FUNCTIONS[host](rounds=rounds, quick=quick, device=device, **options)
        if out is not None and host not in KEEPING:
            write_costs(host, result, out)
    if is_first_rank():
        typer.echo(result.table())
    raise typer.Exit(0 if result.ok else 1)

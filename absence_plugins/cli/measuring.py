"""Commands that measure: ``experiment`` and ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, numbers, say, unit_numbers
from absence_plugins.cli.options import Quiet


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


@app.command()
def bench(
    host: Annotated[
        str,
        typer.Argument(
            help="captum, zennit, lucent, patches, invert, directions, debias, planted, relevance, models, references, or kinds."
        ),
    ] = "captum",
    rounds: Annotated[int, typer.Option(help="Rounds of ours against plain; the median ratio counts.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see that it runs.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; of what is timed.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for table and figure; run the command again to resume (planted, models, references, directions, kinds)."
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
    """What the adapters cost next to their host, as ratios from one run; for zennit also what they show.

    captum: time and memory on the same work. zennit: which composite shows an absence that is known, and the time.
    lucent: time for the same picture. patches: time beyond the forwards, time and memory next to a plain script.
    invert: time next to a straightforward search. directions: which method recovers known ones.
    debias: time of a training step next to a plain one. planted: which method finds absences that are known.
    relevance: time and memory next to forward and backward of input and reference. models: on which models a method
    runs, and whether its sum is right. references: which references give the truest evidence on photographs.
    kinds: whether absences are found in tables, texts, signals, volumes and segmentations. Exits with
    1 if a ratio is above its limit, an Absence composite misses an absence, or a sum of relevance is wrong.
    """
    with clear_errors():
        from absence_plugins.bench import BENCHES

        options = {name: value for name, value in (("out", out), ("into", into)) if value}
        options |= {"measured": measured} if measured is not None else {}
        result = BENCHES[host](rounds=rounds, quick=quick, device=device, **options)
    typer.echo(result.table())
    raise typer.Exit(0 if result.ok else 1)

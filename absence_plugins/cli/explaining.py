"""Commands that explain: ``demo`` and ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, command_line, load, say
from absence_plugins.cli.options import Channels, Mean, Model, Page, Quiet, Seed, Size, Std, Weights
from absence_plugins.commands.early_checks import MADE_KINDS
from absence_plugins.commands.kinds.words import KINDS, read_rule, split_names
from absence_plugins.core.collecting import importing
from absence_plugins.core.printable import make_printable

if TYPE_CHECKING:
    from absence_plugins import ReferenceSet


@app.command()
def demo(
    out: Page = Path("absence-demo"),
    photos: Annotated[
        bool, typer.Option("--photos", help="Photographs and a trained ImageNet network instead; three minutes.")
    ] = False,
    pairs: Annotated[int | None, typer.Option(help="How many digits to show. Default: 3.", show_default=False)] = None,
    findings: Annotated[
        int | None, typer.Option(help="With --photos: how many findings to show. Default: 5.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random controls.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Encoded absences in real handwritten digits, or in photographs, as one page. No internet; digits take seconds."""
    with clear_errors():
        if photos:
            from absence_plugins.commands.demo_photos import run_demo_photos

            page = run_demo_photos(out, findings=5 if findings is None else findings, seed=seed, progress=not quiet)
        else:
            from absence_plugins.commands.demo import run_demo

            page = run_demo(out, pairs=3 if pairs is None else pairs, seed=seed, progress=not quiet)
        say(page.resolve())


@app.command()
def explain(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, or folders of them; with --table, --text, --signal or --volume what these take.",
            show_default=False,
        ),
    ],
    model: Model = "torchvision:resnet18",
    weights: Weights = "none",
    table: Annotated[bool, typer.Option("--table", help="Rows of a CSV file with a header.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Texts: a file with one per line, or CSV text,label.")] = False,
    signal: Annotated[
        bool, typer.Option("--signal", help="Signals: .npy [N, C, T] or [N, T], WAV files, or a folder of them.")
    ] = False,
    volume: Annotated[
        bool, typer.Option("--volume", help="Volumes: .npy [N, C, D, H, W], [N, D, H, W] or [D, H, W].")
    ] = False,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images to compare with; subfolders are classes. Of rows, texts, signals and volumes a file "
            "like the explained one (of sounds a folder); default: the other samples of that file."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Column of the class in the references; of .npy a table with a line per sample."),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Which rows, texts or signals, counted from 0, for example 0,5,8-15.")
    ] = None,
    most: Annotated[int, typer.Option(help="Rows, texts or signals that are explained at most.")] = 20,
    categories: Annotated[
        str | None, typer.Option(help="Columns whose values are categories though they are numbers, comma-separated.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Empty cells of a table: refuse, median (or the most frequent category), or drop.")
    ] = "refuse",
    rate: Annotated[float | None, typer.Option(help="Samples per second of --signal; WAV files say it.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the model's outputs in their order, comma-separated; not of images.")
    ] = None,
    contrast: Annotated[
        str | None,
        typer.Option(
            help="What to compare with: a class by number or name, or a folder of images; default: every class but "
            "the explained one. Of rows, texts, signals and volumes a class, or any; default: the runner-up."
        ),
    ] = None,
    reference_kind: Annotated[
        str,
        typer.Option(
            help="How the references are chosen: features (nearest in what the model's classifier sees) or pixels; "
            "without --references made from the image itself: blurred, grey, inpainted; none. auto: by measurement, "
            "for images over 64 pixels features, or blurred; else pixels, or none."
        ),
    ] = "auto",
    method: Annotated[
        str,
        typer.Option(
            help="auto (the first that is right on this model); relevance (exact; relevance:RULE for another rule); "
            "GradCam or another Captum class, for example Occlusion; a composite of Zennit, for example zennit:epsilon_gamma; or a unit to render with Lucent, "
            "lucent:LAYER:UNIT, for example lucent:layer3:7 (lucent:labels:7 is a logit)."
        ),
    ] = "auto",
    target: Annotated[str | None, typer.Option(help="Class by number or name; default: the predicted class.")] = None,
    nontarget: Annotated[
        str | None,
        typer.Option(
            help="The other output that is explained: a class by number or name, runner_up, others (their mean), "
            "margin (target minus runner-up), negated (minus the target). Default: runner_up; of a model with one "
            "output none. Of rows, texts, signals and volumes a class, runner_up or margin in place of the target.",
            show_default=False,
        ),
    ] = None,
    out: Page = Path("absence-explain"),
    k: Annotated[
        int | None, typer.Option(help="References per sample. Default: 8; of texts 1.", show_default=False)
    ] = None,
    size: Size = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of IntegratedGradients (default 50), samples of methods that draw them, or optimization steps "
            "of lucent:LAYER:UNIT (256)."
        ),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Standard, non-target and reference maps of your own model on your own images, as one page; or a unit's two
    sides. With --table, --text, --signal or --volume what rows, texts, signals or volumes have and lack.
    """
    with clear_errors():
        kind = next((name for name, is_on in zip(KINDS, (table, text, signal, volume), strict=True) if is_on), None)
        if kind is not None:
            from absence_plugins.commands.kinds import explain_kind
            from absence_plugins.commands.kinds.options import KindOptions

            said = explain_kind(
                KindOptions(
                    kind, tuple(images), model, weights, references, label, rows, most, split_names(categories), missing,
                    rate, channels, split_names(classes), target, nontarget, contrast, k, read_rule(method), seed, out,
                    command_line(), not quiet,
                )
            )  # fmt: skip
            if not quiet:
                typer.echo(make_printable(said.summary()), err=True)
            say(said.page.resolve())
            return
        with importing():
            from absence_plugins.commands.explain import explain_images
            from absence_plugins.commands.maps.explainers import check_method
            from absence_plugins.commands.references import describe_references, load_references, make_references

        is_asked = references is not None or contrast is not None or reference_kind in MADE_KINDS
        check_method(method, steps, has_references=is_asked)
        loaded = load(model, weights, size, channels, mean, std)
        notes = list(loaded.notes)
        compared: ReferenceSet | None = None
        if references is None and contrast is None:
            compared = make_references(loaded, reference_kind)
        else:
            folder = Path(str(contrast)) if references is None else references
            named = None if references is None else contrast
            compared = found_references = load_references(
                folder,
                loaded,
                k=8 if k is None else k,
                contrast=named,
                seed=seed,
                kind=reference_kind,
                progress=not quiet,
            )
            notes.append(f"References: {describe_references(found_references, loaded)}")
            if not quiet:
                typer.echo(notes[-1], err=True)
        found = explain_images(
            images,
            loaded,
            out,
            references=compared,
            method=method,
            target=target,
            nontarget=nontarget,
            steps=steps,
            seed=seed,
            notes=notes,
            command=command_line(),
            progress=not quiet,
        )
        if not quiet:
            typer.echo(found.summary(), err=True)
        say(found.page.resolve())

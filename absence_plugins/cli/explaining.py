"""Commands that explain: ``demo`` and ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, command_line, load
from absence_plugins.cli.options import Channels, Mean, Model, Page, Quiet, Seed, Size, Std, Weights


@app.command()
def demo(
    out: Page = Path("absence-demo"),
    pairs: Annotated[int, typer.Option(help="How many digits to show.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the random controls.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Encoded absences in real handwritten digits, as one page. No internet, under a minute."""
    with clear_errors():
        from absence_plugins.commands.demo import run_demo

        typer.echo(run_demo(out, pairs=pairs, seed=seed, progress=not quiet).resolve())


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    model: Model = "torchvision:resnet18",
    weights: Weights = "none",
    references: Annotated[
        Path | None, typer.Option(help="Folder of images to compare with; subfolders are classes.")
    ] = None,
    contrast: Annotated[
        int | None, typer.Option(help="Class of the references; default: any but the target's.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="relevance (exact; relevance:RULE for another rule); a Captum class, for example Occlusion; a composite of Zennit, for example zennit:epsilon_gamma; "
            "or a unit to render with Lucent, lucent:LAYER:UNIT, for example lucent:layer3:7 (lucent:labels:7 is a "
            "logit)."
        ),
    ] = "relevance",
    target: Annotated[int | None, typer.Option(help="Class index; default: the predicted class.")] = None,
    nontarget: Annotated[
        str | None,
        typer.Option(
            help="The other output that is explained: a class index, runner_up, others (their mean), margin (target "
            "minus runner-up), negated (minus the target). Default: runner_up; of a model with one output none.",
            show_default=False,
        ),
    ] = None,
    out: Page = Path("absence-explain"),
    k: Annotated[int, typer.Option(help="References per image.")] = 8,
    size: Size = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
    steps: Annotated[int, typer.Option(help="Optimization steps of lucent:LAYER:UNIT.")] = 256,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Standard, non-target and reference maps of your own model on your own images, as one page; or a unit's two
    sides.
    """
    with clear_errors():
        if method.lower().startswith("lucent:") and (target is not None or contrast is not None):
            raise ValueError(f"--method {method} names its unit itself; leave --target and --contrast out")
        from absence_plugins.commands.explain import explain_images
        from absence_plugins.commands.models import load_references, reference_notes

        loaded = load(model, weights, size, channels, mean, std)
        compared = (
            None if references is None else load_references(references, loaded, k=k, contrast=contrast, seed=seed)
        )
        words = ("runner_up", "others", "margin", "negated")
        if nontarget is not None and not nontarget.isdigit() and nontarget not in words:
            raise ValueError(f"--nontarget {nontarget!r} must be a class index, {', '.join(words[:-1])}, or negated")
        path = explain_images(
            images,
            loaded,
            out,
            references=compared,
            method=method,
            target=target,
            nontarget=int(nontarget) if nontarget is not None and nontarget.isdigit() else nontarget,
            steps=steps,
            seed=seed,
            notes=[*loaded.notes, *([] if references is None else reference_notes(references, loaded))],
            command=command_line(),
            progress=not quiet,
        )
        typer.echo(path.resolve())

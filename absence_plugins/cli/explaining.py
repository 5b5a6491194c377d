"""Commands that explain: ``demo`` and ``explain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.cli.app import app, clear_errors, numbers


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("absence-demo"),
    pairs: Annotated[int, typer.Option(help="How many digits to show.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the random controls.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Encoded absences in real handwritten digits, as one page. No internet, under a minute."""
    with clear_errors():
        from absence_plugins.experiments.demo import run_demo

        typer.echo(run_demo(out, pairs=pairs, seed=seed, progress=not quiet).resolve())


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    model: Annotated[str, typer.Option(help="torchvision:NAME, module:factory, or digits.")] = "torchvision:resnet18",
    weights: Annotated[
        str, typer.Option(help="A file (safetensors or state dict), DEFAULT (torchvision's), or none.")
    ] = "none",
    references: Annotated[
        Path | None, typer.Option(help="Folder of images to compare with; subfolders are classes.")
    ] = None,
    contrast: Annotated[
        int | None, typer.Option(help="Class of the references; default: any but the target's.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="A Captum class, for example DeepLift or Occlusion; a composite of Zennit, for example zennit:epsilon_gamma; "
            "or a unit to render with Lucent, lucent:LAYER:UNIT, for example lucent:layer3:7 (lucent:labels:7 is a logit)."
        ),
    ] = "IntegratedGradients",
    target: Annotated[int | None, typer.Option(help="Class index; default: the predicted class.")] = None,
    nontarget: Annotated[str, typer.Option(help="Class index, runner_up, or others.")] = "runner_up",
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("absence-explain"),
    k: Annotated[int, typer.Option(help="References per image.")] = 8,
    size: Annotated[
        int | None, typer.Option(help="Side of the model's input; default: 224, or the model's own.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grayscale models; default 3.")] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Normalization, comma-separated; default: ImageNet's for torchvision, none otherwise."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    steps: Annotated[int, typer.Option(help="Optimization steps of lucent:LAYER:UNIT.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Standard, non-target and reference maps of your own model on your own images, as one page; or a unit's two sides."""
    with clear_errors():
        if method.lower().startswith("lucent:") and (target is not None or contrast is not None):
            raise ValueError(f"--method {method} names its unit itself; leave --target and --contrast out")
        from absence_plugins.experiments.explain import explain_images
        from absence_plugins.experiments.loading import load_model, load_references, reference_notes

        loaded = load_model(
            model, weights, size=size, channels=channels, mean=numbers("--mean", mean), std=numbers("--std", std)
        )
        compared = (
            None if references is None else load_references(references, loaded, k=k, contrast=contrast, seed=seed)
        )
        if not nontarget.isdigit() and nontarget not in ("runner_up", "others"):
            raise ValueError(f"--nontarget {nontarget!r} must be a class index, runner_up, or others")
        path = explain_images(
            images,
            loaded,
            out,
            references=compared,
            method=method,
            target=target,
            nontarget=int(nontarget) if nontarget.isdigit() else nontarget,
            steps=steps,
            seed=seed,
            notes=[*loaded.notes, *([] if references is None else reference_notes(references, loaded))],
            command="absence-plugins " + " ".join(sys.argv[1:]),
            progress=not quiet,
        )
        typer.echo(path.resolve())

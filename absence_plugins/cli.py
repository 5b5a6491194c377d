"""The command line ``absence-plugins``: arguments in, a page or a table out.

Commands import what they need when they run, so that ``--help`` is quick and a missing extra is one clear line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from absence_plugins import __version__

app = typer.Typer(
    name="absence-plugins",
    help="See what a vision network computes from what is missing in an image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Bad input ends in one line on stderr and exit code 2, not in a traceback."""
    try:
        yield
    except (ValueError, TypeError, ImportError, OSError, RuntimeError, AssertionError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"absence-plugins {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what a vision network computes from what is missing in an image."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("absence-demo"),
    pairs: Annotated[int, typer.Option(help="How many digits to show.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the random controls.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Encoded absences in real handwritten digits, as one page. No internet, under a minute."""
    with _clear_errors():
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
    with _clear_errors():
        if method.lower().startswith("lucent:") and (target is not None or contrast is not None):
            raise ValueError(f"--method {method} names its unit itself; leave --target and --contrast out")
        from absence_plugins.experiments.explain import explain_images
        from absence_plugins.experiments.loading import load_model, load_references, reference_notes

        loaded = load_model(
            model, weights, size=size, channels=channels, mean=_numbers("--mean", mean), std=_numbers("--std", std)
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


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text!r} must be comma-separated numbers") from None


@app.command()
def patches(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of images; none: the bundled digits.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="torchvision:NAME, module:factory, or digits.")] = "digits",
    weights: Annotated[
        str, typer.Option(help="A file (safetensors or state dict), DEFAULT (torchvision's), or none.")
    ] = "none",
    layer: Annotated[str | None, typer.Option(help="As in model.named_modules(); in front of a ReLU.")] = None,
    units: Annotated[str | None, typer.Option(help="Unit numbers, for example 0,5,8-15; default: all.")] = None,
    patch: Annotated[int | None, typer.Option(help="Side of a patch in pixels; default 64 (digits 12).")] = None,
    stride: Annotated[int | None, typer.Option(help="Step of the grid in pixels; default 16 (digits 4).")] = None,
    k: Annotated[int, typer.Option(help="Patches per unit and side.")] = 8,
    mode: Annotated[
        str | None, typer.Option(help="crop, or mask for networks of a fixed input size; default crop (digits mask).")
    ] = None,
    reduce: Annotated[str, typer.Option(help="Over positions or tokens: mean, max, min or cls.")] = "mean",
    images_per_unit: Annotated[int, typer.Option(help="Images that the test pastes into, per unit.")] = 100,
    protocol: Annotated[str, typer.Option(help="controlled, or paper.")] = "controlled",
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("absence-patches"),
    show: Annotated[int, typer.Option(help="Units on the page, the encoded absences first.")] = 12,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the state of the scan: run the command again to go on.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the model's input; default: 224, or the model's own.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grayscale models; default 3.")] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Normalization, comma-separated; default: ImageNet's for torchvision, none otherwise."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that read images ahead.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Highest and lowest patches of every unit of a layer, with the insertion test, as one page."""
    with _clear_errors():
        from dataclasses import replace

        from absence_plugins.experiments.loading import load_model
        from absence_plugins.experiments.own_patches import default_scan, patches_page

        loaded = load_model(
            model, weights, size=size, channels=channels, mean=_numbers("--mean", mean), std=_numbers("--std", std)
        )
        given = {"size": patch, "stride": stride, "mode": mode}
        scan = replace(
            default_scan(model == "digits"),
            k=k,
            reduce=reduce,
            units=_unit_numbers(units),
            images_per_unit=images_per_unit,
            protocol=protocol,
            checkpoint=checkpoint,
            workers=workers,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
        command = "absence-plugins " + " ".join(sys.argv[1:])
        path = patches_page(loaded, folder, layer, scan, out, shown=show, command=command, progress=not quiet)
        typer.echo(path.resolve())


def _unit_numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError(f"--units {text!r} must be unit numbers such as 0,5,8-15")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="reichardt, colored-pixels, digits, or imagenet.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder for the page; default: absence-NAME.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images (imagenet).")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file (imagenet).")] = None,
    model: Annotated[str | None, typer.Option(help="vgg19, resnet50 or vit_b_16 (imagenet).")] = None,
    protocol: Annotated[str | None, typer.Option(help="controlled, or paper (imagenet).")] = None,
    units: Annotated[str | None, typer.Option(help="Unit numbers, for example 0,5,8-15 (imagenet).")] = None,
    images_per_unit: Annotated[int | None, typer.Option(help="Images pasted into, per unit (imagenet).")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder for the state of a scan (imagenet).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images ahead (imagenet).")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """A published experiment: writes a page and results.json, prints the page's path."""
    with _clear_errors():
        from absence_plugins.experiments.registry import run_experiment

        path = run_experiment(
            name,
            out or Path(f"absence-{name}"),
            data=data,
            weights=weights,
            model=model,
            protocol=protocol,
            units=_unit_numbers(units),
            images_per_unit=images_per_unit,
            checkpoint=checkpoint,
            workers=workers,
            seed=seed,
            progress=not quiet,
        )
        typer.echo(path.resolve())


@app.command()
def label(
    model: Annotated[str, typer.Option(help="torchvision:NAME, module:factory, or digits.")] = "digits",
    layer: Annotated[
        str, typer.Option(help="As in model.named_modules(); of a ReLU its input is read; '' is the output.")
    ] = "linear1",
    images: Annotated[
        Path | None, typer.Option(help="Folder with a subfolder of images per class; the digits model brings its own.")
    ] = None,
    attributes: Annotated[Path | None, typer.Option(help="CSV: class,ATTRIBUTE,... with 0 or 1 per class.")] = None,
    hypernyms: Annotated[Path | None, typer.Option(help="CSV: child,parent per line; parents become concepts.")] = None,
    weights: Annotated[
        str, typer.Option(help="A file (safetensors or state dict), DEFAULT (torchvision's), or none.")
    ] = "none",
    length: Annotated[int, typer.Option(help="Most concepts in a name.")] = 3,
    beam: Annotated[int, typer.Option(help="Width of the search beyond pairs of concepts.")] = 5,
    min_fraction: Annotated[float, typer.Option(help="Least share of the images on which a name holds.")] = 0.01,
    max_fraction: Annotated[
        float, typer.Option(help="Largest share; 1.0 admits names that fail on a handful of images only.")
    ] = 0.99,
    mode: Annotated[str, typer.Option(help="positive (names where a unit is high) or negative (low).")] = "positive",
    exact_pairs: Annotated[bool, typer.Option(help="Search all pairs of concepts.")] = True,
    holdout: Annotated[float, typer.Option(help="Share of the images that judge and are not searched.")] = 0.5,
    top: Annotated[int, typer.Option(help="Names per unit.")] = 5,
    reduce: Annotated[str, typer.Option(help="Of a channel over the image: mean, max, min or sum.")] = "mean",
    out: Annotated[Path, typer.Option(help="Folder for the page, labels.csv and labels.json.")] = Path("absence-label"),
    size: Annotated[int | None, typer.Option(help="Side of the model's input.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grayscale models; default 3.")] = None,
    mean: Annotated[str | None, typer.Option(help="Normalization, comma-separated, as in explain.")] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Name every unit of a layer by concepts with AND, OR and NOT; says what each NOT is worth."""
    with _clear_errors():
        from absence_plugins.experiments.label import run_label
        from absence_plugins.experiments.loading import load_model

        loaded = load_model(
            model, weights, size=size, channels=channels, mean=_numbers("--mean", mean), std=_numbers("--std", std)
        )
        found = run_label(
            loaded,
            layer,
            out,
            images=images,
            attributes=attributes,
            hypernyms=hypernyms,
            is_digits=model == "digits",
            reduce=reduce,
            length=length,
            beam=beam,
            min_fraction=min_fraction,
            max_fraction=max_fraction,
            mode=mode,
            exact_pairs=exact_pairs,
            holdout=holdout,
            top=top,
            seed=seed,
            command="absence-plugins " + " ".join(sys.argv[1:]),
            progress=not quiet,
        )
        if len(found.labels) <= 100:
            typer.echo(f"{found.labels.table()}\n")
        typer.echo(found.summary())
        typer.echo(found.page)


@app.command()
def bench(
    host: Annotated[str, typer.Argument(help="captum, zennit, lucent, patches, or invert.")] = "captum",
    rounds: Annotated[int, typer.Option(help="Rounds of ours against plain; the median ratio counts.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see that it runs.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; of what is timed.")] = "auto",
) -> None:
    """What the adapters cost next to their host, as ratios from one run; for zennit also what they show.

    captum: time and memory on the same work. zennit: which composite shows an absence that is known, and the time.
    lucent: time for the same picture. patches: time beyond the forwards, time and memory next to a plain script.
    invert: time next to a straightforward search.
    Exits with 1 if a ratio is above its limit, or an Absence composite misses an absence.
    """
    with _clear_errors():
        from absence_plugins.experiments.bench import BENCHES

        if host not in BENCHES:
            raise ValueError(f"bench {host!r} is not known: use {', '.join(BENCHES)}")
        result = BENCHES[host](rounds=rounds, quick=quick, device=device)
    typer.echo(result.table())
    raise typer.Exit(0 if result.ok else 1)

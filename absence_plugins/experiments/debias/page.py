"""The page of the debias experiment: all numbers first, then what every network sees in one biased image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from absence_plugins.commands.provenance import provenance
from absence_plugins.experiments.debias.digits import DebiasResult
from absence_plugins.experiments.debias.training import CLEAN, NONE, SETS
from absence_plugins.report import Page, Panel, Row
from absence_plugins.report.plots.bars import bars
from absence_plugins.report.plots.labels import pixels_of
from absence_plugins.report.plots.palette import GRAY, INK, MUTED, SERIES

INCHES, DPI = 1.76, 480  # of a chart on the page: a panel's width, at twice its resolution
WHERE = {"biased": "Tag as in training", "inverted": "Tag on the other class", "unbiased": "No tag"}


def debias_page(result: DebiasResult, models: Mapping[str, nn.Module], image: Tensor, seed: int) -> Page:
    """The page: ``models`` are the networks of one seed by mode, ``image`` [1, H, W] one of the biased test set."""
    first, second = result.setting.digits
    maps = {mode: [signed_map(models[mode], image, unit) for unit in (0, 1)] for mode in result.weights}
    limit = max(float(one.abs().max()) for both in maps.values() for one in both)
    rows = [_overview(result)]
    for mode in result.weights:
        panels = [Panel("image", image, f"A {first} with the tag")] + [
            Panel("signed", one, f"Logit of {digit}", underlay=image, limit=limit,
                  positive=f"raises logit {digit}", negative=f"holds logit {digit} down")
            for digit, one in zip((first, second), maps[mode], strict=True)
        ]  # fmt: skip
        facts = [(f"Accuracy, {name}", _cell(result, mode, name)) for name in ("inverted", "unbiased", "biased")]
        inside = (
            f"{result.mean(mode, 'target'):.2g} of the target, {result.mean(mode, 'nontarget'):.2g} of the non-target"
        )
        facts.append(("Attribution per pixel of the tag", inside))
        rows.append(Row(_heading(result, mode), _sentence(mode, first, second), tuple(panels), tuple(facts)))
    return Page(
        title="Training that does not use an artefact, neither its presence nor its absence",
        lead=f"Real digits: every {first} of the training images carries a tag in its corner, no {second} does. A network can use it in two ways: "
        f"the tag speaks for {first}, or the tag speaks against {second}, whose unit then encodes that no tag is "
        f"there. Biased: test images as in training; inverted: the tag is on every {second} instead; unbiased: no "
        f"tag. Mean over {len(result.of(NONE))} seeds; the prior's weight is the best on other images without a tag.",
        rows=tuple(rows),
        how_to_read=(
            ("Maps", "input x gradient of one logit; all maps share one scale."),
            ("Accuracy", f"mean of the two classes, in brackets that of {first} and that of {second}."),
            ("Attribution per pixel of the tag", "mean magnitude of input x gradient inside the mask, in logits; the prior makes it small."),
        ),
        footer="Method: Hesse et al., ICML 2026, section 6; there with ellipses on skin lesions. accuracy.png beside this page "
        "has the spread over the seeds, results.json every training.",
        provenance=provenance(seed=seed, command=f"absence-plugins experiment debias --seed {seed}"),
    )  # fmt: skip


def signed_map(model: nn.Module, image: Tensor, unit: int) -> Tensor:
    """Input x gradient of one logit, [C, H, W]: positive raises the logit, negative holds it down."""
    with torch.enable_grad():
        x = image[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x)[0, unit], x)
    return image * slope[0]


def accuracy_figure(result: DebiasResult) -> Figure:
    """Bars of the accuracies, a group per mode; lines from the lowest to the highest seed."""
    series = {
        name: [[sum(run.accuracy[name]) / 2 for run in result.of(mode)] for mode in result.weights] for name in SETS
    }
    return bars([_heading(result, mode) for mode in result.weights], series, "accuracy")


def class_chart(result: DebiasResult, name: str) -> Tensor:
    """Accuracy of both classes on one set, a pair of bars per mode with its numbers: an image [3, H, W] in [0, 1]."""
    figure = Figure(figsize=(INCHES, 0.36 * len(result.weights) + 0.16), dpi=DPI, facecolor="white")
    axis = figure.add_axes((0.3, 0.0, 0.6, 1.0))
    for place, mode in enumerate(result.weights):
        for number, digit in enumerate(result.setting.digits):
            value, y = result.of_class(mode, name, number), place + (number - 0.5) * 0.36
            axis.barh(y, value, 0.33, color=SERIES[number + 1])
            axis.text(-0.03, y, str(digit), fontsize=4.4, color=MUTED, ha="right", va="center")
            axis.text(value + 0.02, y, f"{value:.3f}", fontsize=4.4, color=INK, va="center")
        axis.text(-0.11, place, _short(mode), fontsize=4.4, color=INK, ha="right", va="center")
    axis.set(xlim=(0, 1.12), ylim=(len(result.weights) - 0.4, -0.6))
    axis.set_axis_off()
    axis.plot([0, 0], [-0.5, len(result.weights) - 0.5], color=GRAY, linewidth=0.4)
    return pixels_of(figure)


def _overview(result: DebiasResult) -> Row:
    first, second = result.setting.digits
    panels = tuple(Panel("image", class_chart(result, name), name.capitalize(), WHERE[name]) for name in SETS)
    columns = {f"Accuracy, {name}": (name, ".3f") for name in SETS} | {
        "Attribution per pixel of the tag": ("inside", ".2g")
    }
    facts = [("Trainings", f"{len(result.of(NONE))} seeds each")]
    for label, (name, digits) in columns.items():
        values = (f"{_short(mode)} {result.mean(mode, name):{digits}}" for mode in result.weights)
        facts.append((label, ", ".join(values)))
    sentence = f"Accuracy of {first} and of {second} on the three test sets, per training."
    return Row("All trainings side by side", sentence, panels, tuple(facts))


def _cell(result: DebiasResult, mode: str, name: str) -> str:
    one, two = (result.of_class(mode, name, k) for k in (0, 1))
    return f"{result.mean(mode, name):.3f} ({one:.3f}, {two:.3f})"


def _heading(result: DebiasResult, mode: str) -> str:
    plain = {CLEAN: "Trained without the tag", NONE: "No prior"}
    return plain.get(mode) or f"Prior: {mode}, weight {result.weights[mode]:g}"


def _short(mode: str) -> str:
    return {CLEAN: "without tag", NONE: "no prior"}.get(mode, mode)


def _sentence(mode: str, first: int, second: int) -> str:
    return {
        CLEAN: "What the digits alone teach: the accuracy without a tag is the one to reach.",
        NONE: f"The tag is the easiest way to tell a {first}.",
        "presence": "Only the true class's logit must not move with the tag; the other one may still fall with it.",
        "absence": "Only the other class's logit must not move with the tag; the true one may still rise with it.",
        "both": "Neither logit may move with the tag.",
    }[mode]

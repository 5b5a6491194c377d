"""The unit's extreme patches, and the insertion test with its arms."""

from __future__ import annotations

from matplotlib.figure import Figure

from absence_plugins.methods.insertion import UnitInsertion
from absence_plugins.report.pages.patch_rows import describe_correction, patch_panels, verdict
from absence_plugins.report.plots.labels import pixels_of
from absence_plugins.report.plots.palette import DOWN, GRAY, INK, MUTED, UP
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study

PATCHES, INSERTION = "patches", "insertion"
_COLORS = {"lowest": DOWN, "highest": UP}
_WORDS = {
    "clean": "nothing pasted",
    "lowest": "its lowest patches",
    "highest": "its highest",
    "random": "random ones",
    "median": "median ones",
    "blank": "blank ones",
}


def patches_section(study: Study, unit: int) -> Section:
    """Highest and lowest patches."""
    patches = study.patches
    row = patches.row(unit)
    sides = {"highest": patches.highest, "lowest": patches.lowest}
    top, bottom = (float(side.scores[row, 0]) for side in sides.values())
    scanned = len(study.dataset) if patches.images is None else len(patches.images)
    return Section(
        PATCHES,
        "Its highest and lowest patches",
        f"Of all {patches.settings['size']}x{patches.settings['size']} patches of {scanned:,} images, these drive the "
        f"unit furthest up (to {top:.3g}) and furthest down (to {bottom:.3g}), the most extreme first.",
        patch_panels(patches, unit, study.recent, study.show),
        (("Highest / lowest", f"{top:.3g} / {bottom:.3g}"), ("Scanned", f"{scanned:,} images")),
        {
            "settings": patches.settings,
            **{
                name: {
                    "scores": side.scores[row].tolist(),
                    "positions": side.positions[row].tolist(),
                    "files": [study.file_of(number) for number in side.positions[row, :, 0].tolist()],
                }
                for name, side in sides.items()
            },
        },
    )


def insertion_section(study: Study, unit: int) -> Section:
    """What happens to the unit where its lowest patches are pasted in."""
    tested = study.tested
    one = tested.of(unit)
    facts = [
        ("q", f"{one.q:.2g}"),
        ("Pulled down further than by random patches", f"{one.effect:.3g} (d {one.d:.2g})"),
        *((f"Mean, {arm}", f"{value:.3g}") for arm, value in one.means.items()),
    ]
    if one.mirror is not None:
        facts.append(("Mirror test", f"{one.mirror:+.2g} (p {one.mirror_p:.1g})"))
    return Section(
        INSERTION,
        "Insertion test: do they really hold it down?",
        verdict(one, tested.protocol, tested.alpha) + describe_correction(len(tested)),
        (Panel("image", pixels_of(arms_figure(one)), "The unit, by what was pasted", "Mean over the images."),),
        tuple(facts),
        {**one.to_dict(), "protocol": tested.protocol, "corrected_over": len(tested), "alpha": tested.alpha},
        wide=True,
    )


def arms_figure(one: UnitInsertion) -> Figure:
    """The unit's mean value under every arm, as dots on one scale: blue its lowest patches, red its highest."""
    figure = Figure(figsize=(1.76, 1.25), dpi=240, facecolor="white")
    figure.subplots_adjust(left=0.42, right=0.96, bottom=0.15, top=0.99)
    axes = figure.subplots()
    clean = one.means["clean"]
    for place, (arm, value) in enumerate(one.means.items()):
        color = _COLORS.get(arm, GRAY)
        axes.plot([clean, value], [place, place], color=color, linewidth=1.0, zorder=2)
        axes.plot([value], [place], "o", color=color, markersize=3, zorder=3)
    axes.axvline(clean, color=MUTED, linewidth=0.5, linestyle=":", zorder=1)
    axes.set_yticks(range(len(one.means)), [_WORDS[arm] for arm in one.means], fontsize=5, color=INK)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=5, length=2, width=0.5, colors=MUTED)
    axes.locator_params(axis="x", nbins=4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(linewidth=0.5, color=MUTED)
    return figure

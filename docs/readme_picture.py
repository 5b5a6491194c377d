"""The picture of the README, from the two demos: ``python docs/readme_picture.py docs/_static/readme.png``.

Above a photograph: what holds a class down, and what happens without it. Below a digit: what is missing, and what
happens when it is put in. Needs the extras ``photos`` and ``all``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from PIL import Image

from absence_plugins.commands.demo import digit_panels, distinct, examine, rank_pairs
from absence_plugins.commands.demo_findings import measure_photograph
from absence_plugins.commands.demo_photos import MODEL, finding_panels, short_name
from absence_plugins.commands.models import load_model
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.report import Panel
from absence_plugins.report.plots.maps import row_figure

WIDTH, COLORS = 1400, 256
PHOTOGRAPH = "coffee"


def photograph_row() -> Figure:
    """The strongest finding of a photograph."""
    loaded = load_model(MODEL)
    finding = max(measure_photograph(loaded.model, PHOTOGRAPH), key=lambda one: one.lead)
    picture, found, region, grey = finding_panels(finding, loaded)
    test, rival = finding.test, short_name(loaded, finding.rival)
    said = f"Made grey: '{rival}' {test.before:.1f} → {test.after:.1f} (elsewhere {test.random_change:+.1f})"
    return title_row([picture, found, region, grey], picture.caption.rstrip("."), found.title, region.title, said)


def digit_row() -> Figure:
    """The strongest pair of digits."""
    model, data = digits_cnn(), load_digits()
    case = examine(model, data, distinct(rank_pairs(model, data, progress=False), 1)[0])
    image, standard, _, _, missing, pasted = digit_panels(model, case)
    test = case.test
    said = f"Pasted in: logit {case.a} {test.before:.1f} → {test.after:.1f} (elsewhere {test.random_change:+.1f})"
    return title_row([image, standard, missing, pasted], "A digit", standard.title, missing.title, said)


def title_row(panels: Sequence[Panel], *titles: str) -> Figure:
    """Panels under other titles, without captions."""
    return row_figure([replace(one, title=title, caption="") for one, title in zip(panels, titles, strict=True)])


def stack(figures: Sequence[Figure]) -> Image.Image:
    """Figures one below the other, of one width."""
    pictures = []
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png")
        picture = Image.open(file).convert("RGB")
        pictures.append(
            picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        )
    sheet = Image.new("RGB", (WIDTH, sum(one.height for one in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


if __name__ == "__main__":
    sheet = stack([photograph_row(), digit_row()])
    palette = sheet.quantize(COLORS)
    sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(sys.argv[1], optimize=True)

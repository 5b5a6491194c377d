"""``absence-plugins experiment digits``: which units of the bundled network encode an absence, in every layer."""

from __future__ import annotations

from pathlib import Path

from absence_plugins.commands.layers import DIGITS_SCAN, Scan, Subject, Texts, layers_of, layers_page
from absence_plugins.data import digits_cnn, load_digits

LEAD = """Every layer of the bundled digits network, before its nonlinearity, on scikit-learn's real digits: patches of 12x12 pixels are
chosen on one half of the images, and pasted into the other. Patches are seen on a black image of full size, as the dense layers need it."""


def run_digits(out: Path, *, checkpoint: Path | None = None, seed: int = 0, progress: bool = True) -> Path:
    """Scan and test every layer; the page shows the most certain units of each.

    checkpoint: a folder for what is done; run again, it resumes from there.
    """
    model, digits = digits_cnn(), load_digits()
    subject = Subject(model, digits.images, lambda pictures: pictures, 0.0, "digits")
    scan = Scan(**{**vars(DIGITS_SCAN), "seed": seed, "checkpoint": checkpoint})
    texts = Texts(
        "Which units of the digits network encode an absence?",
        LEAD.replace("\n", " "),
        f"absence-plugins experiment digits --seed {seed}",
        "Real digits (scikit-learn), the network that ships with absence_plugins.",
    )
    return layers_page(subject, layers_of(model), scan, out, texts, progress=progress)

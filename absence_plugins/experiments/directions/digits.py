"""``absence-plugins experiment directions-digits``: the concepts of the bundled digits network, and whose absence
counts.
"""

from __future__ import annotations

from pathlib import Path

from absence_plugins.commands.directions_page import Texts, directions_page
from absence_plugins.commands.provenance import provenance
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.data.digit_strokes import stroke_concepts
from absence_plugins.methods.directions import DirectionPairs, layer_features, name_directions
from absence_plugins.methods.directions.few import MOST

LAYER = "conv3"
DIRECTIONS = 10
NAMED = 0.8  # AUC on held-out images from which on a name is shown
LEAD = """The bundled network reads handwritten digits. Without any labels, {count} directions were found in its last
convolution ({layer}, {channels} channels, before the rectifier): stroke pieces that the layer writes, each with the digits
that it raises and those that it holds down, and named by the digits and strokes in whose images it is strongest.

A digit that a stroke holds down encodes the absence of that stroke. Whether that is so was checked on the images:
the patch with the stroke was painted over, and the digit's logit measured again. Painting takes away whatever else is in
the patch, too, so this is a fair check only of the large effects, which come first."""


def run_digits(
    out: Path | str,
    *,
    seed: int = 0,
    directions: int = DIRECTIONS,
    quick: bool = False,
    progress: bool = True,
    command: str = "",
) -> Path:
    """Fit the pairs on the training digits, measure influence on held-out ones, and write the page.

    Args:
        out: the folder.
        seed: of the fit.
        directions: how many.
        quick: a short fit, to see that it runs.
        progress: show a progress bar.
        command: how to make the page again, for its foot.

    Returns:
        The page's path; beside it ``gallery.png``, ``results.json`` and the pairs.
    """
    model, digits = digits_cnn(), load_digits()
    starts = (4 if quick else 12) if directions <= MOST else None
    images = digits.train_images[:200] if quick else digits.train_images
    pairs = DirectionPairs(directions, seed=seed, head_batch=32, progress=progress, starts=starts)
    pairs.fit_model(model, LAYER, images)
    held_out = digits.test_images
    concepts, names = stroke_concepts(digits.test_labels)
    features = layer_features(model, LAYER, held_out)
    labels = name_directions(
        pairs, features, concepts, names, length=2, top=1, max_fraction=0.99, seed=seed, progress=False
    )

    def name(direction: int) -> str:
        best = labels[direction].best
        said = f"most in images with {best.formula} (AUC {best.heldout_auc or 0.5:.2f})"
        return f"direction {direction}: " + (said if (best.heldout_auc or 0) >= NAMED else "in images of many kinds")

    return directions_page(
        pairs,
        model,
        LAYER,
        held_out,
        held_out,
        out,
        Texts(
            "What the digits network writes, and what it misses",
            LEAD.format(count=directions, layer=LAYER, channels=pairs.encoding.shape[0]),
            "digit {}".format,
            name,
        ),
        seed=seed,
        provenance=provenance(seed=seed, command=command or "absence-plugins experiment directions-digits"),
    )

"""How many forwards the scores of a map take, known before any of them runs."""

from __future__ import annotations

from absence_plugins.methods.faithfulness.curves import PEAK_POINTS
from absence_plugins.methods.faithfulness.result import View

STEPS, DRAWS = 32, 8  # of absence_scores
ORDERS, WINDOWS = 5, 4  # measured orders, and what they are measured by: a cell alone, all but it, two windows
CONTROLS, TIED = 9, 1  # of images; of these the blob in the middle, whose cells are equal in fours


def count_forwards(samples: int, cells: int, view: View, *, has_standard: bool = False) -> int:
    """Images that go through the model in ``absence_scores`` of images, with its own ``steps`` and ``draws``.

    samples * (2 + 4 cells + 5 min(48, cells) + min(32, cells) * (38 + has_standard)), and one more for each reference.
    Exact where every cell may change, no two have the same score and the curves have all their points. Ties in a map
    are broken ``draws`` times and make it more; cells without content and peaks within 32 cells make it less.

    Args:
        samples: images, each with one reference in the reference view.
        cells: of the grid, 196 for 224 pixels.
        view: as of ``absence_scores``.
        has_standard: whether a second map is scored.

    >>> count_forwards(8, 196, "nontarget"), count_forwards(8, 196, "reference", has_standard=True)
    (17936, 18200)
    """
    controls = CONTROLS - TIED + DRAWS * TIED
    curves = 2 * DRAWS + ORDERS + 1 + has_standard + controls  # random and elsewhere, measured, the maps, controls
    measured = 2 + WINDOWS * cells + ORDERS * min(PEAK_POINTS, cells)
    return samples * (measured + (view == "reference") + min(STEPS, cells) * curves)

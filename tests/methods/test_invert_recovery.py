"""How often the planted name comes back, by samples and effect: the table of docs/invert.md.

``python -m pytest -n0 -q -s -m slow tests/methods/test_invert_recovery.py`` prints it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from absence_plugins.methods.invert import Formula, label_units

PLANTED = ("a", "NOT b", "a AND NOT b", "(a OR c) AND NOT b")
SAMPLES, EFFECTS, UNITS = (100, 400, 2000), (1.0, 2.0, 4.0), 20
DOCS = Path(__file__).parents[2] / "docs" / "invert.md"


def rate(samples: int, effect: float, planted: str) -> float:
    """Share of the units that are named by the planted formula, q <= .05: 20 concepts, noise of standard deviation 1."""
    rng = np.random.default_rng([samples, int(10 * effect), PLANTED.index(planted)])
    names = list("abcdefghijklmnopqrst")
    labels = rng.random((samples, 20)) < np.r_[[0.4] * 3, rng.uniform(0.02, 0.5, 17)]
    labels[0, 3:], labels[1, 3:] = True, False  # no concept is constant
    formula = Formula.parse(planted)
    truth = formula.evaluate(labels, names).numpy()
    units = effect * truth[:, None] + rng.normal(size=(samples, UNITS))
    found = label_units(units, labels, names, progress=False)
    return float(np.mean([one.best.formula == formula and one.best.q <= 0.05 for one in found]))


def row(samples: int, effect: float) -> str:
    """A line of the table."""
    shares = " | ".join(f"{100 * rate(samples, effect, planted):.0f} %" for planted in PLANTED)
    return f"| {samples:,} | {effect:g} | {shares} |"


def test_a_strong_effect_brings_the_planted_name_back() -> None:
    assert rate(400, 2.0, "a AND NOT b") >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("samples", SAMPLES)
def test_the_rates_are_those_of_the_docs(samples: int) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for effect in EFFECTS:
        line = row(samples, effect)
        print(line)
        assert line in text

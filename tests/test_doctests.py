"""The examples in the docstrings of the installed package run, and the public surface has some."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch

import absence_plugins
from absence_plugins.data.labels import __all__ as label_readers
from absence_plugins.lucent import __all__ as lucent_names
from absence_plugins.methods.debias import __all__ as debias_names
from absence_plugins.zennit import __all__ as zennit_names

from test_captum_upstream import NAMES

MODULES = [
    "absence_plugins",
    *sorted(
        module.name
        for module in pkgutil.walk_packages(absence_plugins.__path__, "absence_plugins.", onerror=lambda name: None)
        if not module.name.endswith("__main__")
    ),
]

LONG = {
    "absence_plugins.data.colored_pixels",
    "absence_plugins.methods.directions.edits",
    "absence_plugins.methods.directions.influence",
    "absence_plugins.methods.directions.interpretability",
    "absence_plugins.methods.directions.pairs",
}  # they train or fit for seconds

# The public surface: each of these shows an example. Add to it when something becomes public.
WITH_EXAMPLES = {
    "absence_plugins": ["Direction", "Layer", "ReferenceSet", "Unit"],
    "absence_plugins.core.maps": [
        "absence_part",
        "split_by_content",
        "split_by_sign",
        "sum_channels",
        "symmetric_range",
    ],
    "absence_plugins.core.references": ["blank_value"],
    "absence_plugins.core.choices": ["choose", "choose_nontarget", "others_weights"],
    "absence_plugins.core.outputs": ["Logit", "Margin", "Others", "Similarity", "check_logits"],
    "absence_plugins.core.scores": ["logits_of", "run_scores"],
    "absence_plugins.captum": [f"Absence{name}" for name in NAMES],
    "absence_plugins.zennit": [name for name in zennit_names if name not in ("ConservationError", "Explanation")],
    "absence_plugins.lucent": [name for name in lucent_names if name not in ("Reached", "Rendering")],
    "absence_plugins.methods.patches": ["find_extreme_patches", "halves"],
    "absence_plugins.methods.insertion": ["insertion_test"],
    "absence_plugins.methods.directions": [
        "DirectionPairs",
        "FeatureStore",
        "delete",
        "edited",
        "head_of",
        "influence",
        "insert",
        "interpretability",
        "layer_features",
        "match_directions",
        "removal_check",
        "unlearn",
    ],
    "absence_plugins.methods.debias": [name for name in debias_names if name != "Parts"],
    "absence_plugins.methods.faithfulness": ["absence_scores", "planted_benchmark"],
    "absence_plugins.methods.regions": [
        "measure_regions",
        "measure_things",
        "place_elsewhere",
        "segment",
        "strongest_regions",
        "strongest_things",
    ],
    "absence_plugins.methods.invert": ["Formula", "auroc", "concepts_from_folder", "expand_hypernyms", "label_units"],
    "absence_plugins.data.groups": [
        "find_copies",
        "find_equal_rows",
        "find_same_pictures",
        "group_files",
        "number_groups",
        "read_groups",
    ],
    "absence_plugins.data.labels": label_readers,
    "absence_plugins.data.tables": ["decide_minus", "read_columns", "read_pairs", "read_table", "read_truth"],
    "absence_plugins.data.digit_strokes": ["stroke_concepts"],
    "absence_plugins.report.plots.labels": ["label_figure", "label_panels"],
    "absence_plugins.data": ["digits_cnn", "load_digits"],
    "absence_plugins.report": [
        "Page",
        "Panel",
        "Row",
        "Table",
        "draw_panel",
        "explain_unit",
        "page_html",
        "panel_figure",
        "row_figure",
        "signed_figure",
        "signed_panels",
        "unit_figure",
        "unit_panels",
        "write_page",
    ],
}


def marks(name: str) -> list[pytest.MarkDecorator]:
    needs = [pytest.mark.needs("quantus")] if name.endswith(".quantus") else []
    return [*needs, *([pytest.mark.slow] if name in LONG else [])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in MODULES])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    np.random.seed(0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    results = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples, shown above"


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in WITH_EXAMPLES.items() for name in names]
)
def test_public_name_shows_an_example(module: str, name: str) -> None:
    public = getattr(importlib.import_module(module), name)
    assert any(test.examples for test in doctest.DocTestFinder().find(public, name))

"""The words that are checked before torch is imported are those of the modules that use them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from absence_plugins.commands import known_words as words
from absence_plugins.commands.model_names import check_model_name, timm_names, torchvision_names
from absence_plugins.experiments.registry import EXPERIMENTS, SHOW_COMMAND, find_experiment


def test_words_of_options() -> None:
    from absence_plugins.commands import report
    from absence_plugins.core.units import REDUCES
    from absence_plugins.data.groups import CHOICES
    from absence_plugins.data.labels.image_tables import MEANINGS
    from absence_plugins.data.labels.sources import FORMATS
    from absence_plugins.experiments.imagenet import NETWORKS
    from absence_plugins.methods.insertion.statistics import PROTOCOLS
    from absence_plugins.methods.invert import labels
    from absence_plugins.methods.patches.windows import MODES
    from absence_plugins.relevance.rules import LOWER, RULES

    assert words.PROTOCOLS == PROTOCOLS
    assert words.REDUCES == REDUCES
    assert words.SCAN_MODES == MODES
    assert words.GROUPINGS == CHOICES
    assert words.LABEL_FORMATS == FORMATS
    assert words.MEANINGS == MEANINGS
    assert words.NAME_MODES == labels.MODES
    assert words.NAME_SCORES == labels.SCORES
    assert words.SEARCHES == labels.SEARCHES
    assert set(words.PREFERENCES) | {"auc"} == set(labels.PREFERENCES)
    assert words.PROVEN_LENGTH == labels.LONGEST
    assert words.SKIPPED == report.SKIPPED
    assert tuple(NETWORKS) == words.PUBLISHED
    assert (*LOWER, *RULES) == words.RULES


@pytest.mark.parametrize("word", ["background", "recipe"])
def test_words_of_direction_pairs(word: str) -> None:
    from absence_plugins.methods.directions import DirectionPairs

    known = words.BACKGROUNDS if word == "background" else words.RECIPES
    for value in known:
        DirectionPairs(2, **{word: value})
    with pytest.raises(ValueError, match=f"must be one of {', '.join(known)}$"):
        DirectionPairs(2, **{word: "another"})


def test_methods() -> None:
    from zennit.composites import COMPOSITES

    import absence_plugins.captum as adapters
    from absence_plugins.captum.method import AbsenceMethod
    from absence_plugins.commands.maps.explainers import input_method
    from absence_plugins.commands.maps.zennit import PREFIX, ZennitMaps
    from absence_plugins.zennit.refused import REFUSALS

    assert [input_method(name).__name__ for name in words.CAPTUM] == [f"Absence{name}" for name in words.CAPTUM]
    others = {
        name.removeprefix("Absence") for name, found in vars(adapters).items() if _is_method(found, AbsenceMethod)
    }
    for name in others - set(words.CAPTUM):
        with pytest.raises(ValueError, match="is not a method"):
            input_method(name)
    assert [ZennitMaps.named(f"zennit:{name}").key for name in words.ZENNIT] == list(words.ZENNIT)
    assert {name for name in COMPOSITES if name.startswith(PREFIX)} == {PREFIX + name for name in words.ZENNIT}
    assert set(REFUSALS) == set(words.REFUSED)


def _is_method(found: Any, base: type[Any]) -> bool:
    return inspect.isclass(found) and issubclass(found, base) and found is not base


def test_benches() -> None:
    from absence_plugins.bench import BENCHES, COSTS

    assert set(BENCHES) == set(words.BENCHES)
    assert set(COSTS) < set(BENCHES)
    assert tuple(COSTS) == tuple(words.BENCHES)[: len(COSTS)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_take_what_is_said(name: str) -> None:
    parameters = inspect.signature(find_experiment(name)).parameters
    assert set(EXPERIMENTS[name][1]) == set(parameters) - {"out", "progress", "command", "quick"}
    assert (name in SHOW_COMMAND) == ("command" in parameters)


def test_names_of_torchvision() -> None:
    import torchvision

    assert set(torchvision_names()) == set(torchvision.models.list_models(module=torchvision.models))


@pytest.mark.needs("timm")
def test_names_of_timm() -> None:
    import timm

    assert set(timm_names()) == set(timm.list_models())
    for name in ("vit_base_patch16_224.augreg_in21k", "vit_tiny_patch16_224_in21k", *timm.list_models()[:3]):
        assert timm.is_model(name)
        check_model_name("timm", name)  # also with the tag of weights, and former names
    with pytest.raises(ValueError, match=r"it has: vit_tiny_patch16_224, .* and 1,\d+ more"):
        check_model_name("timm", "vit_tinny")

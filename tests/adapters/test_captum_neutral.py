"""With the absence part switched off an adapter is its host: same bits, same random draws, same signatures."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from adapter_table import ADAPTERS, CLASSES, Net, arguments, build, images
from captum import attr
from captum.attr import Attribution
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_plugins.captum import AbsenceMethod

from test_captum_upstream import NEUTRAL, random_state, same_bits, same_random_state

ABSTRACT = {
    "Attribution",
    "GradientAttribution",
    "PerturbationAttribution",
    "LayerAttribution",
    "NeuronAttribution",
    "InternalAttribution",
}
WRAPPERS = {"NoiseTunnel", "DataLoaderAttribution"}

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_attribution_class_of_captum_has_an_adapter() -> None:
    """Fails when Captum brings a new one."""
    hosts = {
        name
        for name in attr.__all__
        if isinstance(getattr(attr, name), type) and issubclass(getattr(attr, name), Attribution)
    }
    wanted = {name for name in hosts - ABSTRACT - WRAPPERS if not name.startswith(("LLM", "RemoteLLM"))}
    wanted = {name for name in wanted if "LLM" not in name}
    assert {f"Absence{name}" for name in wanted} == set(ADAPTERS)
    assert len(ADAPTERS) >= 39


def run(cls: type, seed: int, variant: str, options: dict[str, Any]) -> Any:
    """One call from one seed: what it returns (or raises) and the random state after it."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    dtype = torch.float32
    net = Net(seed, dtype)
    samples = 1 if cls.__name__.endswith("LimeBase") else 3
    inputs: Any = images(samples, seed + 1, dtype)
    call = arguments(cls, baselines=True, dtype=dtype)
    parameters = inspect.signature(cls.attribute).parameters
    if variant == "tuple":
        inputs = (inputs, images(samples, seed + 2, dtype))
        for name in ("baselines", "feature_mask"):
            if name in call:
                call[name] = (call[name], call[name])
        if "sliding_window_shapes" in call:
            call["sliding_window_shapes"] = ((1, 2, 2), (1, 2, 2))
    if variant == "delta" and "return_convergence_delta" in parameters:
        call["return_convergence_delta"] = True
    if variant == "chunks":
        for name, value in (("internal_batch_size", 4), ("perturbations_per_eval", 2)):
            if name in parameters and not (name == "perturbations_per_eval" and samples == 1):
                call[name] = value
    if variant == "extra" and "additional_forward_args" in parameters:
        call["additional_forward_args"] = (None, torch.arange(4.0 * samples).reshape(samples, 4))
    if "target" in parameters:
        targets = torch.arange(samples) % CLASSES
        call["target"] = targets.tolist() if variant == "list" else int(targets[-1]) if variant == "one" else targets
    try:
        result = build(cls, net, **options).attribute(inputs, **call)
    except Exception as error:
        result = (type(error), str(error))
    return result, random_state()


@pytest.mark.parametrize("name", ADAPTERS)
@settings(max_examples=4, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**20), variant=st.sampled_from(["tensors", "tuple", "delta", "chunks", "extra", "list"]))
def test_neutral_is_the_host_bit_for_bit(name: str, seed: int, variant: str) -> None:
    host = getattr(attr, name.removeprefix("Absence"))
    (expected, state), (found, own) = run(host, seed, variant, {}), run(ADAPTERS[name], seed, variant, NEUTRAL)
    if isinstance(expected, tuple) and isinstance(expected[0], type):
        assert found[0] is expected[0]
        assert found[1].replace("Absence", "") == expected[1]
    else:
        assert same_bits(found, expected)
    assert same_random_state(own, state)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_the_hosts_run_alone(name: str) -> None:
    """Without this a table of calls that all raise would compare nothing."""
    host = getattr(attr, name.removeprefix("Absence"))
    results = [run(host, seed, "tensors", {})[0] for seed in range(4)]
    result = results[0]
    if name == "AbsenceLayerFeaturePermutation":  # Captum 0.9.0 selects the target twice
        assert isinstance(result[0], type)
    else:
        assert not isinstance(result, tuple), result
        assert max(float(one.abs().sum()) for one in results) > 0  # one unit may be dead


@pytest.mark.parametrize("name", ADAPTERS)
def test_signatures_and_kinship(name: str) -> None:
    cls, host = ADAPTERS[name], getattr(attr, name.removeprefix("Absence"))
    assert cls.__bases__ == (AbsenceMethod, host)  # Captum's own class and nothing of its hierarchy mirrored
    assert inspect.signature(cls.attribute) == inspect.signature(host.attribute)
    own, theirs = inspect.signature(cls.__init__).parameters, inspect.signature(host.__init__).parameters
    assert list(own.values())[: len(theirs)] == list(theirs.values())
    added = list(own.values())[len(theirs) :]
    assert [(p.name, p.default) for p in added] == [("nontarget", "auto"), ("reference", None), ("evidence", "signed")]
    assert all(p.kind is p.KEYWORD_ONLY for p in added)
    neutral = build(cls, Net(), **NEUTRAL)
    assert isinstance(neutral, host)
    assert neutral.is_neutral
    for method in ("has_convergence_delta", "multiplies_by_inputs"):
        found, expected = (getattr(build(c, Net(), **o), method, None) for c, o in ((cls, NEUTRAL), (host, {})))
        assert (found() if callable(found) else found) == (expected() if callable(expected) else expected)

"""Captum's own table of test configurations, run over the neutral adapters: the same bits.

``captum.testing`` describes, for its target, JIT and data-parallel tests, models, layers, arguments
and the classes they suit. Here every row runs twice from one seed: with Captum's class, and with
ours in its neutral setting. `.ci/captum_suite.py` does the same inside Captum's test modules.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnLasso
from captum.attr import NoiseTunnel
from captum.testing.attr.helpers.gen_test_utils import get_target_layer, parse_test_config
from captum.testing.attr.helpers.test_config import config
from captum.testing.helpers.basic_models import BasicModel_MultiLayer
from torch import Tensor

import absence_plugins.captum as adapters

NEUTRAL: dict[str, Any] = {"nontarget": None, "reference": None, "evidence": "signed"}
NAMES = """
    IntegratedGradients DeepLift DeepLiftShap InputXGradient Saliency GuidedBackprop Deconvolution
    GuidedGradCam FeatureAblation FeaturePermutation Occlusion ShapleyValueSampling ShapleyValues
    LimeBase Lime LRP KernelShap GradientShap
    LayerConductance LayerGradientXActivation LayerActivation LayerFeaturePermutation
    LayerFeatureAblation InternalInfluence LayerGradCam LayerDeepLift LayerDeepLiftShap
    LayerGradientShap LayerIntegratedGradients LayerLRP
    NeuronConductance NeuronFeatureAblation NeuronGradient NeuronIntegratedGradients NeuronDeepLift
    NeuronDeepLiftShap NeuronGradientShap NeuronDeconvolution NeuronGuidedBackprop
""".split()

# Options that change how much is computed at a time. They must mean the same as in Captum.
CHUNKS = {"internal_batch_size": 3, "perturbations_per_eval": 2}


def same_bits(one: Any, other: Any) -> bool:
    """Whether two results of `attribute` agree in structure, dtype, device and every bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = (one.dtype, one.device, one.shape) == (other.dtype, other.device, other.shape)
        return alike and one.requires_grad == other.requires_grad and _bytes(one) == _bytes(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same_bits(*pair) for pair in pairs)
    return bool(one == other)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


def random_state() -> tuple[Any, ...]:
    """The states of the two global generators that Captum draws from."""
    return np.random.get_state(), torch.get_rng_state()


def set_random_state(state: tuple[Any, ...]) -> None:
    """Put the states of both global generators back."""
    np.random.set_state(state[0])
    torch.set_rng_state(state[1])


def same_random_state(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether the same random draws were made from both generators."""
    numpy_alike = np.array_equal(one[0][1], other[0][1]) and one[0][2:] == other[0][2:]
    return numpy_alike and torch.equal(one[1], other[1])


def _perturb(inputs: Tensor, **kwargs: Any) -> Tensor:
    return torch.bernoulli(torch.full((1, kwargs["num_interp_features"]), 0.5))


def _keep(sample: Tensor, inputs: Tensor, **kwargs: Any) -> Tensor:
    return inputs * sample


def _similarity(inputs: Tensor, perturbed: Tensor, sample: Tensor, **kwargs: Any) -> float:
    return float(torch.exp(-(inputs - perturbed).square().mean()))


def _own_rows() -> Iterator[dict[str, Any]]:
    """The three classes that Captum's table leaves out."""
    inputs = torch.arange(12.0).reshape(4, 3).sin()
    yield {
        "name": "own_shapley_values",
        "algorithms": [attr.ShapleyValues],
        "model": BasicModel_MultiLayer(),
        "attribute_args": {"inputs": inputs, "baselines": 0.5, "target": [0, 1, 1, 0]},
    }
    # No target: Captum 0.9.0 selects the target twice here, and any target raises.
    yield {
        "name": "own_layer_permutation",
        "algorithms": [attr.LayerFeaturePermutation],
        "model": BasicModel_MultiLayer(),
        "layer": "linear0",
        "attribute_args": {"inputs": inputs},
    }
    yield {
        "name": "own_lime_base",
        "algorithms": [attr.LimeBase],
        "model": BasicModel_MultiLayer(),
        "constructor_args": (SkLearnLasso(alpha=0.01), _similarity, _perturb, True, _keep, None),
        "attribute_args": {"inputs": inputs[:1], "target": 0, "num_interp_features": 3},
    }


QUICK = 2  # rows of a class in the fast tests; Captum's table has up to thirty of each
HEAVY = "multi"  # in the name of rows of many samples


def _rows() -> Iterator[Any]:
    """Every row and class of the table; all but a few of each class are slow."""
    seen: Counter[str] = Counter()
    for row in [*config, *_own_rows()]:
        for host in row["algorithms"]:
            is_heavy = HEAVY in row["name"] and "Shap" in host.__name__
            seen[host.__name__] += not is_heavy
            is_slow = is_heavy or seen[host.__name__] > QUICK
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(row, host, id=f"{row['name']}-{host.__name__}", marks=marks)


ROWS = list(_rows())


def _variants(method: Any, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row's arguments, and again with every option that the class has on top."""
    yield arguments
    options = inspect.signature(method.attribute).parameters
    more = {name: value for name, value in CHUNKS.items() if name in options}
    if "return_convergence_delta" in options and not isinstance(method, NoiseTunnel):
        more["return_convergence_delta"] = True
    more = {name: value for name, value in more.items() if name not in arguments}
    if more:
        yield {**arguments, **more}


def _results(cls: type, row: dict[str, Any], options: dict[str, Any]) -> list[Any]:
    """All results of one class on one row, each with the random state that it leaves behind."""
    _, model, arguments, layer, noise_tunnel, _ = parse_test_config(row)
    model, arguments = copy.deepcopy((model, arguments))
    place = [] if layer is None else [get_target_layer(model, layer)]
    method = cls(model, *place, *row.get("constructor_args", ()), **options)
    if noise_tunnel:
        method = NoiseTunnel(method)
    results: list[Any] = []
    for variant in _variants(method, arguments):
        torch.manual_seed(0)
        np.random.seed(0)
        try:
            result = method.attribute(**variant)
        except Exception as error:  # the adapter must refuse what its host refuses
            result = (type(error), str(error))
        results.append((result, random_state()))
    return results


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "host"), ROWS)
def test_neutral_adapter_returns_the_bits_of_its_host(row: dict[str, Any], host: type) -> None:
    expected = _results(host, row, {})
    actual = _results(getattr(adapters, f"Absence{host.__name__}"), row, NEUTRAL)
    assert not _is_error(expected[0][0]), "this row must run with Captum alone"
    for (one, one_state), (other, other_state) in zip(expected, actual, strict=True):
        assert same_bits(one, other)
        assert same_random_state(one_state, other_state)


def _is_error(result: Any) -> bool:
    return isinstance(result, tuple) and isinstance(result[0], type)


def test_the_rows_cover_every_adapter() -> None:
    assert {param.values[1].__name__ for param in ROWS} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_adapter_is_a_subclass_with_the_signature_of_its_host(name: str) -> None:
    host, adapter = getattr(attr, name), getattr(adapters, f"Absence{name}")
    assert issubclass(adapter, host)
    ours = inspect.signature(adapter.attribute).parameters
    theirs = inspect.signature(host.attribute).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_the_comparison_sees_one_bit() -> None:
    one = torch.ones(3)
    other = one.clone()
    other[1] = torch.nextafter(other[1], torch.tensor(2.0))
    assert same_bits((one, [one]), (one.clone(), [one.clone()]))
    assert not same_bits((one, [one]), (one, [other]))
    assert not same_bits(one, one.double())

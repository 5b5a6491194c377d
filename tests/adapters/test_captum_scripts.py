"""Scripts in the shapes of Captum's tutorials, with one changed line: the import of captum.attr."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

import matplotlib
import pytest
import torch
from script_runs import FOLDER, Run, differing, run, scripts, swapped

from absence_plugins.captum import AbsenceMethod

matplotlib.use("Agg")


def named(names: Iterable[str]) -> list[Any]:
    """The scripts as parameters; those of language models need transformers."""
    needs = pytest.mark.needs("transformers")
    uses = {name for name in scripts("captum") if "transformers" in (FOLDER / f"captum_{name}.py").read_text()}
    return [pytest.param(name, marks=needs) if name in uses else name for name in names]


@functools.cache
def runs(name: str) -> tuple[Run, Run]:
    """A script as it is written, and with its changed line."""
    source = (FOLDER / f"captum_{name}.py").read_text()
    changed = swapped(source, r"^(from|import) captum\.attr( import| as)", r"\1 absence_plugins.captum.attr\2")
    return run(f"captum_{name}"), run(f"captum_{name}", changed, AbsenceMethod)


@pytest.mark.parametrize("name", named(scripts("captum")))
def test_the_changed_line_raises_nothing_and_keeps_the_form_of_the_results(name: str) -> None:
    differing(*runs(name))


ONE_OUTPUT = (
    "data_loader",
    "imdb",
    "language_model",
    "question_answering",
    "regression",
    "series_lstm",
    "squad",
    "tcav",
)
ENDS_IN_SIGMOID = ("sparse_dense", "text_embeddings")
SAME = {  # results that are Captum's own, or a neuron's; of the other scripts with several outputs none is
    "feature_permutation": {"loss", "loss, columns off"},
    "guided_grad_cam": {"deconvolution", "guided cam", "neuron"},
    "layers": {"activation"},
    "neurons": {"ablation", "deep lift", "gradient", "ig", "summed"},
    "segmentation": {"activations"},
    "star_import": {"Deconvolution"},
    "visualization": {"panels"},
}


@pytest.mark.parametrize("name", named(ONE_OUTPUT))
def test_the_map_of_one_output_is_the_hosts(name: str) -> None:
    """Of TCAV: of the class that it asks for."""
    plain, other = runs(name)
    assert not differing(plain, other)
    assert {words for one in other.explanations for words in one.words()} <= {"the output", "logit 0"}
    assert any(said in other.words for said in ("single output", "TCAV asks", "Captum's own", "explained: the output"))


@pytest.mark.parametrize("name", ENDS_IN_SIGMOID)
def test_the_map_of_one_probability_is_that_of_its_logit_and_says_so(name: str) -> None:
    plain, other = runs(name)
    for result, value in plain.result.items():
        one, own = (torch.as_tensor(run.result[result]).detach().double().flatten() for run in (plain, other))
        assert float(torch.cosine_similarity(one, own, dim=0)) > 0.9, (result, value)
    assert "the model ends in a sigmoid; its input, the logits, is explained" in other.warned
    assert {words for one in other.explanations for words in one.words()} == {"the output"}


@pytest.mark.parametrize("name", named(sorted({*scripts("captum")} - {*ONE_OUTPUT, *ENDS_IN_SIGMOID})))
def test_where_a_map_is_of_another_output_the_explanation_says_which(name: str) -> None:
    plain, other = runs(name)
    maps = {result for result in plain.result if "delta" not in result}
    assert maps - differing(plain, other) == SAME.get(name, set())
    of_outputs = [one for one in other.explanations if one.target is not None]
    assert of_outputs
    for one in of_outputs:
        for words, target in zip(one.words(), one.target.tolist(), strict=True):
            assert f", which is not the target {target}" in words
            assert not words.startswith((f"logit {target} ", f"logit {target},"))


SAID = {
    "data_loader": "the map is Captum's own: DataLoaderAttribution explains one number of the whole data set",
    "feature_permutation": "the map is Captum's own: the model must return one row of outputs per sample (32)",
    "guided_grad_cam": "AbsenceGuidedGradCam cannot show absences: .*AbsenceDeconvolution cannot show absences: ",
    "language_model": "the map is Captum's own: LLMAttribution explains the probabilities of an answer",
    "layers": "the map of AbsenceLayerGradCam has no sign: .*AbsenceLayerActivation cannot show absences: ",
    "noise_tunnel_squares": "nt_type='smoothgrad_sq' has no sign.*nt_type='vargrad' has no sign",
    "regression": "the model has a single output, so there is no other neuron to explain",
    "saliency": "the map of AbsenceSaliency has no sign: abs=True takes absolute values",
    "segmentation": "AbsenceLayerActivation cannot show absences: ",
    "star_import": "AbsenceDeconvolution cannot show absences: ",
    "tabular_softmax": "the model ends in a softmax .*the logits, is explained",
    "tcav": "TCAV asks AbsenceLayerIntegratedGradients for a class, so the logit of that class is explained",
}


@pytest.mark.parametrize("name", named(SAID))
def test_what_differs_from_the_host_is_warned_of(name: str) -> None:
    pattern = re.sub(r"([()])", r"\\\1", SAID[name])
    assert re.search(pattern, "\n".join(runs(name)[1].warned), re.DOTALL)
    assert not runs(name)[0].warned

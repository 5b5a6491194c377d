"""Language models: Captum's wrappers take our methods, and ours tell why this answer and not that one."""

from __future__ import annotations

import itertools
import math
import pickle
import warnings
from typing import Any

import matplotlib
import pytest
import torch
from captum import attr
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.captum import (
    AbsenceLLMAttribution,
    AbsenceLLMAttributionResult,
    AbsenceLLMGradientAttribution,
    AbsenceRemoteLLMAttribution,
)
from absence_plugins.core import AbsenceWarning

matplotlib.use("Agg")
pytestmark = pytest.mark.needs("transformers")

WORDS = "<pad> Dave lives in Palm Coast , and likes golf tennis".split()
PROMPT, ANSWER, FOIL = "Dave lives in Coast", "and likes golf", "likes tennis"
PERTURBING = ("FeatureAblation", "ShapleyValueSampling", "ShapleyValues", "Lime", "KernelShap")


class Tokenizer:
    """Words in a list, in the manner of a pretrained tokenizer."""

    def encode(self, text: str, return_tensors: str | None = None, **_: Any) -> Any:
        ids = [WORDS.index(word) for word in text.split()]
        return torch.tensor([ids]) if return_tensors == "pt" else ids

    def decode(self, ids: Any, **_: Any) -> str:
        return " ".join(self.convert_ids_to_tokens(ids))

    def convert_ids_to_tokens(self, ids: Any) -> list[str]:
        return [WORDS[k] for k in torch.as_tensor(ids).flatten().tolist()]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return WORDS.index(tokens) if isinstance(tokens, str) else [WORDS.index(word) for word in tokens]

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        starts = [0] + [k + 1 for k, letter in enumerate(text) if letter == " "]
        spans = [(start, start + len(word)) for start, word in zip(starts, text.split(), strict=True)]
        return {"input_ids": self.encode(text), "offset_mapping": spans}


TOKENIZER = Tokenizer()


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=8, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def prompt(**options: Any) -> Any:
    return attr.TextTokenInput(PROMPT, TOKENIZER, baselines="<pad>", **options)


def log_p(model: Any, ids: list[int], answer: list[int]) -> float:
    """log p(answer | prompt), written again."""
    scores = model(torch.tensor([ids + answer])).logits[0].log_softmax(-1).detach()
    return float(sum(scores[len(ids) - 1 + k, token] for k, token in enumerate(answer)))


def difference(model: Any, kept: tuple[int, ...], answer: str = ANSWER, foil: str | None = FOIL) -> float:
    """log p(answer) - log p(foil) on the prompt of which some tokens are kept and the others are padding."""
    ids = [token if k in kept else 0 for k, token in enumerate(TOKENIZER.encode(PROMPT))]
    own = log_p(model, ids, TOKENIZER.encode(answer))
    return own if foil is None else own - log_p(model, ids, TOKENIZER.encode(foil))


def shapley(model: Any, foil: str | None = FOIL) -> list[float]:
    """Over all subsets, with their weights."""
    tokens, found = range(4), []
    for token in tokens:
        others = [one for one in tokens if one != token]
        total = 0.0
        for size in range(4):
            weight = math.factorial(size) * math.factorial(3 - size) / math.factorial(4)
            for subset in itertools.combinations(others, size):
                with_it = difference(model, (*subset, token), foil=foil)
                total += weight * (with_it - difference(model, subset, foil=foil))
        found.append(total)
    return found


def ours(name: str, model: Any, **options: Any) -> Any:
    return getattr(adapters, f"Absence{name}")(model, **options)


def asked(wrapper: Any, target: Any = ANSWER, **options: Any) -> Any:
    torch.manual_seed(3)
    if isinstance(wrapper, attr.LLMAttribution):
        options.setdefault("use_cached_outputs", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)
        return wrapper.attribute(prompt(), target, **options)


# -- our methods in Captum's wrappers, and both in ours ----------------------------------------------


@pytest.mark.parametrize("name", PERTURBING)
@pytest.mark.parametrize("attr_target", ["log_prob", "prob"])
def test_without_a_foil_every_combination_is_captum_bit_for_bit(name: str, attr_target: str) -> None:
    model = gpt2().float()
    options: dict[str, Any] = {"forward_in_tokens": False}
    options |= {} if name in ("FeatureAblation", "ShapleyValues") else {"n_samples": 3}
    host = asked(attr.LLMAttribution(getattr(attr, name)(model), TOKENIZER, attr_target), **options)
    for wrapper in (attr.LLMAttribution, AbsenceLLMAttribution):
        for method in (ours(name, model), ours(name, model, nontarget=None), getattr(attr, name)(model)):
            found = asked(wrapper(method, TOKENIZER, attr_target), **options)
            assert torch.equal(found.seq_attr, host.seq_attr)
            assert (found.token_attr is None) == (host.token_attr is None)
            assert host.token_attr is None or torch.equal(found.token_attr, host.token_attr)
            assert found.input_tokens == host.input_tokens
            assert found.output_tokens == host.output_tokens
    assert isinstance(found, AbsenceLLMAttributionResult)


@pytest.mark.parametrize("name", ["LayerIntegratedGradients", "LayerGradientXActivation", "LayerGradientShap"])
def test_gradients_without_a_foil_are_captums(name: str) -> None:
    model = gpt2().float()
    options: dict[str, Any] = {"baselines": torch.zeros(1, 4)} if name.endswith("Shap") else {}
    options |= {"n_steps": 3} if "Integrated" in name else {}
    host = asked(attr.LLMGradientAttribution(getattr(attr, name)(model, model.transformer.wte), TOKENIZER), **options)
    methods = [adapters.__dict__[f"Absence{name}"](model, "transformer.wte", nontarget=None)]
    methods += [] if name.endswith("Shap") else [adapters.__dict__[f"Absence{name}"](model, "transformer.wte")]
    for wrapper in (attr.LLMGradientAttribution, AbsenceLLMGradientAttribution):
        for method in methods:
            found = asked(wrapper(method, TOKENIZER), **options)
            assert torch.equal(found.token_attr, host.token_attr)
            assert torch.equal(found.seq_attr, host.seq_attr)


def test_the_map_of_an_answer_is_said_to_be_captums_and_the_foil_is_named() -> None:
    model = gpt2()
    embedding = model.transformer.wte
    for wrapper, method, options in (
        (AbsenceLLMAttribution, ours("FeatureAblation", model), {"use_cached_outputs": False}),
        (AbsenceLLMGradientAttribution, adapters.AbsenceLayerIntegratedGradients(model, embedding), {"n_steps": 2}),
    ):
        with pytest.warns(
            AbsenceWarning, match=r"the map is Captum's own: LLM.*foil='another answer' asks why"
        ) as said:
            wrapper(method, TOKENIZER).attribute(prompt(), ANSWER, **options)
        assert len(said) == 1
        assert said[0].filename == __file__
    for method in (ours("FeatureAblation", model, nontarget=None), ours("FeatureAblation", model, nontarget="target")):
        with warnings.catch_warnings():
            warnings.simplefilter("error", AbsenceWarning)
            AbsenceLLMAttribution(method, TOKENIZER).attribute(prompt(), ANSWER)
            contrasting = AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER)
            contrasting.attribute(prompt(), ANSWER, foil=FOIL, use_cached_outputs=False)


# -- why this answer and not that one ----------------------------------------------------------------


@pytest.mark.parametrize("in_tokens", [True, False])
def test_ablation_of_the_difference_written_again(in_tokens: bool) -> None:
    model = gpt2()
    found = asked(
        AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER), foil=FOIL, forward_in_tokens=in_tokens
    )
    whole, tokens = tuple(range(4)), range(4)
    expected = [difference(model, whole) - difference(model, tuple(one for one in tokens if one != k)) for k in tokens]
    assert torch.allclose(found.seq_attr, torch.tensor(expected), atol=1e-5)
    assert float(found.seq_attr.abs().min()) > 1e-3
    assert found.token_attr is None
    assert found.answer is not None
    assert found.foil is not None
    assert torch.equal(found.seq_attr, found.answer.seq_attr - found.foil.seq_attr)
    host = attr.LLMAttribution(attr.FeatureAblation(model), TOKENIZER)
    for part, target in ((found.answer, ANSWER), (found.foil, FOIL)):
        alone = asked(host, target, forward_in_tokens=in_tokens)
        assert torch.equal(part.seq_attr, alone.seq_attr)
        assert torch.equal(part.token_attr, alone.token_attr)


@pytest.mark.parametrize("name", ["ShapleyValues", "KernelShap", "ShapleyValueSampling"])
def test_shapley_values_of_the_difference_written_again(name: str) -> None:
    model = gpt2()
    options = {"ShapleyValues": {}, "KernelShap": {"n_samples": 100}, "ShapleyValueSampling": {"n_samples": 40}}[name]
    wrapper = AbsenceLLMAttribution(ours(name, model), TOKENIZER)
    found = asked(wrapper, foil=FOIL, forward_in_tokens=False, **options)
    tolerance = 1e-5 if name == "ShapleyValues" else 0.1
    assert torch.allclose(found.seq_attr, torch.tensor(shapley(model)), atol=tolerance)
    total = difference(model, (0, 1, 2, 3)) - difference(model, ())
    assert abs(float(found.seq_attr.sum()) - total) < 1e-4
    assert (found.answer is None) == (name == "KernelShap")


def test_a_lime_of_the_difference_and_probabilities() -> None:
    model = gpt2()
    linear = adapters.AbsenceLime(model, interpretable_model=adapters.perturbations.SkLearnLinearRegression())
    found = asked(AbsenceLLMAttribution(linear, TOKENIZER), foil=FOIL, n_samples=8, forward_in_tokens=False)
    assert found.seq_attr.shape == (4,)
    ablation = AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER, "prob")
    found = asked(ablation, foil=FOIL)
    assert found.words() == "p('and likes golf') - p('likes tennis')"
    ids, others = TOKENIZER.encode(PROMPT), [0, *TOKENIZER.encode(PROMPT)[1:]]
    p = [[math.exp(log_p(model, one, TOKENIZER.encode(text))) for text in (ANSWER, FOIL)] for one in (ids, others)]
    assert abs(float(found.seq_attr[0]) - (p[0][0] - p[0][1] - p[1][0] + p[1][1])) < 1e-6


@pytest.mark.parametrize("name", ["LayerIntegratedGradients", "LayerDeepLift"])
def test_gradients_of_the_difference_are_complete(name: str) -> None:
    model = gpt2()
    method = adapters.__dict__[f"Absence{name}"](model, "transformer.wte")
    options = {"n_steps": 100} if "Gradients" in name else {}
    found = asked(AbsenceLLMGradientAttribution(method, TOKENIZER), foil=FOIL, **options)
    total = difference(model, (0, 1, 2, 3)) - difference(model, ())
    assert abs(float(found.seq_attr.sum()) - total) < (1e-6 if options else 1e-10)
    assert torch.equal(found.seq_attr, found.answer.seq_attr - found.foil.seq_attr)
    own = difference(model, (0, 1, 2, 3), foil=None) - difference(model, (), foil=None)
    assert abs(float(found.answer.seq_attr.sum()) - own) < (1e-6 if options else 1e-10)


def test_integrated_gradients_of_the_difference_written_again() -> None:
    """The path of the prompt's embeddings; the answers' own tokens stand still."""
    model = gpt2()
    wte, steps = model.transformer.wte, 100
    x, r = wte(TOKENIZER.encode(PROMPT, "pt")).detach(), wte(torch.zeros(1, 4, dtype=torch.long)).detach()

    def explained(embedded: Tensor) -> Tensor:
        total = torch.zeros(())
        for text, sign in ((ANSWER, 1), (FOIL, -1)):
            ids = TOKENIZER.encode(text)
            whole = torch.cat([embedded, wte(torch.tensor([ids])).detach()], 1)
            scores = model(inputs_embeds=whole).logits[0].log_softmax(-1)
            total = total + sign * sum(scores[3 + k, token] for k, token in enumerate(ids))
        return total

    mean = torch.zeros_like(x)
    for step in range(steps):
        point = (r + (step + 0.5) / steps * (x - r)).requires_grad_()
        mean += torch.autograd.grad(explained(point), point)[0] / steps
    method = adapters.AbsenceLayerIntegratedGradients(model, wte)
    found = asked(AbsenceLLMGradientAttribution(method, TOKENIZER), foil=FOIL, n_steps=50)
    assert torch.allclose(found.seq_attr, ((x - r) * mean).sum(-1)[0], atol=1e-4)


def test_a_template_says_what_a_prompt_lacks_and_groups_are_kept() -> None:
    """Against the baseline's words: R is that of the exchange of both."""
    model = gpt2()
    given = attr.TextTemplateInput("{} lives in {} {}", ["Dave", "Palm", "Coast"], ["Dave", "golf", "golf"], [0, 1, 1])
    wrapper = AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER)
    found = wrapper.attribute(given, ANSWER, foil=FOIL, use_cached_outputs=False)

    def value(text: str) -> float:
        ids = TOKENIZER.encode(text)
        return log_p(model, ids, TOKENIZER.encode(ANSWER)) - log_p(model, ids, TOKENIZER.encode(FOIL))

    both = value("Dave lives in Palm Coast") - value("Dave lives in golf golf")
    assert torch.allclose(found.seq_attr, torch.tensor([0.0, both, both]), atol=1e-5)


class Hosted:
    """A model that is hosted elsewhere."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def get_logprobs(self, input_prompt: str, target_str: str, tokenizer: Any) -> list[float]:
        ids, answer = tokenizer.encode(input_prompt), tokenizer.encode(target_str)
        scores = self.model(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
        return [float(scores[len(ids) - 1 + k, token]) for k, token in enumerate(answer)]


def test_a_hosted_model() -> None:
    model = gpt2()
    placeholder = attr.RemoteLLMAttribution.placeholder_model
    host = asked(attr.RemoteLLMAttribution(attr.FeatureAblation(placeholder), TOKENIZER, Hosted(model)))
    taken = asked(attr.RemoteLLMAttribution(ours("FeatureAblation", placeholder), TOKENIZER, Hosted(model)))
    wrapper = AbsenceRemoteLLMAttribution(ours("FeatureAblation", placeholder), TOKENIZER, Hosted(model))
    assert torch.equal(asked(wrapper).token_attr, host.token_attr)
    assert torch.equal(taken.token_attr, host.token_attr)
    local = asked(AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER), foil=FOIL)
    assert torch.allclose(asked(wrapper, foil=FOIL).seq_attr, local.seq_attr, atol=1e-5)


def test_a_planted_answer_is_explained_by_its_token() -> None:
    """ "Dave" raises golf over tennis by 2 and nothing else differs, so that both raise alone shows nothing."""

    class Likes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Embedding(len(WORDS), len(WORDS), _weight=torch.zeros(len(WORDS), len(WORDS)))
            self.scores.weight.data[1, 9], self.scores.weight.data[3, 9:] = 2.0, 5.0

        def forward(self, input_ids: Tensor, **_: Any) -> Any:
            from types import SimpleNamespace

            return SimpleNamespace(logits=self.scores(input_ids).cumsum(1))

    wrapper = AbsenceLLMAttribution(ours("ShapleyValues", Likes().eval()), TOKENIZER)
    found = asked(wrapper, "golf", foil="tennis")
    assert torch.allclose(found.seq_attr, torch.tensor([2.0, 0.0, 0.0, 0.0]), atol=1e-5)
    assert found.answer.seq_attr[2] > found.answer.seq_attr[0] > 0


def test_a_cache_that_does_not_fit_the_model_is_not_used() -> None:
    """Captum's default hands on a cache, which in some versions of transformers gives other probabilities."""
    model = gpt2()
    wrapper = AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER)
    right = asked(wrapper, foil=FOIL)
    ids = torch.tensor(TOKENIZER.encode(ANSWER))
    with_cache, without = (float(wrapper._forward_func(None, prompt(), ids, one)[0, 0]) for one in (True, False))
    assert abs(without - difference(model, (0, 1, 2, 3), foil=None)) < 1e-10
    is_off = abs(with_cache - without) > 0.1
    for options, remedy in (({"foil": FOIL}, "explained without the cache"), ({}, "pass use_cached_outputs=False")):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = wrapper.attribute(prompt(), ANSWER, **options)
        said = [str(one.message) for one in seen if "cached outputs" in str(one.message)]
        assert len(said) == is_off
        assert not said or remedy in said[0]
        if options:
            assert torch.equal(found.seq_attr, right.seq_attr)


# -- what is rejected --------------------------------------------------------------------------------


def references() -> ReferenceSet:
    return ReferenceSet(torch.tensor([[1, 2, 3, 9]]), k=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nontarget": "runner_up"}, "no row of classes; .*foil="),
        ({"nontarget": 3}, "no row of classes; .*foil="),
        ({"nontarget": "negated"}, "no row of classes"),
        ({"reference": references()}, "compared with the baselines of its input"),
        ({"evidence": "absence"}, "returns signed maps"),
    ],
)
def test_options_without_a_meaning_for_an_answer_name_the_remedy(options: Any, words: str) -> None:
    model = gpt2()
    with pytest.raises(ValueError, match=words):
        AbsenceLLMAttribution(ours("FeatureAblation", model, **options), TOKENIZER)
    method = adapters.AbsenceLayerIntegratedGradients(model, "transformer.wte", **options)
    with pytest.raises(ValueError, match=words):
        AbsenceLLMGradientAttribution(method, TOKENIZER)


def test_methods_that_no_wrapper_takes_name_the_one_that_does() -> None:
    model = gpt2()
    gradients = adapters.AbsenceLayerIntegratedGradients(model, "transformer.wte")
    with pytest.raises(TypeError, match="no AbsenceLayerIntegratedGradients; use AbsenceLLMGradientAttribution"):
        AbsenceLLMAttribution(gradients, TOKENIZER)
    with pytest.raises(TypeError, match="no AbsenceFeatureAblation; use AbsenceLLMAttribution"):
        AbsenceLLMGradientAttribution(ours("FeatureAblation", model), TOKENIZER)
    with pytest.raises(TypeError, match=r"AbsenceLayerDeepLift, and no AbsenceSaliency; use .*AbsenceLayerIntegrated"):
        AbsenceLLMGradientAttribution(ours("Saliency", model), TOKENIZER)
    plain = adapters.AbsenceLayerDeepLift(model, "transformer.wte", nontarget=None)
    with pytest.raises(ValueError, match="nontarget=None, which is Captum's own class"):
        AbsenceLLMGradientAttribution(plain, TOKENIZER)
    shap = adapters.AbsenceLayerGradientShap(model, "transformer.wte")
    with pytest.raises(ValueError, match="gradients are those at the baseline alone; use AbsenceLayerIntegrated"):
        AbsenceLLMGradientAttribution(shap, TOKENIZER)


def test_gradient_shap_sees_the_baseline_alone() -> None:
    """Why it is rejected: Captum's map of it is (e(x) - e(r)) times the gradient at the baseline, for every draw."""
    model = gpt2()
    wte = model.transformer.wte
    x, r = wte(TOKENIZER.encode(PROMPT, "pt")).detach(), wte(torch.zeros(1, 4, dtype=torch.long)).detach()
    r.requires_grad_()
    score = model(inputs_embeds=r).logits[0, -1].log_softmax(-1)[WORDS.index("golf")]
    expected = ((x - r) * torch.autograd.grad(score, r)[0]).sum(-1)
    host = attr.LLMGradientAttribution(attr.LayerGradientShap(model, wte), TOKENIZER)
    found = host.attribute(prompt(), "golf", baselines=torch.zeros(1, 4), n_samples=5)
    assert torch.allclose(found.token_attr, expected)


def test_references_in_captums_wrappers_are_rejected_too() -> None:
    """Its inputs are which tokens are kept, [1, 1, 1, 1], and these would be compared with token ids."""
    model = gpt2()
    method = adapters.AbsenceLayerIntegratedGradients(model, "transformer.wte", reference=references())
    with pytest.raises(ValueError, match=r"which tokens of a prompt are kept, not their ids.*baselines='<pad>'"):
        attr.LLMGradientAttribution(method, TOKENIZER).attribute(prompt(), ANSWER)
    with pytest.raises(ValueError, match="AbsenceLLMAttribution with foil="):
        attr.LLMAttribution(ours("FeatureAblation", model, nontarget=2), TOKENIZER).attribute(prompt(), ANSWER)


@pytest.mark.parametrize(("foil", "words"), [(ANSWER, "is the answer itself"), ("", "the foil has no token")])
def test_foils_that_are_none(foil: str, words: str) -> None:
    model = gpt2()
    gradients = adapters.AbsenceLayerIntegratedGradients(model, "transformer.wte")
    for wrapper in (
        AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER),
        AbsenceLLMGradientAttribution(gradients, TOKENIZER),
    ):
        with pytest.raises(ValueError, match=words):
            wrapper.attribute(prompt(), ANSWER, foil=foil)


# -- the result --------------------------------------------------------------------------------------


def test_the_result_says_what_red_and_blue_mean() -> None:
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_hex

    model = gpt2()
    wrapper = AbsenceLLMAttribution(ours("FeatureAblation", model), TOKENIZER)
    found = asked(wrapper, foil=torch.tensor([8, 10]))
    assert found.words() == "log p('and likes golf') - log p('likes tennis')"
    assert found.legend() == ("speaks for 'and likes golf'", "speaks for 'likes tennis'")
    assert "red speaks for 'and likes golf'" in repr(found)
    figure, axes = found.plot_seq_attr()
    for bars, color in zip(axes.containers, ("#d93636", "#2a6fc6"), strict=True):
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {color}
    assert all(bar.get_height() >= 0 for bar in axes.containers[0])
    assert "red (above 0): speaks for 'and likes golf'" in axes.get_ylabel()
    with pytest.raises(ValueError, match="the foil has tokens of its own"):
        found.plot_token_attr()
    own, axes = found.answer.plot_token_attr()
    assert "red (above 0): raises log p('and likes golf')" in own.axes[-1].get_ylabel()
    colors = axes.images[0].cmap
    assert to_hex(colors(0.5)) == "#ffffff"
    assert colors(1.0)[0] > colors(1.0)[2]
    assert colors(0.0)[2] > colors(0.0)[0]
    plt.close(figure)
    plt.close(own)
    again = pickle.loads(pickle.dumps(found.contrast))
    assert again == found.contrast


def test_the_model_and_the_method_stay_as_they_were() -> None:
    model = gpt2()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = ours("FeatureAblation", model)
    asked(AbsenceLLMAttribution(method, TOKENIZER), foil=FOIL)
    gradients = adapters.AbsenceLayerIntegratedGradients(model, "transformer.wte")
    asked(AbsenceLLMGradientAttribution(gradients, TOKENIZER), foil=FOIL, n_steps=3)
    assert method.nontarget == "auto"
    assert method.forward_func is model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

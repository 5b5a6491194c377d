"""Texts in Captum's adapters: maps at embedding layers, in closed form; what is missing, per token; clear errors."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from adapter_table import ADAPTERS, WITHOUT_BASELINE
from captum import attr
from torch import Tensor, nn

import absence_plugins.captum as adapters
import absence_plugins.zennit as zennit
from absence_plugins import ReferenceSet, TextKind
from absence_plugins.core import AbsenceWarning

WORDS = ("[PAD]", "[CLS]", "not", "good", "bad", "a", "the", "film", "was", "it")
PAD, CLS, NOT, GOOD, BAD, A, THE, FILM, WAS, IT = range(10)
KIND = TextKind(dict(enumerate(WORDS)), special=(PAD, CLS))


class Bag(nn.Module):
    """Logits w (sum of the tokens' embeddings): [B, T] -> [B, 3]. Every map of it is known on paper."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding, self.head = nn.Embedding(len(WORDS), 5), nn.Linear(5, 3, bias=False)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).sum(1))  # type: ignore[no-any-return]


IDS = torch.tensor([[CLS, THE, FILM, WAS, GOOD, PAD], [CLS, IT, WAS, A, GOOD, FILM]])
TEXTS = torch.tensor(
    [
        [CLS, THE, FILM, WAS, NOT, GOOD],
        [CLS, IT, WAS, A, BAD, PAD],
        [CLS, THE, FILM, WAS, BAD, PAD],
        [CLS, IT, WAS, GOOD, PAD, PAD],
    ]
)
LABELS = torch.tensor([1, 1, 1, 0])
AT_EMBEDDING = ("LayerIntegratedGradients", "LayerDeepLift", "LayerDeepLiftShap", "LayerLRP", "LayerFeatureAblation")


def references(k: int = 2) -> ReferenceSet:
    return ReferenceSet(TEXTS, LABELS, k=k, kind=KIND)


def contributions(net: Bag, ids: Tensor, others: Tensor, logit: int) -> Tensor:
    """R_token = w (e(x) - e(r)) on paper."""
    return (net.embedding.weight[ids] - net.embedding.weight[others]) @ net.head.weight[logit]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", AT_EMBEDDING)
def test_maps_of_a_linear_model_in_closed_form(name: str) -> None:
    net = Bag()
    found = ADAPTERS[f"Absence{name}"](net, "embedding", reference=references()).explain(IDS, target=0)
    assert found.kind is KIND
    assert found.inputs is not None
    assert torch.equal(found.inputs, IDS)
    drawn = found.references
    assert drawn is not None
    assert drawn.shape == (2, 2, 6)
    others = {tuple(row) for row in TEXTS[:3].tolist()}  # of the other class than the target's
    assert all(tuple(row) in others for row in drawn.flatten(0, 1).tolist())
    each = torch.stack([contributions(net, IDS, drawn[:, k], 0) for k in (0, 1)], 1)
    assert torch.allclose(found.per_reference.sum(-1), each, atol=1e-8)
    assert torch.allclose(found.attribution.sum(-1), each.mean(1), atol=1e-8)
    u, r = net(IDS)[:, 0], torch.stack([net(drawn[:, k])[:, 0] for k in (0, 1)], 1)
    assert torch.allclose(found.output, u)
    assert torch.allclose(found.reference_output, r)  # type: ignore[arg-type]
    assert torch.allclose(found.attribution.sum((1, 2)), u - r.mean(1), atol=1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", AT_EMBEDDING)
def test_presence_and_absence_of_tokens(name: str) -> None:
    """Missing: the reference has another token there that is no padding; evidence is that of the token's sum."""
    net = Bag()
    found = ADAPTERS[f"Absence{name}"](net, "embedding", reference=references()).explain(IDS, target=0)
    drawn = found.references
    assert drawn is not None
    present, absent = torch.zeros(2, 6, dtype=torch.float64), torch.zeros(2, 6, dtype=torch.float64)
    for sample in range(2):
        for place in range(6):
            for k in range(2):
                x, r = int(IDS[sample, place]), int(drawn[sample, k, place])
                share = contributions(net, torch.tensor(x), torch.tensor(r), 0) / 2
                if r not in (PAD, CLS) and r != x:
                    absent[sample, place] += share
                elif x not in (PAD, CLS):
                    present[sample, place] += share
    assert torch.allclose(found.absence.sum(-1), absent.clamp(min=0), atol=1e-8)
    assert torch.allclose(found.presence.sum(-1), present.clamp(min=0), atol=1e-8)
    assert float(found.absence.sum()) > 0
    assert float(found.presence.sum()) > 0


@pytest.mark.filterwarnings("ignore")
def test_a_planted_missing_word_is_found_and_the_blank_baseline_shows_nothing_there() -> None:
    """ "not" lowers logit 0: a text without it is compared with texts that have it."""
    net = Bag()
    net.embedding.weight.data.zero_()
    net.embedding.weight.data[NOT, 0], net.embedding.weight.data[GOOD, 1] = 1.0, 1.0
    net.head.weight.data.zero_()
    net.head.weight.data[0, 0], net.head.weight.data[0, 1] = -2.0, 1.0
    x = torch.tensor([[THE, FILM, WAS, PAD, GOOD]])
    negated = ReferenceSet(torch.tensor([[THE, FILM, WAS, NOT, GOOD]]), torch.tensor([1]), k=1, kind=KIND)
    found = adapters.AbsenceLayerIntegratedGradients(net, "embedding", reference=negated).explain(x, target=0)
    assert torch.allclose(found.absence.sum(-1), torch.tensor([[0.0, 0, 0, 2.0, 0]], dtype=torch.float64))
    standard = attr.LayerIntegratedGradients(net, net.embedding).attribute(x, torch.full_like(x, PAD), target=0)
    assert torch.allclose(standard.sum(-1), torch.tensor([[0.0, 0, 0, 0, 1.0]], dtype=torch.float64))


@pytest.mark.filterwarnings("ignore")
def test_padding_and_special_tokens_are_no_evidence() -> None:
    """Their relevance counts in the sum, and in neither part."""
    net = Bag()

    def forward(ids: Tensor) -> Tensor:
        embedded = net.embedding(ids)
        return net.head(embedded.sum(1) * embedded[:, :1, 0])  # type: ignore[no-any-return]  # of [CLS]

    for options in ({}, {"nontarget": 1}):
        method = adapters.AbsenceLayerGradientXActivation(forward, net.embedding, nontarget="target")
        assert float(method.attribute(IDS, target=0)[:, 0].abs().sum()) > 0
        path = adapters.AbsenceLayerFeatureAblation(forward, net.embedding, reference=references(1), **options)
        found = path.explain(IDS, target=0)
        for part in (found.presence, found.absence):
            assert float(part[:, 0].sum()) == 0
    at_neuron = adapters.AbsenceNeuronDeepLift(net, net.head, reference=references(1)).explain(IDS, neuron_selector=0)
    assert at_neuron.absence.shape == (2, 6, 5)
    assert torch.allclose(at_neuron.attribution.sum((1, 2)), at_neuron.output - at_neuron.reference_output[:, 0])


@pytest.mark.parametrize("name", AT_EMBEDDING)
def test_neutral_is_captum_bit_for_bit(name: str) -> None:
    net, pad = Bag(), torch.full_like(IDS, PAD)
    options: dict[str, Any] = {} if name in ("LayerLRP", "LayerFeatureAblation") else {"baselines": pad}
    ours = ADAPTERS[f"Absence{name}"](net, net.embedding, nontarget=None)
    try:
        host = getattr(attr, name)(net, net.embedding).attribute(IDS, target=0, **options)
    except Exception as error:  # Captum cannot run these on token ids
        assert name in ("LayerLRP", "LayerDeepLiftShap")
        with pytest.raises(type(error)):
            ours.attribute(IDS, target=0, **options)
        return
    assert torch.equal(ours.attribute(IDS, target=0, **options), host)


# -- transformers ------------------------------------------------------------------------------------


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16, attn_implementation="eager", num_labels=3,
    )  # fmt: skip
    model = BertForSequenceClassification(config).double().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
    return model  # type: ignore[no-any-return]


SENTENCES = torch.tensor([[2, 11, 12, 13, 3, 0, 0, 0], [2, 21, 22, 23, 24, 25, 3, 0]])
OTHERS = torch.tensor(
    [
        [2, 11, 14, 13, 3, 0, 0, 0],
        [2, 11, 12, 15, 3, 0, 0, 0],
        [2, 21, 25, 23, 24, 25, 3, 0],
        [2, 21, 22, 26, 24, 9, 3, 0],
    ]
)
MASK = (SENTENCES != 0).long()
BERT_KIND = TextKind({}, special=(0, 2, 3))


def others(**options: Any) -> ReferenceSet:
    return ReferenceSet(OTHERS, torch.tensor([1, 1, 2, 2]), k=2, kind=BERT_KIND, **options)


@pytest.mark.needs("transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["LayerIntegratedGradients", "LayerDeepLift"])
def test_a_hugging_face_model_with_its_mask_and_model_output(name: str) -> None:
    model = bert()
    method = ADAPTERS[f"Absence{name}"](model, "bert.embeddings.word_embeddings", reference=others())
    options: dict[str, Any] = {"n_steps": 100} if "Gradients" in name else {}
    found = method.explain(SENTENCES, target=0, additional_forward_args=(MASK,), **options)
    assert found.completeness_error.abs().max() < (1e-6 if options else 1e-12)
    drawn = found.references
    expected = torch.stack([model(drawn[:, k], MASK).logits[:, 0] for k in (0, 1)], 1)
    assert torch.allclose(found.reference_output, expected)
    differs = (drawn != SENTENCES[:, None]).any(1)
    assert torch.equal(found.attribution.abs().sum(-1) > 1e-12, differs)
    for row in range(2):
        alone = method.attribute(
            SENTENCES[row : row + 1], target=0, additional_forward_args=(MASK[row : row + 1],), **options
        )
        assert torch.allclose(alone, found.attribution[row : row + 1], atol=1e-9)


@pytest.mark.needs("transformers")
@pytest.mark.filterwarnings("ignore")
def test_several_embeddings_of_a_whole_batch() -> None:
    """Positions are one row for the whole batch, where Captum itself raises; against references they differ in nothing."""
    model = bert()
    parts = [getattr(model.bert.embeddings, f"{name}_embeddings") for name in ("word", "position", "token_type")]
    method = adapters.AbsenceLayerIntegratedGradients(model, parts, reference=others())
    found = method.explain(SENTENCES, target=0, additional_forward_args=(MASK,), n_steps=50)
    assert [part.shape for part in found.attribution] == [(2, 8, 8)] * 3
    assert found.completeness_error.abs().max() < 1e-6
    alone = adapters.AbsenceLayerIntegratedGradients(model, parts[0], reference=others())
    words = alone.explain(SENTENCES, target=0, additional_forward_args=(MASK,), n_steps=50)
    assert torch.allclose(found.attribution[0], words.attribution)
    assert torch.allclose(found.absence[0], words.absence)
    assert all(float(part.abs().max()) == 0 for part in found.attribution[1:])
    with pytest.raises(RuntimeError):
        attr.LayerIntegratedGradients(lambda *a: model(*a).logits, parts).attribute(
            SENTENCES, target=0, additional_forward_args=(MASK,), n_steps=5
        )


@pytest.mark.needs("transformers")
@pytest.mark.filterwarnings("ignore")
def test_several_embeddings_with_their_own_inputs_are_captums_where_neutral() -> None:
    model = bert()
    parts = [getattr(model.bert.embeddings, f"{name}_embeddings") for name in ("word", "token_type", "position")]

    def forward(ids: Tensor, types: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        found = model(ids, token_type_ids=types, position_ids=positions, attention_mask=mask)
        return found.logits  # type: ignore[no-any-return]

    positions = torch.arange(8).repeat(2, 1)
    inputs = (SENTENCES, torch.zeros_like(SENTENCES), positions)
    blank = (torch.where(SENTENCES > 3, 0, SENTENCES), torch.zeros_like(SENTENCES), torch.zeros_like(positions))
    call = {"baselines": blank, "target": 1, "additional_forward_args": (MASK,), "n_steps": 10}
    host = attr.LayerIntegratedGradients(forward, parts).attribute(inputs, **call)
    ours = adapters.AbsenceLayerIntegratedGradients(forward, parts, nontarget=None).attribute(inputs, **call)
    assert all(torch.equal(one, own) for one, own in zip(host, ours, strict=True))
    target = adapters.AbsenceLayerIntegratedGradients(forward, parts, nontarget="target").attribute(inputs, **call)
    assert all(torch.allclose(one, own) for one, own in zip(host, target, strict=True))


def test_layers_that_paths_lead_around_are_said_of_a_list_too() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Embedding(9, 2), nn.Embedding(9, 2), nn.Embedding(9, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return (self.a(ids) + self.b(ids) + self.c(ids)).sum(1)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Two().double().eval()
    ids = torch.tensor([[1, 2, 3]])
    for layers, is_said in (([net.a, net.b, net.c], False), ([net.a, net.b], True)):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            adapters.AbsenceLayerIntegratedGradients(net, layers).attribute(ids, target=0)
        said = [str(one.message) for one in seen if issubclass(one.category, AbsenceWarning)]
        assert any("does not sum to the difference" in words for words in said) is is_said


# -- attention masks ---------------------------------------------------------------------------------


class Masked(Bag):
    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return self.head((self.embedding(ids) * mask[..., None]).sum(1))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:samples .* have references")
@pytest.mark.parametrize("of_ones", [False, True])
def test_tokens_of_a_reference_behind_the_end_of_the_mask_are_named(of_ones: bool) -> None:
    net, x = Masked(), torch.tensor([[CLS, THE, FILM, PAD], [CLS, IT, WAS, GOOD]])
    longer = torch.tensor([[CLS, THE, FILM, BAD], [CLS, IT, WAS, BAD]])
    mask = torch.ones_like(x) if of_ones else (x != PAD).long()
    types = torch.tensor([[0, 0, 1, 1]] * 2)
    method = adapters.AbsenceLayerIntegratedGradients(
        net, net.embedding, reference=ReferenceSet(longer, k=1, kind=KIND), evidence="absence"
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = method.attribute(x, target=0, additional_forward_args=(mask, types))
    said = [one for one in seen if "attention mask" in str(one.message)]
    assert (found[0, 3].sum() == 0) or of_ones
    assert len(said) == (0 if of_ones else 1)
    for one in said:
        assert "samples [0] hides 1 tokens of their references" in str(one.message)
        assert one.filename == __file__


# -- token ids where numbers are needed: errors, never raw ones --------------------------------------

TOKENS_FIT = (
    "FeatureAblation FeaturePermutation KernelShap Lime Occlusion ShapleyValueSampling ShapleyValues LayerDeepLift "
    "LayerDeepLiftShap LayerFeatureAblation LayerFeaturePermutation LayerGradCam LayerGradientXActivation "
    "LayerIntegratedGradients LayerLRP NeuronDeepLift NeuronDeepLiftShap NeuronFeatureAblation"
).split()
LEFT_OUT = ("LimeBase", "LayerActivation", "NeuronDeconvolution", "Deconvolution", "GuidedGradCam")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_module", [True, False])
@pytest.mark.parametrize("name", sorted(name.removeprefix("Absence") for name in ADAPTERS))
def test_token_ids_are_explained_or_the_remedy_is_named(name: str, is_module: bool) -> None:
    net, cls = Bag(), ADAPTERS[f"Absence{name}"]
    needs_module = cls._host.__name__.endswith(("LRP", "GuidedBackprop"))
    if name in LEFT_OUT or (not is_module and needs_module):
        return
    model: Any = net if is_module else (lambda ids: net(ids))
    layers = (net.embedding,) if "Layer" in name or name == "InternalInfluence" else ()
    layers = (net.head,) if name.startswith("Neuron") else layers
    call: dict[str, Any] = {"neuron_selector": 0} if name.startswith("Neuron") else {}
    call |= {"target": 0} if cls._has("target") else {}
    call |= {"sliding_window_shapes": (1,)} if name == "Occlusion" else {}
    call |= {"feature_mask": torch.tensor([[0, 0, 1, 1, 2, 2]])} if "Shapley" in name else {}
    call |= {"baselines": torch.zeros_like(IDS)} if name.endswith("Shap") and name != "KernelShap" else {}
    method = cls(model, *layers)
    if name in TOKENS_FIT:
        assert len(method.attribute(IDS, **call)) == 2
        if f"Absence{name}" not in WITHOUT_BASELINE:
            call.pop("baselines", None)
            assert cls(model, *layers, reference=references()).explain(IDS, **call).kind is KIND
        return
    with pytest.raises(ValueError, match=r"AbsenceLayerIntegratedGradients\(model, |AbsenceNeuronDeepLift") as raised:
        method.attribute(IDS, **call)
    assert name.startswith("Neuron") or "relevance(model, ids, reference_ids)" in str(raised.value)


@pytest.mark.parametrize("has_composite", [True, False])
@pytest.mark.parametrize("name", ["Gradient", "SmoothGrad", "IntegratedGradients"])
@pytest.mark.parametrize("options", [{}, {"nontarget": "runner_up"}, {"reference": references(1)}])
def test_zennit_names_the_remedy_too(name: str, options: dict[str, Any], has_composite: bool) -> None:
    if has_composite and name == "IntegratedGradients":
        return  # takes no rules
    composite = zennit.AbsenceEpsilonPlusFlat() if has_composite else None
    with getattr(zennit, f"Absence{name}")(Bag().float(), composite, **options) as attributor:
        pattern = r"token ids.*AbsenceLayerIntegratedGradients\(model, model.embedding\)"
        with pytest.raises(ValueError, match=pattern) as raised:
            attributor(IDS, torch.eye(3)[[0, 0]])
    assert "relevance(model, ids, reference_ids)" in str(raised.value)


def test_a_mask_that_shows_padding_of_the_references_is_warned_of() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.head((self.embedding(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    net, kind = Mean().eval(), TextKind({number: f"w{number}" for number in range(9)}, (0, 1))
    x = torch.tensor([[1, 5, 6, 7], [1, 5, 0, 0]])
    references = ReferenceSet(torch.tensor([[1, 8, 0, 0]]), [0], kind=kind, k=1)
    method = adapters.AbsenceLayerIntegratedGradients(net, net.embedding, reference=references)
    for ids, seen in ((x, "samples [0] shows 2"), (x[:1], "samples [0] shows 2"), (x[1:], "")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method.explain(ids, target=1, additional_forward_args=((ids != 0).float(),), n_steps=2)
        said = [str(one.message) for one in caught if "tokens of padding of their references" in str(one.message)]
        assert len(said) == bool(seen)
        assert not seen or seen in said[0]

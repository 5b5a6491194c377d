"""What a model, its inputs and baselines must be before an absence can be read: checked before the first forward."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import captum.attr
import torch
from captum.attr import (
    DataLoaderAttribution,
    GradientAttribution,
    InternalInfluence,
    LayerConductance,
    LayerGradientShap,
    LLMAttribution,
)
from captum.attr._core.llm_attr import GradientForwardFunc
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from absence_plugins.captum.calls import Form, modules_of
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.choices import WORDS, check_rivals, check_word
from absence_plugins.core.maps import tree_map
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.running import INFERENCE, as_written, explained_running
from absence_plugins.core.scales import check_scales, measure_scale
from absence_plugins.core.scores import logits_of
from absence_plugins.core.training import describe_training, find_training

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
WRAPPERS = {  # classes of Captum's that take the place of the model, and what they explain
    DataLoaderAttribution: "one number of the whole data set",
    LLMAttribution: "the probabilities of an answer, all its tokens in one call",
}
INPUT_PATHS = (InternalInfluence, LayerConductance, LayerGradientShap)  # of a layer, along points between the inputs
NO_GRADIENT = ("does not require grad", "appears to not have been used in the graph")
FOIL = ", and ask absence_plugins.captum.AbsenceLLMAttribution with foil= why this answer and not another one"
NO_INDEX = (  # torch, where points between token ids, which are floating point numbers, index an embedding
    "argument #1 'indices' to have one of the following scalar types",
    "one_hot is only applicable to index tensor",
    "tensors used as indices must be long",
)
BY_RELEVANCE = "relevance(model, ids, reference_ids) of absence_plugins.relevance"


class OneNumber(ValueError):
    """A model returns no row of outputs per sample but numbers of a whole batch, data set or answer: there is no other
    output and no reference of them.
    """


def check_options(nontarget: Any, reference: Any, evidence: Any) -> None:
    """Reject options that no adapter takes.

    Raises:
        TypeError: ``reference`` is no ReferenceSet.
        ValueError: a word that is not known, or a runner-up among labels that are no rivals.
    """
    if evidence not in ("signed", "absence", "presence"):
        raise ValueError(f"evidence={evidence!r} must be 'signed', 'absence' or 'presence'")
    if reference is not None and not isinstance(reference, ReferenceSet):
        raise TypeError(
            f"reference must be a ReferenceSet, got {type(reference).__name__}; build one: ReferenceSet(images, labels)"
        )
    check_word(nontarget, known=(*WORDS, "auto"))
    check_rivals(nontarget, is_multi_label=reference is not None and reference.is_multi_label)


def check_model(
    model: Any, modules: Sequence[nn.Module], parameters: Sequence[Tensor], reference: ReferenceSet | None
) -> None:
    """Reject a model whose map would not be one of a fixed function of each sample.

    ``modules``, ``parameters``: the model's.

    Raises:
        ValueError: lazy modules, parameters of inference mode, batch norm in training mode, one number of a whole data
            set, references of a prompt.
    """
    others = [one for one in parameters if type(one) is not nn.Parameter]  # isinstance takes long
    if any(isinstance(one, UninitializedParameter) for one in others):
        raise ValueError("the model has lazy modules that have not seen an input yet; run it once before explaining it")
    if any(map(Tensor.is_inference, parameters)):
        raise ValueError(INFERENCE)
    owner = getattr(model, "__self__", None)
    for wrapper, explained in WRAPPERS.items() if owner is not None else ():
        if isinstance(owner, wrapper):
            raise OneNumber(
                f"{wrapper.__name__} explains {explained}, which has no non-target and no reference; give it the "
                f"neutral object: AbsenceFeatureAblation(model, nontarget=None){FOIL * (wrapper is LLMAttribution)}"
            )
    if isinstance(model, GradientForwardFunc) and reference is not None:
        raise ValueError(
            "LLMGradientAttribution hands on which tokens of a prompt are kept, not their ids, so that no references of "
            "token ids can be compared with them; name the baseline at the input, TextTokenInput(text, tokenizer, "
            f"baselines='<pad>'){FOIL}"
        )
    mixing = find_training(model, draws=False, modules=modules)
    if mixing:
        raise ValueError(
            describe_training(
                *mixing, "the map of a sample would depend on the others, and the running statistics would change"
            )
        )


def warn_drawing(drawing: tuple[str, nn.Module] | None, level: int) -> None:
    """Say that a map is that of one random draw: the host would run, and so does this."""
    if drawing:
        warnings.warn(
            describe_training(*drawing, "the choice and the map are those of one draw"),
            AbsenceWarning,
            stacklevel=level + 1,  # of the caller's frame
        )


def check_numbers(method: Any, real: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
    """Reject inputs that a method cannot change in small steps: tokens, and other integers.

    ``real``: of the caller; ``inputs``: these, or a NoiseTunnel's noisy copies of them.

    Raises:
        ValueError: the input, and the class and module to use.
    """
    if all(part.is_floating_point() or part.is_complex() for part in real):
        return
    embedding = next((name for name, module in modules_of(method._model) if isinstance(module, EMBEDDINGS)), None)
    parameters = Form.of(method._host.attribute).known
    is_at_layer = "attribute_to_layer_input" in parameters
    is_between_inputs = issubclass(method._host, INPUT_PATHS)
    takes_tokens = (is_at_layer and not is_between_inputs) or not issubclass(method._host, GradientAttribution)
    has_steps = "n_steps" in parameters or "stdevs" in parameters  # points in between are floating point numbers
    is_neuron_exact = "neuron_selector" in parameters and method._traits.exact  # read at the embedding
    for number, (part, copy) in enumerate(zip(real, inputs, strict=True)):
        if part.is_floating_point() or part.is_complex():
            continue
        kind = str(part.dtype).removeprefix("torch.")
        if copy.is_floating_point() and embedding is not None:
            raise ValueError(
                f"a NoiseTunnel adds noise to input {number}, which is {kind} (token ids?); call "
                f"{type(method).__name__} without the tunnel"
            )
        if takes_tokens or is_neuron_exact or (has_steps and embedding is None):
            continue
        remedy = "pass it as numbers, input.float()"
        if not modules_of(method._model):
            remedy += (
                "; of token ids explain the embedding, AbsenceLayerIntegratedGradients(model, model.embedding) with the "
                f"model's own embedding module, or {BY_RELEVANCE}"
            )
        elif is_between_inputs:
            remedy = (
                "there is nothing between token ids: use AbsenceLayerIntegratedGradients(model, layer), whose path lies "
                f"between values of the layer (of token ids at the embedding, {embedding!r}), or {BY_RELEVANCE}; pass "
                "numbers as input.float()"
            )
        elif embedding is not None:
            remedy = (
                f"of token ids explain the embedding, {_token_form(method, embedding)}; pass numbers as input.float()"
            )
        raise ValueError(
            f"{type(method).__name__} needs inputs of floating point numbers, and input {number} is {kind}; {remedy}"
        )


def _token_form(method: Any, embedding: str) -> str:
    """The calls that explain an embedding: of a neuron the exact form, which reads there by itself."""
    name = method._host.__name__
    if name.startswith("Neuron"):
        return "AbsenceNeuronDeepLift(model, layer)"
    path = f"AbsenceLayerIntegratedGradients(model, {embedding!r})"
    own = f"AbsenceLayer{name}(model, {embedding!r})" if hasattr(captum.attr, f"Layer{name}") else path
    return f"{own} or {BY_RELEVANCE}" if own == path else f"{own}, {path} or {BY_RELEVANCE}"


def checked_scores(outputs: Any, samples: int) -> Tensor:
    """The scores [B, K, ...] in what the model returned for B samples.

    Raises:
        ValueError: there are none, or another number of rows.
    """
    scores = logits_of(outputs, samples=samples)
    if scores.numel() == 1 and (scores.dim() == 0 or samples != 1):
        raise OneNumber(
            f"the model must return one row of outputs per sample ({samples}), and returns one number of the whole batch "
            f"{tuple(scores.shape)}, which has no non-target and no reference; nontarget=None explains it as Captum does"
        )
    if scores.dim() == 0 or scores.shape[0] != samples:
        raise ValueError(f"the model must return one row of outputs per sample ({samples}), got {tuple(scores.shape)}")
    return scores


def check_baselines(baselines: Any, inputs: tuple[Tensor, ...], *, distribution: bool) -> None:
    """Reject baselines that do not fit their inputs.

    Raises:
        ValueError, TypeError: which one, its shape, and what would fit.
    """
    if baselines is None or (callable(baselines) and not isinstance(baselines, Tensor)):
        return
    parts = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(parts) != len(inputs):
        raise ValueError(
            f"the model has {len(inputs)} inputs and baselines has {len(parts)}; pass a tuple with one entry per input"
        )
    for number, (part, own) in enumerate(zip(parts, inputs, strict=True)):
        if not isinstance(part, Tensor):
            if part is not None and not isinstance(part, (int, float)) and not callable(part):
                raise TypeError(f"baselines of input {number} must be a number or a tensor, got {type(part).__name__}")
            continue
        rows = part.shape[1:] if part.dim() == own.dim() else part.shape
        counts = {1, len(own)} if not distribution else {len(part)} if part.dim() else set()
        fits = len(rows) < own.dim() and _is_expandable(rows, own.shape[1:])
        if not fits or (part.dim() == own.dim() and len(part) not in counts):
            raise ValueError(
                f"baselines of input {number} have shape {tuple(part.shape)}, which does not fit inputs of shape "
                f"{tuple(own.shape)}; "
                + ("pass references [R, ...]" if distribution else "pass a number, one sample, or one per sample")
            )
        check_scales([own], [measure_scale(part if part.dim() == own.dim() else part[None])], "baselines")


def _is_expandable(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, wanted) for size, wanted in pairs)


def without_inference(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, changed so that their tensors take part in autograd: those of inference mode are copies."""

    def usable(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and value.is_inference() else value

    for name, value in arguments.items():
        if isinstance(value, (Tensor, tuple)):
            arguments[name] = tree_map(usable, value) if isinstance(value, tuple) else usable(value)
    return arguments


class explained_gradients:
    """In this block autograd's error about an output without gradients, and that of an embedding about points between
    token ids, are said in our words.
    """

    def __init__(self, method: Any) -> None:
        self._name = type(method).__name__

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, (RuntimeError, IndexError)):
            return
        if any(words in str(error) for words in NO_INDEX):
            raise ValueError(
                f"{self._name} makes floating point numbers of the input, which the model uses as indices: of token "
                "ids explain the embedding, AbsenceLayerIntegratedGradients(model, model.embedding) with the model's "
                f"own embedding module, or {BY_RELEVANCE}"
            ) from error
        if any(words in str(error) for words in NO_GRADIENT):
            raise ValueError(
                f"{self._name} needs gradients, and the explained output has none with respect to what is explained: "
                "the model detaches it, runs under torch.no_grad(), or rounds; use AbsenceFeatureAblation, which "
                "needs none"
            ) from error


class outside_modes(as_written):
    """In this block compiled modules run as they are written, so that hooks are heard, and inference mode is off.

    Torch's errors about inference mode and TorchScript are ValueErrors in our words.
    """

    _inference: Any = None

    def __enter__(self) -> Self:
        super().__enter__()
        if torch.is_inference_mode_enabled():
            self._inference = torch.inference_mode(False)
            self._inference.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._inference is not None:
            self._inference.__exit__(*error)
        super().__exit__(*error)
        if error[0] is not None:
            explained_running().__exit__(*error)

"""Captum's attributions of language models, which wrap a method: why this answer, and why not that one.

Shapes: ``seq_attr`` [tokens of the prompt], ``token_attr`` [tokens of the answer, tokens of the prompt]. Sign: R > 0
are tokens of the prompt that raise log p(answer), R < 0 tokens that hold it down; with ``foil=`` R > 0 speaks for the
answer and R < 0 for the foil. A prompt is compared with the ``baselines`` of the input (``TextTokenInput``,
``TextTemplateInput``): what a template's baseline has and the prompt has not is what the prompt lacks.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import LayerGradientShap as _LayerGradientShap
from captum.attr import LLMAttribution, LLMAttributionResult, LLMGradientAttribution, RemoteLLMAttribution
from captum.attr._core.llm_attr import _convert_ids_to_pretty_tokens
from torch import Tensor, nn  # noqa: F401  (examples)

from absence_plugins.captum.deeplift import AbsenceLayerDeepLift
from absence_plugins.captum.llm_result import AbsenceLLMAttributionResult, Contrast
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.perturbations import AbsenceFeatureAblation  # noqa: F401  (examples)
from absence_plugins.core import AbsenceWarning

SHAP_AT_BASELINE = (
    "of token indicators it makes random mixtures, and the prompt is read as all baseline wherever an indicator is not 1, "
    "so its gradients are those at the baseline alone"
)
CACHE_TOLERANCE = 0.01  # of log p(answer), by which a cache may change it


class _Contrasting:
    """What the perturbation classes share: the foil's row next to the answer's, in one run of the method."""

    attr_method: Any
    tokenizer: Any
    device: Any
    attr_target: str
    include_per_token_attr: bool
    _announces: bool
    _get_target_tokens: Callable[..., Tensor]

    def attribute(
        self,
        inp: Any,
        target: str | Tensor | None = None,
        num_trials: int = 1,
        gen_args: dict[str, Any] | None = None,
        use_cached_outputs: bool = True,
        _inspect_forward: Callable[[str, str, list[float]], None] | None = None,
        forward_in_tokens: bool = True,
        *,
        foil: str | Tensor | None = None,
        **kwargs: Any,
    ) -> AbsenceLLMAttributionResult:
        """As ``captum.attr.LLMAttribution.attribute``; with a foil R is that of log p(answer) - log p(foil).

        ``foil`` is the other answer, as text or token ids [F]; None gives Captum's own map of the answer. ``kwargs``
        are the method's, all other arguments Captum's.

        Sign: R > 0 raises log p(answer); with a foil it speaks for the answer, R < 0 for the foil. Of ``attr_target=
        "prob"`` the probabilities take the place of their logarithms. The more tokens an answer has, the lower its log
        p: compare answers of the same length, or read a single token's row in ``.answer.token_attr``.

        Raises:
            ValueError: the foil is the answer, or has no token.
        """
        extra = (use_cached_outputs, _inspect_forward, forward_in_tokens)
        if foil is None:
            if self._announces:
                _announce(self)
                ids = self._get_target_tokens(inp, target, gen_args=gen_args)
                target, gen_args = ids, None
                _check_cache(self, inp, ids, extra, remedy="pass use_cached_outputs=False")
            found = super().attribute(inp, target, num_trials, gen_args, *extra, **kwargs)  # type: ignore[misc]
            return AbsenceLLMAttributionResult.of(found, quantity=_quantity(self.attr_target))
        answer, other = _check_foil(self, inp, target, foil, gen_args)
        if _check_cache(self, inp, answer, extra, remedy="the difference is explained without the cache"):
            extra = (False, *extra[1:])
        counts = (1 + len(answer), 1 + len(other)) if self.include_per_token_attr else (1,)
        total = torch.zeros(sum(counts), inp.n_itp_features, dtype=torch.float, device=self.device)
        method = copy.copy(self.attr_method)
        method.forward_func = _Pair(self.attr_method.forward_func, is_split=self.include_per_token_attr)
        for _ in range(num_trials):
            given = inp.to_tensor().to(self.device)
            maps = method.attribute(given, additional_forward_args=(inp, answer, other, *extra), **kwargs)
            total += maps.reshape(total.shape)
        maps = inp.format_attr(total / num_trials)
        words = [_convert_ids_to_pretty_tokens(ids, self.tokenizer) for ids in (answer, other)]
        contrast = Contrast(words[0], words[1], _quantity(self.attr_target))
        if len(counts) == 1:
            return AbsenceLLMAttributionResult.single(maps[0], contrast, inp)
        parts = [
            LLMAttributionResult(
                seq_attr=rows[0], token_attr=rows[1:], input_tokens=inp.values, output_tokens=tokens, inp=inp
            )
            for rows, tokens in zip(maps.split(counts), words, strict=True)
        ]
        return AbsenceLLMAttributionResult.difference(parts[0], parts[1], contrast)


class AbsenceLLMAttribution(_Contrasting, LLMAttribution):
    """Perturbation attribution of a language model's answer, and of the difference to another answer.

    R = A(log p(answer | prompt) - log p(foil | prompt)), A the method; without a foil A(log p(answer | prompt)).

    Source: Captum's LLMAttribution; contrastive: Jacovi et al., EMNLP 2021; Yin and Neubig, EMNLP 2022.

    Takes :class:`AbsenceFeatureAblation`, :class:`AbsenceShapleyValueSampling`, :class:`AbsenceShapleyValues`,
    :class:`AbsenceLime`, :class:`AbsenceKernelShap`, and Captum's. An answer is no row of classes: the options
    ``nontarget``, ``reference`` and ``evidence`` of the method are rejected with the remedy, which is ``foil=`` or the
    input's ``baselines``. Answer and foil are measured in one run, on the same perturbed prompts.

    Raises:
        TypeError: a method that Captum's class does not take; with the class that does.
        ValueError: an option of the method that has no meaning for an answer.

    >>> from types import SimpleNamespace as Output
    >>> from captum.attr import TextTokenInput
    >>> words = ["<pad>", "Dave", "likes", "golf", "tennis"]
    >>> class Likes(nn.Module):  # "Dave" raises "golf" by 2, "likes" raises both by 1
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scores = nn.Embedding(5, 5, _weight=torch.tensor([[0.0] * 5, [0, 0, 0, 2, 0], [0, 0, 0, 1, 1.0], [0.0] * 5, [0.0] * 5]))
    ...     def forward(self, input_ids, **_):
    ...         return Output(logits=self.scores(input_ids).cumsum(1))
    >>> class Words:
    ...     def encode(self, text, return_tensors=None, **_):
    ...         ids = [words.index(word) for word in text.split()]
    ...         return torch.tensor([ids]) if return_tensors else ids
    ...     def convert_ids_to_tokens(self, ids):
    ...         return [words[k] for k in ids]
    ...     def decode(self, ids, **_):
    ...         return " ".join(words[k] for k in torch.as_tensor(ids).flatten().tolist())
    ...     def __call__(self, text, **_):
    ...         return {"input_ids": self.encode(text), "offset_mapping": [(0, len(text))]}
    >>> prompt, method = TextTokenInput("Dave likes", Words()), AbsenceFeatureAblation(Likes())
    >>> why = AbsenceLLMAttribution(method, Words()).attribute(prompt, "golf", foil="tennis", use_cached_outputs=False)
    >>> why.seq_attr.round().int().tolist(), why.legend()
    ([2, 0], ("speaks for 'golf'", "speaks for 'tennis'"))
    """

    def __init__(self, attr_method: Any, tokenizer: Any, attr_target: str = "log_prob") -> None:
        method, self._announces = _neutral(attr_method, type(self))
        super().__init__(method, tokenizer, attr_target)


class AbsenceRemoteLLMAttribution(_Contrasting, RemoteLLMAttribution):
    """As :class:`AbsenceLLMAttribution`, of a model that is hosted elsewhere and gives log probabilities.

    R = A(log p(answer | prompt) - log p(foil | prompt)); without a foil A(log p(answer | prompt)).

    Source: Captum's RemoteLLMAttribution. The sign is that of :class:`AbsenceLLMAttribution`.
    """

    def __init__(self, attr_method: Any, tokenizer: Any, provider: Any, attr_target: str = "log_prob") -> None:
        method, self._announces = _neutral(attr_method, type(self))
        super().__init__(method, tokenizer, provider, attr_target)


class AbsenceLLMGradientAttribution(LLMGradientAttribution):
    """Attribution at the embedding of a language model's answer, and of the difference to another answer.

    R = sum_t A(log p(a_t | prompt, a_<t)) - sum_t A(log p(f_t | prompt, f_<t)), A the method at the embedding, the sum
    over its entries taken. Of :class:`AbsenceLayerIntegratedGradients` R sums to log p(answer) - log p(foil) on the
    prompt, minus the same on its baseline.

    Source: Captum's LLMGradientAttribution; contrastive: Yin and Neubig, EMNLP 2022.

    Takes :class:`AbsenceLayerIntegratedGradients`, :class:`AbsenceLayerGradientXActivation`, Captum's, and
    :class:`AbsenceLayerDeepLift`, whose sum is exact in one pass per token. Sign: R > 0 raises log p(answer); with a
    foil it speaks for the answer, R < 0 for the foil.

    Raises:
        TypeError: a method that Captum's class does not take.
        ValueError: an option of the method that has no meaning for an answer; :class:`AbsenceLayerGradientShap`, which
            cannot mix tokens.
    """

    SUPPORTED_METHODS = (*LLMGradientAttribution.SUPPORTED_METHODS, AbsenceLayerDeepLift)

    def __init__(self, attr_method: Any, tokenizer: Any) -> None:
        method, self._announces = _neutral(attr_method, type(self))
        super().__init__(method, tokenizer)

    def attribute(
        self,
        inp: Any,
        target: str | Tensor | None = None,
        gen_args: dict[str, Any] | None = None,
        *,
        foil: str | Tensor | None = None,
        **kwargs: Any,
    ) -> AbsenceLLMAttributionResult:
        """As ``captum.attr.LLMGradientAttribution.attribute``; with a foil R is that of log p(answer) - log p(foil).

        Raises:
            ValueError: the foil is the answer, or has no token.
        """
        if foil is None:
            _announce(self)
            return AbsenceLLMAttributionResult.of(super().attribute(inp, target, gen_args, **kwargs), quantity="log p")
        pair = _check_foil(self, inp, target, foil, gen_args)
        parts = [super(AbsenceLLMGradientAttribution, self).attribute(inp, ids, **kwargs) for ids in pair]
        contrast = Contrast(parts[0].output_tokens, parts[1].output_tokens)
        return AbsenceLLMAttributionResult.difference(parts[0], parts[1], contrast)


class _Pair:
    """The model's forward of an answer and of a foil: their rows side by side, or the difference of two numbers."""

    def __init__(self, forward: Callable[..., Tensor], *, is_split: bool) -> None:
        self.forward, self.is_split = forward, is_split

    def __call__(self, perturbed: Tensor, inp: Any, answer: Tensor, foil: Tensor, *extra: Any) -> Tensor:
        one, other = (self.forward(perturbed, inp, ids, *extra) for ids in (answer, foil))
        return torch.cat([one, other], 1) if self.is_split else one - other


def _neutral(method: Any, wrapper: type) -> tuple[Any, bool]:
    """A copy of the method that attributes as Captum's does, and whether a map without a foil is announced.

    Raises:
        TypeError, ValueError: as the classes say.
    """
    name, own = type(method).__name__, wrapper.__name__
    supported = wrapper.SUPPORTED_METHODS  # type: ignore[attr-defined]
    if not isinstance(method, supported):
        taken = ", ".join(f"Absence{one.__name__.removeprefix('Absence')}" for one in supported)
        raise TypeError(f"{own} takes {taken}, and no {name}; {_other_wrapper(method, wrapper)}")
    is_exact = isinstance(method, AbsenceLayerDeepLift)
    if is_exact and method.is_neutral:
        raise ValueError(
            f"{name} has nontarget=None, which is Captum's own class, and that does not run on a language model; leave "
            "nontarget out"
        )
    if not isinstance(method, AbsenceMethod) or method.is_neutral:
        return method, False
    if isinstance(method, _LayerGradientShap):
        raise ValueError(
            f"{name} cannot explain an answer: {SHAP_AT_BASELINE}; use AbsenceLayerIntegratedGradients (nontarget=None "
            "gives Captum's own map)"
        )
    if method.reference is not None:
        raise ValueError(
            f"{name} was given a reference, and a prompt is compared with the baselines of its input: name them there, "
            "TextTemplateInput(template, values, baselines=[...]) or TextTokenInput(text, tokenizer, baselines='<pad>')"
        )
    if method.evidence != "signed":
        raise ValueError(
            f"{own} returns signed maps, and {name} has evidence={method.evidence!r}; leave it out: R > 0 raises log "
            "p(answer), R < 0 holds it down"
        )
    if not (isinstance(method.nontarget, str) and method.nontarget in ("auto", "target")):
        raise ValueError(
            f"{name} has nontarget={method.nontarget!r}, and an answer is no row of classes; leave it out, and name the "
            "other answer: attribute(inp, target='...', foil='...')"
        )
    plain = copy.copy(method)
    plain.nontarget = "target" if is_exact else None
    return plain, bool(method._is_auto) and not is_exact


def _other_wrapper(method: Any, wrapper: type) -> str:
    if issubclass(wrapper, LLMAttribution) and isinstance(method, LLMGradientAttribution.SUPPORTED_METHODS):
        return "use AbsenceLLMGradientAttribution"
    if not issubclass(wrapper, LLMAttribution) and isinstance(method, LLMAttribution.SUPPORTED_METHODS):
        return "use AbsenceLLMAttribution"
    return (
        "use AbsenceLLMGradientAttribution(AbsenceLayerIntegratedGradients(model, embedding), tokenizer), or "
        "AbsenceLLMAttribution(AbsenceFeatureAblation(model), tokenizer)"
    )


def _announce(wrapper: Any) -> None:
    if wrapper._announces:
        host = next(one.__name__ for one in type(wrapper).__mro__ if one.__module__.startswith("captum."))
        warnings.warn(
            f"the map is Captum's own: {host} explains the probabilities of an answer, which has no non-target; foil='another answer' asks why this answer and not that "
            "one (nontarget=None of the method: the same map without this warning)",
            AbsenceWarning,
            stacklevel=3,
        )


def _check_cache(wrapper: Any, inp: Any, ids: Tensor, extra: tuple[bool, Any, bool], *, remedy: str) -> bool:
    """Whether the model's cache must not be used: there is none, or with it log p(answer) is another, with a warning.

    Captum hands the cache from token to token by the model's own functions for generation, and those change.
    """
    is_cached, _, in_tokens = extra
    if isinstance(wrapper, RemoteLLMAttribution) or not (is_cached and in_tokens):
        return False
    if not hasattr(wrapper.model, "prepare_inputs_for_generation"):
        return True
    with torch.no_grad():
        with_it, without = (
            wrapper._forward_func(None, inp, ids, cached, None, True).flatten()[0] for cached in (True, False)
        )
    if wrapper.attr_target != "log_prob":
        with_it, without = with_it.log(), without.log()
    step = max(CACHE_TOLERANCE, 4 * torch.finfo(without.dtype).eps)
    if bool((with_it - without).abs() <= step * without.abs().clamp(min=1)):
        return False
    warnings.warn(
        f"with cached outputs log p(answer) is {float(with_it):.4g}, and without them {float(without):.4g}: the cache that "
        f"Captum hands on does not fit this model in this version of transformers; {remedy}",
        AbsenceWarning,
        stacklevel=3,
    )
    return True


def _check_foil(wrapper: Any, inp: Any, target: Any, foil: Any, gen_args: Any) -> tuple[Tensor, Tensor]:
    """The ids of the answer [A] and of the foil [F].

    Raises:
        ValueError: the foil is the answer, or one of them has no token.
    """
    answer = wrapper._get_target_tokens(inp, target, gen_args=gen_args)
    other = wrapper._get_target_tokens(inp, foil)
    for ids, name in ((answer, "answer"), (other, "foil")):
        if len(ids) == 0:
            raise ValueError(f"the {name} has no token; pass a text, or token ids [T]")
    if torch.equal(answer.cpu(), other.cpu()):
        raise ValueError(f"foil={foil!r} is the answer itself, from which it differs in nothing; name another answer")
    return answer, other


def _quantity(attr_target: str) -> str:
    return "log p" if attr_target == "log_prob" else "p"

"""The public methods of an adapter, with the signatures of its host.

They are made from the host's, not written out 39 times, so that they follow it when it gains an argument.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from captum.attr import Attribution, GradientAttribution
from captum.log import log_usage

from absence_plugins.captum.calls import plain, resolve_layers
from absence_plugins.captum.conditions import OneNumber, outside_modes, without_inference
from absence_plugins.captum.noise import check_known_tunnel
from absence_plugins.captum.tools import calls_like_tcav, for_class_asked
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.explanation import Explanation
from absence_plugins.core.hooks import keeping
from absence_plugins.core.module_tree import list_modules
from absence_plugins.core.turns import working_on


def public_methods(host: type[Attribution]) -> list[Callable[..., Any]]:
    """``__init__``, ``attribute``, ``explain`` and, where the host has it, ``attribute_future``."""
    methods = [_constructor(host), _attribute(host), _explain(host)]
    return [*methods, _attribute_future(host)] if callable(getattr(host, "attribute_future", None)) else methods


def _constructor(host: type[Attribution]) -> Callable[..., None]:
    def __init__(
        self: Any, *args: Any, nontarget: Any = "auto", reference: Any = None, evidence: Any = "signed", **kwargs: Any
    ) -> None:
        args, kwargs, layers = resolve_layers(host, self, args, kwargs)
        host.__init__(self, *args, **kwargs)
        self._layers = layers
        self._configure(nontarget, reference, evidence)

    signature = inspect.signature(host.__init__)
    own = [
        parameter
        for parameter in inspect.signature(__init__).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *own])  # type: ignore[attr-defined]
    return __init__


def _attribute(host: type[Attribution]) -> Callable[..., Any]:
    """``attribute`` with the host's signature, logged as the host's is: NoiseTunnel unwraps it."""
    unlogged = plain(host.attribute)

    def neutral(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with _working_on(self), keeping(list_modules(self._model)):  # what Captum leaves where it is interrupted
            return unlogged(self, *args, **kwargs)

    def attribute(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_neutral:
            return neutral(self, args, kwargs)
        try:
            with _working_on(self), outside_modes():
                explanation, delta = self._collect(without_inference(self._bind(args, kwargs)), full=False)
        except OneNumber as error:
            if not self._is_auto or self.evidence != "signed" or issubclass(host, GradientAttribution):
                raise
            warnings.warn(f"the map is Captum's own: {error}", AbsenceWarning, stacklevel=3)
            return neutral(self, args, kwargs)
        chosen = explanation.attribution if self.evidence == "signed" else getattr(explanation, self.evidence)
        return chosen if delta is None else (chosen, delta)

    attribute.__doc__ = f"As ``captum.attr.{host.__name__}.attribute``, for the output and against the baselines that the options choose."
    attribute.__signature__ = inspect.signature(host.attribute)  # type: ignore[attr-defined]

    def from_tool(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_neutral:
            return attribute(self, *args, **kwargs)
        if calls_like_tcav(kwargs):
            return attribute(for_class_asked(self), *args, **kwargs)
        check_known_tunnel(self)
        return attribute(self, *args, **kwargs)

    from_tool.__signature__ = inspect.signature(host.attribute)  # type: ignore[attr-defined]
    logged = log_usage(part_of_slo=True)(attribute)
    logged.__wrapped__ = from_tool  # what NoiseTunnel and TCAV call, and only they
    return logged


def _working_on(method: Any) -> working_on:
    """No other thread works on the model; nor on the layers, where the model is a function around modules."""
    layers = getattr(method, "layer", None)
    return working_on(method._model, *(layers if isinstance(layers, (list, tuple)) else (layers,)))


def _explain(host: type[Attribution]) -> Callable[..., Explanation]:
    def explain(self: Any, *args: Any, **kwargs: Any) -> Explanation:
        if self._traits.refuses and not (self._has("target") or self._has("neuron_selector")):
            raise ValueError(f"{type(self).__name__} has nothing to explain: {self._traits.refuses}")
        arguments = without_inference(self._bind(args, kwargs))
        if "return_convergence_delta" in arguments:
            arguments["return_convergence_delta"] = False
        with _working_on(self), outside_modes():
            return self._collect(arguments, full=True)[0]

    explain.__doc__ = (
        "As ``attribute(...)``, but returns an :class:`Explanation`: both parts, every reference, the numbers."
    )
    explain.__signature__ = inspect.signature(host.attribute)  # type: ignore[attr-defined]
    return explain


def _attribute_future(host: type[Attribution]) -> Callable[..., Any]:
    def attribute_future(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_neutral:
            raise NotImplementedError(
                f"{type(self).__name__}.attribute_future works in the neutral setting alone; call attribute(...)"
            )
        return host.attribute_future(self, *args, **kwargs)

    return attribute_future

"""A hook around the forward of a model's root: what is asked in this thread, the reference, and the scores."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from zennit.core import Hook, RemovableHandle, RemovableHandleList

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import quiet_forward
from absence_plugins.core.outputs import check_logits, shrunk
from absence_plugins.core.scales import check_scales, measure_scale
from absence_plugins.core.scores import announce, logits_of, read_scores
from absence_plugins.relevance.mode import GraphMode


@dataclass(frozen=True)
class Question:
    """What a forward is asked for: set for one call in one thread by our attributors."""

    reference: Tensor | None = None  # broadcasts to the input; None: zeros
    takes_weights: bool = False  # the seed says how much of which output is explained, literally
    is_quiet: bool = False  # zeros as reference are not announced


class RootHook(Hook):
    """A hook on the root of a model, around its forward. Every call belongs to the thread that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = get_ident()
        self.is_for_one_call = False  # of the owner; else other threads without a root hook of their own are served too
        self.questions: dict[int, Question] = {}  # by thread
        self.outputs: dict[int, tuple[Tensor, Tensor]] = {}  # of x and of r in the thread's last forward

    def register(self, module: nn.Module) -> Any:
        """Before and behind all other hooks of the module."""
        self.owner = get_ident()
        return RemovableHandleList(
            [
                RemovableHandle(self),
                module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True),
                module.register_forward_hook(self._behind, with_kwargs=True, always_call=True),
            ]
        )

    def remove(self) -> None:
        """What is still in a graph passes the plain gradient from now on, as with Zennit."""
        super().remove()
        self.outputs.clear()
        self.active = False

    @property
    def question(self) -> Question:
        """What is asked in this thread."""
        return self.questions.get(get_ident(), Question())

    def answers(self, module: nn.Module, args: tuple[Any, ...]) -> bool:
        """Whether this forward is explained: one with gradients, in a thread that this hook serves, and no pass within
        another.
        """
        wanted = any(isinstance(value, Tensor) and value.requires_grad for value in args)
        if not (self.active and wanted and torch.is_grad_enabled()):
            return False
        if any(isinstance(mode, GraphMode) for mode in _get_current_function_mode_stack()):
            return False
        if self.owner == get_ident():
            return True
        return not self.is_for_one_call and not any(
            isinstance(hook, RootHook) and hook.owner == get_ident() for hook in hooks_on(module, deep=False)
        )

    def reference_for(self, question: Question, x: Tensor) -> Tensor:
        """The reference of every sample, in the shape of x."""
        if question.reference is not None:
            return expanded_reference(question.reference, x)
        if not question.is_quiet:
            warnings.warn(
                "no reference is given, so the input is compared with zeros, where nothing missing can show; "
                "pass AbsenceGradient(..., reference=ReferenceSet(images, labels))",
                AbsenceWarning,
                stacklevel=2,
            )
        return torch.zeros_like(x)

    def read(self, last: Any, output: Any, samples: int) -> Tensor:
        """The scores in what the model returned; where it ends in a softmax or sigmoid, the logits in front of it."""
        scores: Tensor
        scores, ending = last.in_front_of(logits_of(output, samples=samples))
        announce(ending, stacklevel=3)
        return scores

    def check_output(self, module: nn.Module, args: Any, kwargs: Any, output: Any, samples: int) -> None:
        """Reject what is not one row of logits per sample."""
        if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != samples:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the model must return one row of outputs per sample ({samples}), got {shape}; wrap it so that it "
                "returns the tensor of scores alone"
            )

        def elsewhere() -> Tensor:  # to tell a softmax from logits that sum to 1 by chance
            other = shrunk((args[0].detach(),))
            with quiet_forward(other):
                return read_scores(lambda: module(*other, *args[1:], **kwargs))[0]

        check_logits(output.detach(), elsewhere)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        # torch forgets to pass keywords where another thread takes its hook off just now
        return None if kwargs is None else self.pre_forward(module, args, kwargs)

    def _behind(self, module: nn.Module, args: Any, *rest: Any) -> Any:
        return None if len(rest) == 1 else self.post_forward(module, args, *rest)

    def pre_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The forward begins."""
        raise NotImplementedError

    def post_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """It ends, also if it raises (output is None then)."""
        raise NotImplementedError


def expanded_reference(reference: Tensor, x: Tensor) -> Tensor:
    """The reference in the shape of x. Raises ValueError where it does not broadcast, or is not a number."""
    if not bool(torch.isfinite(reference).all()):
        raise ValueError("the reference holds NaN or infinite values; leave such images out")
    try:
        return reference.to(x).expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"a reference of shape {tuple(reference.shape)} does not broadcast to inputs of shape {tuple(x.shape)}; "
            "pass one image, one per sample, or a ReferenceSet"
        ) from None


def expand_checked(reference: Tensor, x: Tensor) -> Tensor:
    """The caller's own reference, on the scale (:func:`~absence_plugins.core.scales.check_scales`) and in the shape of
    x.
    """
    check_scales([x], [measure_scale(reference if reference.dim() == x.dim() else reference[None])])
    return expanded_reference(reference, x)


def hooks_on(root: nn.Module, *, deep: bool = True) -> list[Any]:
    """The objects whose methods are forward hooks on the model (``deep``: anywhere); none where it is not a module."""
    found: dict[int, Any] = {}
    modules = root.modules() if deep and isinstance(root, nn.Module) else [root] if isinstance(root, nn.Module) else []
    for module in modules:
        for hook in hook_owners(module):
            found[id(hook)] = hook
    return list(found.values())


def hook_owners(module: nn.Module) -> list[Any]:
    """Zennit's hooks whose methods are forward hooks on this module."""
    owners = [getattr(function, "__self__", None) for function in list(module._forward_hooks.values())]
    return [owner for owner in owners if isinstance(owner, Hook)]

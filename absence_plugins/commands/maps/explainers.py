"""The three maps of ``absence-plugins explain``, from a Captum method or a Zennit composite.

``standard``: the target as the host shows it. ``nontarget``: another output against a blank image.
``against``: the target against references.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.commands.early_checks import check_method_name
from absence_plugins.commands.pace import Passes
from absence_plugins.core.maps import split_by_sign

WINDOW_SHARE = 8  # Occlusion's window is 1/8 of the image wide and moves by half of that
DEFAULT_STEPS = 50  # of Captum, where its signature names none
INTERNAL_BATCH = 16  # path points at a time; a few hundred MB on 224x224 inputs


@dataclass(frozen=True)
class Found:
    """A signed map [1, C, H, W], the absence evidence in it (>= 0), and the explained value u(x)."""

    attribution: Tensor
    absence: Tensor
    output: float


class Explainer(Protocol):
    """What the page needs of a method. x: [1, C, H, W]; blank: an empty image of that shape."""

    @property
    def name(self) -> str:
        """As the page calls the method."""

    @property
    def standard_caption(self) -> str:
        """What the standard map shows."""

    def refuse_references(self) -> str:
        """Why the method takes no references; "" if it does."""

    def count_passes(self, x: Tensor, k: int) -> Passes:
        """About how often x goes through the model for its three maps, the last against k references (0: for two)."""

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """The target's signed map, as the host shows it."""

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The map of another output (a class, or a word: "others", "negated", "margin")."""

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """The target's map against the nearest references; of made ones its absence is what holds the target down."""


def explainer(name: str, steps: int | None = None) -> Explainer:
    """From ``--method``: ``relevance`` or ``relevance:RULE``, ``captum:CLASS`` (or just ``CLASS``),
    ``zennit:COMPOSITE``, or ``GradCam`` or ``GradCam:LAYER``.

    ``steps``: points of the path of IntegratedGradients, or samples of the methods that draw them. Raises ValueError
    with the names that exist, and for steps of a method that has none.

    >>> explainer("zennit:epsilon_gamma").name, explainer("deeplift").name
    ('Zennit EpsilonGamma', 'DeepLift')
    """
    kind = name.lower().removeprefix("captum:").partition(":")[0]
    if kind in ("relevance", "zennit", "gradcam") and steps is not None:
        raise ValueError(f"--steps is for IntegratedGradients and methods that draw samples; {name} has none")
    if kind == "relevance":
        from absence_plugins.commands.maps.relevance import RelevanceMaps

        return RelevanceMaps.named(name.lower())
    if kind == "zennit":
        from absence_plugins.commands.maps.zennit import ZennitMaps

        return ZennitMaps.named(name)
    if kind == "gradcam":
        from absence_plugins.commands.maps.gradcam import GradCamMaps

        return GradCamMaps.named(name)
    return CaptumMaps(input_method(name), steps)


def check_method(name: str, steps: int | None = None, *, has_references: bool = False) -> None:
    """Raise ValueError for a method that does not exist, has no steps, or takes no references; before any work."""
    if name.lower().startswith("lucent:"):
        return
    if name == "auto":
        if steps is not None:
            raise ValueError("--steps needs --method, such as IntegratedGradients")
        return
    found = explainer(name, steps)
    if has_references and found.refuse_references():
        raise ValueError(f"--method {name} takes no --references: {found.refuse_references()}")


# -- Captum -----------------------------------------------------------------------------------------------------------


def input_method(name: str) -> type[Any]:
    """The adapter behind ``--method``: a Captum class that attributes to inputs, with or without ``captum:``.

    Raises ValueError with the names that exist.

    >>> input_method("captum:deeplift").__name__
    'AbsenceDeepLift'
    """
    wanted = name.removeprefix("captum:").removeprefix("Absence").lower()
    usable = {plain.lower(): found for plain, found in list_adapters().items() if attributes_to_inputs(plain, found)}
    if wanted not in usable:
        check_method_name(name)  # with the nearest names
        raise ValueError(f"--method {name!r} is not a method that shows absences on inputs")
    return usable[wanted]


def list_adapters() -> dict[str, type[Any]]:
    """The adapters of Captum's classes by Captum's names; Captum is imported here, only where it is asked for.

    >>> list_adapters()["DeepLift"].__name__
    'AbsenceDeepLift'
    """
    import absence_plugins.captum as adapters
    from absence_plugins.captum.method import AbsenceMethod

    return {
        name.removeprefix("Absence"): found
        for name, found in vars(adapters).items()
        if inspect.isclass(found) and issubclass(found, AbsenceMethod) and found is not AbsenceMethod
    }


def attributes_to_inputs(name: str, found: type[Any]) -> bool:
    """Whether an adapter of :func:`list_adapters` shows absences, and on inputs."""
    return not found._traits.refuses and not name.startswith(("Layer", "Neuron", "Internal", "LimeBase"))


def method_arguments(method: type[Any], x: Tensor) -> dict[str, Any]:
    """What a method needs for images beyond inputs and target: window, feature blocks, batch size."""
    parameters = inspect.signature(method.attribute).parameters
    window = max(1, min(x.shape[-2:]) // WINDOW_SHARE)
    arguments: dict[str, Any] = {}
    if "sliding_window_shapes" in parameters:
        arguments |= {
            "sliding_window_shapes": (x.shape[1], window, window),
            "strides": (x.shape[1], max(1, window // 2), max(1, window // 2)),
        }
    if "feature_mask" in parameters:
        rows, columns = torch.arange(x.shape[-2]) // window, torch.arange(x.shape[-1]) // window
        arguments["feature_mask"] = (rows[:, None] * (int(columns[-1]) + 1) + columns).repeat(1, x.shape[1], 1, 1)
    if "perturbations_per_eval" in parameters and not method._traits.automatic:
        arguments["perturbations_per_eval"] = INTERNAL_BATCH
    if "internal_batch_size" in parameters:
        arguments["internal_batch_size"] = INTERNAL_BATCH
    return arguments


class CaptumMaps:
    """The maps of a Captum adapter class."""

    def __init__(self, method: type[Any], steps: int | None = None) -> None:
        self.method = method
        self.steps = {} if steps is None else {self._steps_name(): steps}
        self.name = method.__name__.removeprefix("Absence")
        self._has_baselines = "baselines" in inspect.signature(method.attribute).parameters
        self.standard_caption = "What is there, seen locally."
        if self._has_baselines:
            self.standard_caption = "Against blank: only what is there."
        elif self.name == "Saliency":
            self.standard_caption = "The gradient: what a brighter pixel would do."

    @property
    def has_steps(self) -> bool:
        """Whether the method has steps or samples to choose."""
        return bool({"n_steps", "n_samples"} & set(inspect.signature(self.method.attribute).parameters))

    def _steps_name(self) -> str:
        known = inspect.signature(self.method.attribute).parameters
        for name in ("n_steps", "n_samples"):
            if name in known:
                return name
        raise ValueError(
            "--steps is for IntegratedGradients and methods that draw samples; "
            f"{self.method.__name__.removeprefix('Absence')} has none"
        )

    def count_passes(self, x: Tensor, k: int) -> Passes:
        """By the method's steps, windows or samples."""
        known = inspect.signature(self.method.attribute).parameters
        arguments = method_arguments(self.method, x)
        maps = 2 + bool(k)

        def many(name: str) -> int:
            default = known[name].default
            return int(self.steps.get(name) or (default if isinstance(default, int) else DEFAULT_STEPS))

        if "n_steps" in known and self.name == "IntegratedGradients":
            return Passes(0, (2 + k) * (many("n_steps") + 2))
        if "sliding_window_shapes" in known:
            sizes, steps = arguments["sliding_window_shapes"][1:], arguments["strides"][1:]
            windows = [-(-(n - a) // s) + 1 for n, a, s in zip(x.shape[-2:], sizes, steps, strict=True)]
            return Passes((2 + k) * windows[0] * windows[1] + 3 * maps, 0)
        if "feature_mask" in known:
            features = int(arguments["feature_mask"].max()) + 1
            count = many("n_samples") if "n_samples" in known else 1
            draws = count if self.name in ("KernelShap", "Lime") else count * features
            return Passes((2 + k) * draws + 3 * maps, 0)
        if "n_samples" in known:
            return Passes(0, (2 + bool(k) * k) * many("n_samples") + 3 * maps)
        return Passes(0, 7 + (1 + 3 * k) * bool(k))

    def refuse_references(self) -> str:
        """Methods without baselines take none."""
        return str(self.method._traits.no_reference).replace("use Absence", "use ")

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """The target's own map against blank, signed and corrected like the others."""
        method = self.method(model, nontarget="target")
        return method.attribute(x, target=target, **self.arguments(x, blank))  # type: ignore[no-any-return]

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The other output against blank."""
        explained = self.method(model, nontarget=other).explain(x, target=target, **self.arguments(x, blank))
        return signed_parts(explained.attribution, float(explained.output[0]))

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """The target against the nearest references."""
        method = self.method(model, reference=references, nontarget="target")
        explained = method.explain(x, target=target, **method_arguments(self.method, x), **self.steps)
        if references.is_made:
            return signed_parts(explained.attribution, float(explained.output[0]))
        return _found(explained)

    def arguments(self, x: Tensor, blank: Tensor) -> dict[str, Any]:
        """What the method is called with beyond input and target: an empty image as baseline, windows, batch size."""
        arguments = method_arguments(self.method, x) | self.steps
        if self._has_baselines:
            arguments["baselines"] = blank_baseline(self.method, x, blank[0])
        return arguments


def _found(explanation: Any) -> Found:
    return Found(explanation.attribution, explanation.absence, float(explanation.output[0]))


def signed_parts(attribution: Tensor, output: float) -> Found:
    """A map against a blank image: all that holds the explained output down is content of x."""
    return Found(attribution, split_by_sign(attribution)[1], output)


def blank_baseline(method: type[Any], x: Tensor, blank: Tensor) -> Tensor:
    """An empty image (one of ``blank``'s) for every sample of x; the Shap classes want a distribution of at least
    two.
    """
    return (
        torch.stack([blank] * 2)
        if "Shap" in method.__name__ and method.__name__ not in _SINGLE_SHAP
        else blank[None].expand_as(x).contiguous()
    )


_SINGLE_SHAP = ("AbsenceKernelShap", "AbsenceShapleyValueSampling", "AbsenceShapleyValues")

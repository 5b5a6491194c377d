"""``Absence*``: every Captum attribution class, able to show what is absent.

Change the import, keep the call::

    from absence_plugins.captum import AbsenceIntegratedGradients as IntegratedGradients

By default the *non-target* is explained (the runner-up): R < 0 is content of x that holds it down, which
is what the non-target's unit encodes as absent. With ``reference=ReferenceSet(...)`` the target is
explained against real images that have what x lacks: R > 0 where they have content and x has none. With
``nontarget=None, reference=None, evidence="signed"`` each class is Captum's, bit for bit.
"""

try:
    import captum.attr as _host  # noqa: F401
except ImportError as error:
    raise ImportError('absence_plugins.captum needs Captum: pip install "absence-plugins[captum]"') from error

from captum.attr._core import dataloader_attr as _dataloader_attr

from absence_plugins.captum.deeplift import (
    AbsenceDeepLift,
    AbsenceDeepLiftShap,
    AbsenceLayerDeepLift,
    AbsenceLayerDeepLiftShap,
    AbsenceLayerLRP,
    AbsenceLRP,
    AbsenceNeuronDeepLift,
    AbsenceNeuronDeepLiftShap,
)
from absence_plugins.captum.inputs import (
    AbsenceDeconvolution,
    AbsenceGradientShap,
    AbsenceGuidedBackprop,
    AbsenceGuidedGradCam,
    AbsenceInputXGradient,
    AbsenceIntegratedGradients,
    AbsenceSaliency,
)
from absence_plugins.captum.language_models import (
    AbsenceLLMAttribution,
    AbsenceLLMGradientAttribution,
    AbsenceRemoteLLMAttribution,
)
from absence_plugins.captum.layers import (
    AbsenceInternalInfluence,
    AbsenceLayerActivation,
    AbsenceLayerConductance,
    AbsenceLayerFeatureAblation,
    AbsenceLayerFeaturePermutation,
    AbsenceLayerGradCam,
    AbsenceLayerGradientShap,
    AbsenceLayerGradientXActivation,
    AbsenceLayerIntegratedGradients,
)
from absence_plugins.captum.llm_result import AbsenceLLMAttributionResult
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.neurons import (
    AbsenceNeuronConductance,
    AbsenceNeuronDeconvolution,
    AbsenceNeuronFeatureAblation,
    AbsenceNeuronGradient,
    AbsenceNeuronGradientShap,
    AbsenceNeuronGuidedBackprop,
    AbsenceNeuronIntegratedGradients,
)
from absence_plugins.captum.noise import AbsenceNoiseTunnel
from absence_plugins.captum.perturbations import (
    AbsenceFeatureAblation,
    AbsenceFeaturePermutation,
    AbsenceKernelShap,
    AbsenceLime,
    AbsenceLimeBase,
    AbsenceOcclusion,
    AbsenceShapleyValues,
    AbsenceShapleyValueSampling,
)
from absence_plugins.captum.token_references import AbsenceTokenReferenceBase
from absence_plugins.captum.visualization import text_record, visualize_text
from absence_plugins.core.explanation import Explanation

__all__ = [
    "AbsenceDeconvolution",
    "AbsenceDeepLift",
    "AbsenceDeepLiftShap",
    "AbsenceFeatureAblation",
    "AbsenceFeaturePermutation",
    "AbsenceGradientShap",
    "AbsenceGuidedBackprop",
    "AbsenceGuidedGradCam",
    "AbsenceInputXGradient",
    "AbsenceIntegratedGradients",
    "AbsenceInternalInfluence",
    "AbsenceKernelShap",
    "AbsenceLLMAttribution",
    "AbsenceLLMAttributionResult",
    "AbsenceLLMGradientAttribution",
    "AbsenceLRP",
    "AbsenceLayerActivation",
    "AbsenceLayerConductance",
    "AbsenceLayerDeepLift",
    "AbsenceLayerDeepLiftShap",
    "AbsenceLayerFeatureAblation",
    "AbsenceLayerFeaturePermutation",
    "AbsenceLayerGradCam",
    "AbsenceLayerGradientShap",
    "AbsenceLayerGradientXActivation",
    "AbsenceLayerIntegratedGradients",
    "AbsenceLayerLRP",
    "AbsenceLime",
    "AbsenceLimeBase",
    "AbsenceMethod",
    "AbsenceNeuronConductance",
    "AbsenceNeuronDeconvolution",
    "AbsenceNeuronDeepLift",
    "AbsenceNeuronDeepLiftShap",
    "AbsenceNeuronFeatureAblation",
    "AbsenceNeuronGradient",
    "AbsenceNeuronGradientShap",
    "AbsenceNeuronGuidedBackprop",
    "AbsenceNeuronIntegratedGradients",
    "AbsenceNoiseTunnel",
    "AbsenceOcclusion",
    "AbsenceRemoteLLMAttribution",
    "AbsenceSaliency",
    "AbsenceShapleyValueSampling",
    "AbsenceShapleyValues",
    "AbsenceTokenReferenceBase",
    "Explanation",
    "text_record",
    "visualize_text",
]

_dataloader_attr.SUPPORTED_METHODS.add(AbsenceFeatureAblation)  # DataLoaderAttribution compares exact types

"""``Absence*``: Zennit's composites, rules and attributors, able to show what is absent.

Change the composite and the attributor, keep the rest::

    from absence_plugins.zennit import AbsenceEpsilonGamma as EpsilonGammaBox, AbsenceGradient as Gradient

Relevance is that of the *difference* between the input and a reference, rule by rule, and sums to the difference of
the outputs. R > 0 raises the explained output, R < 0 holds it down. Importing this package registers the composites
in ``zennit.composites.COMPOSITES`` as ``absence_<name>``.
"""

try:
    import zennit.composites as _host  # noqa: F401
except ImportError as error:
    raise ImportError('absence_plugins.zennit needs Zennit: pip install "absence-plugins[zennit]"') from error

from absence_plugins.core.explanation import Explanation
from absence_plugins.zennit.attributors import (
    AbsenceGradient,
    AbsenceIntegratedGradients,
    AbsenceOcclusion,
    AbsenceSmoothGrad,
)
from absence_plugins.zennit.composites import (
    AbsenceEpsilonAlpha2Beta1,
    AbsenceEpsilonAlpha2Beta1Flat,
    AbsenceEpsilonGamma,
    AbsenceEpsilonGammaBox,
    AbsenceEpsilonPlus,
    AbsenceEpsilonPlusFlat,
    AbsenceExcitationBackprop,
    AbsenceGuidedBackprop,
)
from absence_plugins.zennit.mapped import (
    AbsenceLayerMapComposite,
    AbsenceMixedComposite,
    AbsenceNameLayerMapComposite,
    AbsenceNameMapComposite,
    AbsenceSpecialFirstLayerMapComposite,
)
from absence_plugins.zennit.pairing import ConservationError
from absence_plugins.zennit.refused import AbsenceBetaSmooth, AbsenceDeconvNet
from absence_plugins.zennit.rules import (
    AbsenceAlphaBeta,
    AbsenceEpsilon,
    AbsenceFlat,
    AbsenceGamma,
    AbsenceMaxPool,
    AbsenceNorm,
    AbsencePass,
    AbsenceReduction,
    AbsenceWSquare,
    AbsenceZBox,
    AbsenceZPlus,
)
from absence_plugins.zennit.seeds import nontarget

__all__ = [
    "AbsenceAlphaBeta",
    "AbsenceBetaSmooth",
    "AbsenceDeconvNet",
    "AbsenceEpsilon",
    "AbsenceEpsilonAlpha2Beta1",
    "AbsenceEpsilonAlpha2Beta1Flat",
    "AbsenceEpsilonGamma",
    "AbsenceEpsilonGammaBox",
    "AbsenceEpsilonPlus",
    "AbsenceEpsilonPlusFlat",
    "AbsenceExcitationBackprop",
    "AbsenceFlat",
    "AbsenceGamma",
    "AbsenceGradient",
    "AbsenceGuidedBackprop",
    "AbsenceIntegratedGradients",
    "AbsenceLayerMapComposite",
    "AbsenceMaxPool",
    "AbsenceMixedComposite",
    "AbsenceNameLayerMapComposite",
    "AbsenceNameMapComposite",
    "AbsenceNorm",
    "AbsenceOcclusion",
    "AbsencePass",
    "AbsenceReduction",
    "AbsenceSmoothGrad",
    "AbsenceSpecialFirstLayerMapComposite",
    "AbsenceWSquare",
    "AbsenceZBox",
    "AbsenceZPlus",
    "ConservationError",
    "Explanation",
    "nontarget",
]

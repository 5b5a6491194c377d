"""Debiasing that knows about absences: attribution priors for training, and artefacts to try them on."""

from absence_plugins.methods.debias.artefacts import Artefact, dilate, ellipse, patch, tag
from absence_plugins.methods.debias.attribution import masked_attribution, twice_differentiable
from absence_plugins.methods.debias.prior import AttributionPrior, Parts

__all__ = [
    "Artefact",
    "AttributionPrior",
    "Parts",
    "dilate",
    "ellipse",
    "masked_attribution",
    "patch",
    "tag",
    "twice_differentiable",
]

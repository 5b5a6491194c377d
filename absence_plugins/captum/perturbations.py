"""Captum's perturbation methods on inputs, asked about absences. They see through dead units.

All options are those of ``AbsenceMethod``. Ablations, permutations and Shapley values choose how many perturbations share
a forward, unless the caller says ``perturbations_per_eval``.

Shapes: a map has the shape of its input ([B, ...], one per input). Sign, in every class: R > 0 raises the
explained output; R < 0 is content of x that holds it down, which for a non-target is what its unit
encodes as absent. Against references, R > 0 where they have content and x has none says: its absence
raises the output.
"""

from __future__ import annotations

import torch  # noqa: F401  (examples)
from captum._utils.models.linear_model import SkLearnLinearRegression  # noqa: F401  (examples)
from captum.attr import (
    FeatureAblation,
    FeaturePermutation,
    KernelShap,
    Lime,
    LimeBase,
    Occlusion,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import nn  # noqa: F401  (examples)

from absence_plugins.captum.calls import BATCH
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.core.references import ReferenceSet  # noqa: F401  (examples)


class AbsenceFeatureAblation(AbsenceMethod, FeatureAblation, automatic=BATCH):
    """How much the output changes when features are replaced by the reference's (or by blank).

    R_i = u(x) - u(x with feature i taken from r).

    Source: Zeiler and Fergus, ECCV 2014, section 4.2.

    Sees through dead units. Features are single values unless ``feature_mask`` groups them.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceFeatureAblation(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0)
    tensor([[0., 2.]])
    """


class AbsenceFeaturePermutation(
    AbsenceMethod,
    FeaturePermutation,
    no_reference="it permutes features within the batch; use AbsenceFeatureAblation, which takes them from references",
    automatic=BATCH,
):
    """How much the non-target changes when a feature is exchanged between the samples of the batch.

    R_i = u(x) - u(x with feature i of another sample of the batch).

    Source: Fisher, Rudin and Dominici, JMLR 2019.

    Random, and a batch is more than its samples: the only class whose map depends on the batch.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceFeaturePermutation(net, perm_func=lambda x, mask: x.flip(0)).attribute(torch.tensor([[1.0, 2.0], [1.0, 0.0]]), target=1)
    tensor([[-2., -2.],
            [ 2.,  2.]])
    """


class AbsenceOcclusion(AbsenceMethod, Occlusion, automatic=BATCH):
    """How much the output changes when a window of x is replaced by the reference's content (or by blank).

    R_i = mean over windows that hold i of u(x) - u(x with the window from r).

    Source: Zeiler and Fergus, ECCV 2014, section 4.2.

    Sees through dead units. The window blurs: the share inside a small region falls.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceOcclusion(net).attribute(torch.tensor([[1.0, 2.0]]), target=1, sliding_window_shapes=(1,))
    tensor([[ 1., -2.]])
    """


class AbsenceShapleyValueSampling(AbsenceMethod, ShapleyValueSampling, complete=True, automatic=BATCH):
    """Sampled Shapley values of the features, absent features taken from the reference.

    R_i = mean over random orders of the change of u when feature i joins those before it.

    Source: Castro et al., 2009; Strumbelj and Kononenko, JMLR 2010.

    Random: seed torch. Sees through dead units.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceShapleyValueSampling(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    """


class AbsenceShapleyValues(AbsenceMethod, ShapleyValues, complete=True, automatic=BATCH):
    """Exact Shapley values of the features; for a handful of features.

    R_i = mean over all orders of the change of u when feature i joins those before it.

    Source: Shapley, 1953.

    K features cost K! orders: group pixels with ``feature_mask``.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceShapleyValues(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0)
    tensor([[0., 2.]])
    """


class AbsenceLimeBase(
    AbsenceMethod,
    LimeBase,
    no_reference="its perturbation is the caller's own; put the references into perturb_func, or use AbsenceLime",
):
    """A local surrogate of the non-target, with the caller's own perturbations.

    R = coefficients of an interpretable model fitted to u around x.

    Source: Ribeiro et al., KDD 2016, eq. 1.

    The map lies in the interpretable space, [1, features]. Random: seed torch.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> keep = lambda x, **_: torch.bernoulli(torch.full((1, 2), 0.5))
    >>> mix = lambda z, x, **_: z * x
    >>> lime = AbsenceLimeBase(net, SkLearnLinearRegression(), lambda *_, **__: 1.0, keep, True, mix, None)
    >>> lime.attribute(torch.tensor([[1.0, 2.0]]), target=1, n_samples=40).round(decimals=2)
    tensor([[ 1., -2.]])
    """


class AbsenceLime(AbsenceMethod, Lime):
    """A local linear surrogate of the output; switched-off features come from the reference.

    R = coefficients of a sparse linear model fitted to u at random mixtures of x and r.

    Source: Ribeiro et al., KDD 2016, eq. 1.

    Random: seed torch. Captum's default model is a lasso, whose penalty shrinks R.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceLime(net, interpretable_model=SkLearnLinearRegression()).attribute(torch.tensor([[1.0, 2.0]]), target=1, n_samples=40).sign()
    tensor([[ 1., -1.]])
    """


class AbsenceKernelShap(AbsenceMethod, KernelShap, complete=True):
    """Shapley values by weighted linear regression; switched-off features come from the reference.

    R = solution of the Shapley-kernel-weighted least squares for u at mixtures of x and r.

    Source: Lundberg and Lee, NeurIPS 2017, theorem 2.

    Random: seed torch. Sees through dead units.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceKernelShap(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0, n_samples=200).round(decimals=2)
    tensor([[0., 2.]])
    """

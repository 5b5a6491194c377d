"""Captum's layer attributions, asked about absences. All options are those of ``AbsenceMethod``.

Shapes: a map has the shape of the layer's output h (or input). Sign, in every class: R > 0 are units whose
activity raises the explained output, R < 0 units that hold it down. With references, content is measured
on the layer: the absence part is where the layer is closer to its value on a blank image for x than for r.
"""

from __future__ import annotations

from typing import Any

import torch  # noqa: F401  (examples)
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerFeatureAblation,
    LayerFeaturePermutation,
    LayerGradCam,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from captum.attr._core.layer.layer_gradient_shap import LayerInputBaselineXGradient
from torch import Tensor, nn  # noqa: F401  (examples)

from absence_plugins.captum.calls import BATCH, run_host
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.remedies import (
    ACTIVATION,
    NO_BASELINE,
    paired_gradient_shap,
)
from absence_plugins.core.hooks import quiet_forward
from absence_plugins.core.outputs import as_columns, select
from absence_plugins.core.references import ReferenceSet  # noqa: F401  (examples)


def already_selected(host: Any, call: dict[str, Any], plan: Plan) -> tuple[Any, dict[str, Any]]:
    """The explained output is selected in the forward, for any number of perturbed copies of the batch."""
    forward, index = host.forward_func, plan.target()

    def explained(*args: Any) -> Tensor:
        outputs = as_columns(forward(*args))
        times = len(outputs) // len(index)
        return select(outputs, index.repeat(times) if isinstance(index, Tensor) else index * times)

    host.forward_func = explained
    return host, {**call, "target": None}


class AbsenceLayerConductance(AbsenceMethod, LayerConductance, complete=True):
    """Conductance of a layer's units for the output, along the path from reference to input.

    R_j = sum over the path of du/dh_j * change of h_j.

    Source: Dhamdhere et al., ICLR 2019, eq. 2.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerConductance(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[-0.9990,  0.0000]])
    """


class AbsenceLayerGradientXActivation(
    AbsenceMethod, LayerGradientXActivation, local=True, no_reference=NO_BASELINE, passing="layer"
):
    """Activation times gradient at a layer, for the non-target.

    R = h * du/dh.

    Source: The layer form of input times gradient.

    Local.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerGradientXActivation(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[-1.,  0.]])
    """


class AbsenceLayerActivation(AbsenceMethod, LayerActivation, refuses=ACTIVATION):
    """Captum's LayerActivation, which cannot show absences: warns that it is Captum's own, rejects every option.

    R = h(x).

    Source: Captum.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerActivation(net, net[0], nontarget=None).attribute(torch.tensor([[1.0, 2.0]])).detach()
    tensor([[-1.,  2.]])
    """


class AbsenceLayerFeaturePermutation(
    AbsenceMethod,
    LayerFeaturePermutation,
    no_reference="it permutes units within the batch; use AbsenceLayerFeatureAblation",
    automatic=BATCH,
):
    """How much the non-target changes when a layer's unit is exchanged between the samples of the batch.

    R_j = u(h) - u(h with unit j of another sample).

    Source: Fisher, Rudin and Dominici, JMLR 2019.

    Random; the map depends on the batch. Captum 0.9.0 raises on every target of this class; here it works.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerFeaturePermutation(net, net[0]).attribute(torch.tensor([[1.0, 2.0], [1.0, 3.0]]), target=1).shape
    torch.Size([2, 2])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        # Captum 0.9.0 selects the target twice here and raises
        return run_host(LayerFeaturePermutation, *already_selected(host, call, plan))


class AbsenceLayerFeatureAblation(AbsenceMethod, LayerFeatureAblation, baselines="layer_baselines", automatic=BATCH):
    """How much the output changes when a layer's units take the values they have on the reference.

    R_j = u(h) - u(h with h_j = h_j(r)).

    Source: Zeiler and Fergus, ECCV 2014, section 4.2, at a layer.

    A reference set supplies ``layer_baselines``: the layer's activations on the references.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceLayerFeatureAblation(net, net[0], reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0)
    tensor([[2., 0.]])
    """

    def _as_baselines(self, plan: Plan, reference: tuple[Tensor, ...]) -> Any:
        with quiet_forward(reference):
            return self._activation(plan, reference, plan.extra(1))

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        # Captum 0.9.0 does not repeat a target per sample for perturbations_per_eval > 1 and raises
        return run_host(LayerFeatureAblation, *already_selected(host, call, plan))


class AbsenceInternalInfluence(AbsenceMethod, InternalInfluence):
    """Mean gradient of the output at a layer along the path from reference to input.

    R_j = integral over the path of du/dh_j.

    Source: Leino et al., ITC 2018, section III.

    A gradient, not multiplied by activations: R < 0 says that more of unit j lowers the output.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceInternalInfluence(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[1., 0.]])
    """


class AbsenceLayerGradCam(
    AbsenceMethod,
    LayerGradCam,
    local=True,
    no_reference=NO_BASELINE,
    arranged=True,
    unsigned="relu_attributions",
    passing="layer",
):
    """Grad-CAM of the non-target, unclamped.

    R = sum over channels of mean gradient * activation, the mean over positions.

    Source: Selvaraju et al., ICCV 2017, eq. 2, without its ReLU.

    Channels are told from positions: maps [B, C, H, W] and [B, H, W, C] give [B, 1, H, W], tokens [B, T, C] give
    [B, 1, T] (in vision transformers token 0 is the class token). ``relu_attributions=True`` deletes what
    suppresses the output: with a warning, and rejected where evidence is read from the sign. Channels are summed before
    the sign is read, so the sign is
    unreliable: right in 88 % of planted cases. Raises ValueError where the axis of the channels cannot be told.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten())
    >>> net[0].weight.data = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    >>> AbsenceLayerGradCam(net, net[0]).attribute(torch.ones(1, 1, 1, 1), target=1).detach()
    tensor([[[[-1.]]]])
    """


class AbsenceLayerGradientShap(AbsenceMethod, LayerGradientShap, complete=True, sampled=True, distribution=True):
    """Expected gradients at a layer between x and its references.

    R = E over r and a of (h(x) - h(r)) * du/dh at r + a (x - r) + noise.

    Source: Erion et al., Nature Machine Intelligence 2021, eq. 3, at a layer.

    ``n_samples`` points for each reference. Random: seed torch and numpy.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceLayerGradientShap(net, net[0], reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0).round(decimals=3)
    tensor([[2., 0.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        if not paired:
            return run_host(LayerGradientShap, host, call)
        inner = LayerInputBaselineXGradient(host.forward_func, host.layer, host.device_ids, host.multiplies_by_inputs)
        return paired_gradient_shap(inner, call, attribute_to_layer_input=call["attribute_to_layer_input"])


class AbsenceLayerIntegratedGradients(AbsenceMethod, LayerIntegratedGradients, complete=True):
    """Integrated gradients at a layer, along the straight path between its activations on r and on x.

    R = (h(x) - h(r)) * integral of du/dh at h(r) + a (h(x) - h(r)).

    Source: Sundararajan et al., ICML 2017, eq. 1, at a layer.

    Takes one layer or a list.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerIntegratedGradients(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[-1.,  0.]])
    """

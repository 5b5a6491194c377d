"""The ``absence_*`` objectives: values and gradients by hand, Lucent's algebra, registration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lucent.optvis import objectives, param, render
from torch import Tensor, nn

from absence_plugins import lucent as adapter
from absence_plugins.lucent import absence_channel, absence_contrast, as_objective, register, unregister
from absence_plugins.lucent.layers import Activations, LayerNotComputed
from absence_plugins.lucent.objectives import OBJECTIVES

pytestmark = pytest.mark.filterwarnings("ignore")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 6), nn.Linear(6, 3)
    )


def loss(model: nn.Module, objective: Any, images: Tensor) -> Tensor:
    """The objective of one forward, with the hooks that render_vis uses."""
    with Activations(model, lambda: images) as T:
        for _ in range(6):  # a forward names a layer, the next one has it
            T.run(images)
            try:
                value: Tensor = objective(T)
            except LayerNotComputed:
                continue
            return value
    raise AssertionError("the layers are never computed")


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def value_at(model: nn.Sequential, x: Tensor, layers: int) -> Tensor:
    return model[:layers](x)


DIRECTION = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
BY_HAND: dict[str, tuple[Any, Any]] = {
    "channel": (adapter.absence_channel("2", 3), lambda m, x: value_at(m, x, 3)[:, 3].mean()),
    "channel of a ReLU": (adapter.absence_channel("3", 3), lambda m, x: value_at(m, x, 3)[:, 3].mean()),
    "channel of a dense layer": (adapter.absence_channel("5", 2), lambda m, x: value_at(m, x, 6)[:, 2].mean()),
    "one image": (adapter.absence_channel("3", 3, batch=1), lambda m, x: value_at(m, x, 3)[1, 3].mean()),
    "neuron": (adapter.absence_neuron("3", 1), lambda m, x: value_at(m, x, 3)[:, 1, 2, 2].mean()),
    "neuron at x, y": (adapter.absence_neuron("3", 1, x=0, y=3), lambda m, x: value_at(m, x, 3)[:, 1, 3, 0].mean()),
    "dense neuron": (adapter.absence_neuron("6", 1), lambda m, x: m(x)[:, 1].mean()),
    "direction": (
        adapter.absence_direction("3", DIRECTION),
        lambda m, x: torch.cosine_similarity(value_at(m, x, 3), DIRECTION.view(1, -1, 1, 1), 1).mean(),
    ),
    "direction of a dense layer": (
        adapter.absence_direction("6", DIRECTION[:3]),
        lambda m, x: torch.cosine_similarity(m(x), DIRECTION[:3][None], 1).mean(),
    ),
    "direction neuron": (
        adapter.absence_direction_neuron("3", DIRECTION),
        lambda m, x: torch.cosine_similarity(value_at(m, x, 3)[:, :, 2, 2], DIRECTION[None], 1).mean(),
    ),
    "weights": (
        adapter.absence_channel_weight("3", DIRECTION),
        lambda m, x: (value_at(m, x, 3) * DIRECTION.view(1, -1, 1, 1)).mean(),
    ),
    "class": (adapter.absence_class(2), lambda m, x: m(x)[:, 2].mean()),
    "contrast": (
        adapter.absence_contrast("3", 1),
        lambda m, x: value_at(m, x, 3)[1, 1].mean() - value_at(m, x, 3)[0, 1].mean(),
    ),
    "contrast of classes": (adapter.absence_contrast("", 1, kind="class"), lambda m, x: m(x)[1, 1] - m(x)[0, 1]),
    "contrast of neurons": (
        adapter.absence_contrast("3", 1, kind="neuron", x=1, y=1),
        lambda m, x: value_at(m, x, 3)[1, 1, 1, 1] - value_at(m, x, 3)[0, 1, 1, 1],
    ),
    "text": (as_objective("-3:2"), lambda m, x: value_at(m, x, 3)[:, 2].mean()),
    "raised": (-absence_channel("3", 2), lambda m, x: -value_at(m, x, 3)[:, 2].mean()),
    "sum": (
        absence_channel("3", 2) + 2 * absence_channel("2", 0) - absence_channel("5", 1) / 4 + 1,
        lambda m, x: value_at(m, x, 3)[:, 2].mean() + 2 * value_at(m, x, 3)[:, 0].mean() - value_at(m, x, 6)[:, 1].mean() / 4 + 1,
    ),
    "with Lucent's": (
        objectives.channel("2", 1) + absence_channel("3", 2) - 0.5 * objectives.diversity("3"),
        lambda m, x: absence_only(m, x),
    ),
}  # fmt: skip


def absence_only(model: nn.Sequential, x: Tensor) -> Tensor:
    plain = render.hook_model(model, lambda: x)
    model(x)
    value = objectives.channel("2", 1)(plain) - 0.5 * objectives.diversity("3")(plain)
    for module in model.modules():
        module._forward_hooks.clear()
    return value + value_at(model, x, 3)[:, 2].mean()


@pytest.mark.parametrize("name", BY_HAND)
def test_values_and_gradients_are_those_of_a_second_writing(name: str) -> None:
    objective, expected = BY_HAND[name]
    model = net()
    x, y = images().requires_grad_(), images().requires_grad_()
    found, wanted = loss(model, objective, x), expected(model, y)
    assert torch.allclose(found, wanted, atol=1e-6)
    slopes = [torch.autograd.grad(value, image)[0] for value, image in ((found, x), (wanted, y))]
    assert torch.allclose(*slopes, atol=1e-7)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_tokens() -> None:
    """[B, tokens, C]: channels last, a position is a token, the mean runs over tokens."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block = nn.Linear(8, 4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(torch.relu(self.embed(x.flatten(1, 2)))).mean(1)

    torch.manual_seed(0)
    model, x = Tokens(), images()  # 24 tokens
    value = model.block(torch.relu(model.embed(x.flatten(1, 2))))
    assert torch.allclose(loss(model, adapter.absence_channel("block", 3), x), value[..., 3].mean())
    assert torch.allclose(loss(model, adapter.absence_neuron("block", 3, x=0), x), value[:, 0, 3].mean())
    assert torch.allclose(loss(model, adapter.absence_neuron("block", 3), x), value[:, 12, 3].mean())
    cosines = torch.cosine_similarity(value, DIRECTION[None, None], 2)
    assert torch.allclose(loss(model, adapter.absence_direction("block", DIRECTION), x), cosines.mean())


def test_algebra_keeps_what_is_driven() -> None:
    both = 2 * objectives.channel("2", 1) + (-absence_channel("3", 1)) + absence_channel("5", 2) * 3
    assert [(term.layer, term.sign) for term in both.terms] == [("3", -1.0), ("5", 3.0)]
    assert (objectives.diversity("3") + absence_contrast("3", 1)).same_start
    with pytest.raises(TypeError):
        absence_channel("3", 1) * absence_channel("3", 1)


# -- registration -----------------------------------------------------------------------------------------------------


def test_registration_is_idempotent_and_undone() -> None:
    before = set(vars(objectives))
    register()
    register()
    assert set(vars(objectives)) - before == set(OBJECTIVES)
    assert all(name.startswith("absence_") for name in OBJECTIVES)
    assert objectives.absence_channel is adapter.absence_channel
    unregister()
    unregister()
    assert set(vars(objectives)) == before


def test_a_foreign_name_is_neither_overwritten_nor_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "absence_class", "theirs", raising=False)
    with pytest.raises(ValueError, match="absence_class"):
        register()
    assert not hasattr(objectives, "absence_channel")
    unregister()
    assert objectives.absence_class == "theirs"


LUCENTS: dict[str, Any] = {
    "neuron": lambda: objectives.neuron("2", 1),
    "channel": lambda: objectives.channel("2", 1),
    "neuron_weight": lambda: objectives.neuron_weight("2", None),
    "channel_weight": lambda: objectives.channel_weight("2", DIRECTION),
    "localgroup_weight": lambda: objectives.localgroup_weight("2", DIRECTION, x=1, y=1, wx=2, wy=2),
    "direction": lambda: objectives.direction("2", DIRECTION),
    "direction_neuron": lambda: objectives.direction_neuron("2", DIRECTION),
    "blur_input_each_step": lambda: objectives.blur_input_each_step(),
    "channel_interpolate": lambda: objectives.channel_interpolate("2", 0, "2", 3),
    "alignment": lambda: objectives.alignment("2"),
    "diversity": lambda: objectives.diversity("2"),
    "as_objective": lambda: objectives.as_objective("2:3"),
    "sum": lambda: objectives.Objective.sum([objectives.channel("2", 0), objectives.channel("2", 1)]),
    "batch": lambda: objectives.channel("2", 1, batch=1),
}


@pytest.mark.parametrize("name", LUCENTS)
@pytest.mark.parametrize("registered", [False, True])
def test_lucents_own_objectives_are_as_before(name: str, registered: bool) -> None:
    """Values and gradients, with and without our registration, under Lucent's hooks and under ours."""
    model, x, y = net(), images(3).requires_grad_(), images(3).requires_grad_()
    plain = render.hook_model(model, lambda: x)
    model(x)
    expected = LUCENTS[name]()(plain)
    (slope,) = torch.autograd.grad(expected, x)
    for module in model.modules():
        module._forward_hooks.clear()
    if registered:
        register()
    try:
        found = loss(model, LUCENTS[name](), y)
        (other,) = torch.autograd.grad(found, y)
    finally:
        unregister()
    assert torch.equal(found, expected)
    assert torch.equal(slope, other)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["3", "conv", ":", "-:2", "3:x", "", "3:-1"])
def test_texts_that_name_no_channel(text: str) -> None:
    with pytest.raises(ValueError, match="LAYER:CHANNEL"):
        as_objective(text)
    with pytest.raises(TypeError, match="int"):
        as_objective(3)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda: absence_channel("nothing", 1), "no layer 'nothing'; it has: 0, 1, 2"),
        (lambda: absence_channel("2", 9), "there is no unit 9: it has 5 channels, 0 to 4"),
        (lambda: absence_channel("2", -1), "index=-1 must be a channel number, 0 or higher"),
        (lambda: absence_channel("2", 1, batch=7), "batch=7: the batch has no such image"),
        (lambda: adapter.absence_neuron("2", 1, x=99), "x=99 lies outside"),
        (lambda: adapter.absence_direction("2", torch.ones(3)), "3 entries, the layer 5 channels"),
        (lambda: adapter.absence_class(7), "there is no unit 7: it has 3 channels"),
    ],
)
def test_clear_errors(objective: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter.render_vis(net(), objective(), lambda: param.image(8), thresholds=(1,), transforms=[],
                           preprocess=False, fixed_image_size=8, progress=False)  # fmt: skip


def test_settings_are_checked_at_once() -> None:
    for call, message in (
        (lambda: adapter.absence_direction("2", torch.ones(2, 2)), "must be a vector"),
        (lambda: absence_contrast("2", 1, kind="layer"), "kind='layer' must be one of channel, neuron, class"),
        (lambda: absence_contrast("2", 1, x=3), "only a neuron has a position"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_lucents_render_says_what_to_use() -> None:
    with pytest.raises(TypeError, match=r"absence_plugins.lucent.render_vis"):
        render.render_vis(net(), absence_channel("2", 1), lambda: param.image(8), thresholds=(1,), transforms=[],
                          preprocess=False, fixed_image_size=8, progress=False, show_image=False)  # fmt: skip

"""Which units carry a decision: closed forms, exact sums, planted units, and what is silent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from absence_plugins import Layer, ReferenceSet, Unit
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.data.planted import conjunction, hidden_unit
from absence_plugins.methods.carriers import (
    Features,
    carrier_graph,
    conditional_maps,
    find_carriers,
    relevant_examples,
)
from absence_plugins.relevance import relevance

DIGITS = load_digits()


def small(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return (
            nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.GELU(), nn.Flatten(), nn.Linear(80, 3)
            )
            .double()
            .eval()
        )


def pair(samples: int = 3, references: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 1, 6, 6, dtype=torch.float64, generator=generator)
    return x, torch.randn(references, samples, 1, 6, 6, dtype=torch.float64, generator=generator)


def test_an_inactive_unit_carries_what_it_would_have_done() -> None:
    """y = relu(a) - 2 relu(b): a is there on x, b on the reference."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    net[0].weight.data, net[2].weight.data = torch.eye(2).double(), torch.tensor([[1.0, -2.0]]).double()
    x, r = torch.tensor([[3.0, 0.0]]).double(), torch.tensor([[0.0, 5.0]]).double()
    found = find_carriers(net, x, r, layers="1")
    assert found.layers["1"].relevance.tolist() == [[3.0, 10.0]]
    silent = found.silent()
    assert [(one.unit, one.relevance) for one in silent] == [(1, 10.0)]
    assert silent[0].words() == "unit 1 of 1 is silent here and 5 on the references: that raises the output by 10"
    assert float(found.layers["1"].rest) == 0.0


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_units_sum_to_the_difference_and_maps_to_the_whole(rule: str) -> None:
    net, (x, r) = small(), pair()
    found = find_carriers(net, x, r, 1, layers=["1", "3"], rule=rule)
    for own in found.layers.values():
        assert torch.allclose(own.relevance.sum(1), found.difference, atol=1e-9)
        assert float(own.rest.abs().max()) < 1e-9
    whole = relevance(net, x, r, 1, rule=rule).attribution
    maps = conditional_maps(net, x, r, range(5), 1, layer="3", rule=rule)
    assert torch.allclose(maps.whole, whole, atol=1e-12)
    assert torch.allclose(maps.rest, torch.zeros_like(whole), atol=1e-9)
    if rule == "epsilon":
        assert torch.allclose(maps.relevance, found.layers["3"].relevance, atol=1e-9)


def test_a_conditional_map_is_that_of_the_network_with_the_other_units_fixed() -> None:
    """Second writing, of a head that is linear: the output with all other units as on the reference."""
    net, (x, r) = small(), pair(references=1)

    class Only(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden = net[:3](images)
            kept = torch.zeros_like(hidden)
            kept[:, 2] = net[3](hidden)[:, 2]
            return net[4:](kept)

    own = relevance(Only(), x, r, 0).attribution
    assert torch.allclose(conditional_maps(net, x, r, [2], 0, layer="3").maps[0], own, atol=1e-9)


def test_what_passes_around_a_layer_is_the_rest() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.body(x).relu())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Skip().double().eval()
    x, r = torch.ones(1, 4).double(), -torch.ones(1, 4).double()
    found = find_carriers(net, x, r, layers="body")
    around = net.head.weight.detach() @ (x - r).T
    assert torch.allclose(found.layers["body"].rest, around.flatten())


def test_tokens_have_their_channels_on_the_last_axis() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 4), nn.Flatten(), nn.Linear(20, 2)).double().eval()
        x, r = torch.randn(2, 2, 5, 3).double()
    found = find_carriers(net, x, r, 1, layers=["0", Layer("2")])
    assert [own.relevance.shape for own in found.layers.values()] == [(2, 6), (2, 4)]
    assert torch.allclose(found.layers["2"].relevance.sum(1), found.difference)
    assert torch.allclose(found.layers["2"].values, net[:3](x).detach().mean(1))


def test_features_and_what_they_leave_out_sum_to_the_difference() -> None:
    net, (x, r) = small(), pair()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder, decoder = torch.randn(5, 9).double(), torch.randn(9, 5).double()
    features = Features(lambda a: (a @ encoder).relu(), decoder)
    found = find_carriers(net, x, r[0], 2, layers="3", features={"3": features})
    own = found.layers["3"]
    assert own.relevance.shape == (3, 9)
    assert torch.allclose(own.relevance.sum(1) + own.rest, found.difference)
    multiplier = net[5].weight.detach()[2].reshape(5, 4, 4)  # the head is linear: the multiplier is its weight
    change = (net[:4](x) - net[:4](r[0])).detach()
    codes = [(net[:4](one).detach().movedim(1, -1) @ encoder).relu() for one in (x, r[0])]
    written = (codes[0] - codes[1]).unsqueeze(-1) * decoder  # [B, H, W, F, C]
    by_hand = (written * multiplier.movedim(0, -1)[None, :, :, None]).sum((1, 2, 4))
    assert torch.allclose(own.relevance, by_hand)
    missed = change - (codes[0] - codes[1]).matmul(decoder).movedim(-1, 1)
    assert torch.allclose(own.rest, (missed * multiplier).sum((1, 2, 3)))


def test_edges_into_a_unit_sum_to_its_relevance() -> None:
    net, (x, r) = small(), pair(samples=1)
    found = carrier_graph(net, x, r, 0, layers=["1", "3"], most=5)
    for unit in found.nodes["3"]:
        into = sum(edge.relevance for edge in found.edges if edge.target == ("3", unit.unit))
        assert into == pytest.approx(unit.relevance, abs=1e-9)  # all four units of layer 1 are nodes
    assert sum(one.relevance for one in found.nodes["1"]) == pytest.approx(found.difference)


def test_examples_are_chosen_by_what_the_unit_does() -> None:
    net, (x, r) = small(), pair(samples=6)
    found = relevant_examples(net, x, r, Unit("1", 2), 1, count=2, batch_size=4, progress=False)
    whole = find_carriers(net, x, r, 1, layers="1").layers["1"].relevance[:, 2]
    assert torch.allclose(found.relevance, whole)
    assert found.highest == tuple(whole.argsort(descending=True)[:2].tolist())
    assert found.lowest == tuple(whole.argsort()[:2].tolist())


@pytest.mark.slow
def test_the_planted_hidden_unit_comes_first() -> None:
    """The logit reads the unit through the layers behind it: in every sample it must lead its layer, which is a cut with
    the residual branch around it.
    """
    planted = hidden_unit()
    missing = planted.images[planted.labels == planted.absence_unit]
    pool = ReferenceSet(planted.pool_images, planted.pool_labels, k=2, contrast=planted.presence_unit)
    references = pool.nearest(missing).movedim(1, 0)
    layer = planted.unit.layer
    found = find_carriers(planted.full_model, missing, references, planted.absence_unit, layers=[layer, "pool1"])
    own = found.layers[layer]
    assert (own.relevance.argmax(1) == planted.unit.index).all()
    assert float((own.relevance[:, planted.unit.index] / found.difference).min()) > 0.5
    cut = found.layers["pool1"]  # in front of the block all paths run through one layer
    assert torch.allclose(cut.relevance.sum(1), found.difference, atol=1e-6 * float(found.difference.abs().max()) * 10)


@pytest.mark.slow
def test_what_blanks_the_key_is_carried_by_the_units_that_see_it() -> None:
    """Conjunction, by intervention: fixing the strongest silent unit to its value on the reference lowers the logit most."""
    planted = conjunction()
    missing = planted.images[planted.labels == planted.absence_unit][:20]
    pool = ReferenceSet(planted.pool_images, planted.pool_labels, k=1, contrast=planted.presence_unit, empty=-1.0)
    references = pool.nearest(missing)[:, 0]
    layer = [name for name, one in planted.model.named_modules() if isinstance(one, nn.ReLU)][-1]
    found = find_carriers(planted.model, missing, references, planted.absence_unit, layers=layer)
    module = planted.model.get_submodule(layer)
    held = {}
    keep = module.register_forward_hook(lambda _m, _i, out: held.__setitem__("r", out.detach()))
    planted.model(references)
    keep.remove()
    hits = 0
    for sample in range(len(missing)):
        x = missing[sample : sample + 1]
        drops = []
        for unit in range(held["r"].shape[1]):

            def put(
                _m: nn.Module, _i: object, out: torch.Tensor, unit: int = unit, sample: int = sample
            ) -> torch.Tensor:
                changed = out.clone()
                changed[:, unit] = held["r"][sample, unit]
                return changed

            hook = module.register_forward_hook(put)
            drops.append(float(planted.model(x)[0, planted.absence_unit].detach()))
            hook.remove()
        before = float(planted.model(x)[0, planted.absence_unit].detach())
        strongest = int(found.layers[layer].relevance[sample].argmax())
        hits += strongest == int(torch.tensor([before - value for value in drops]).argmax())
    assert hits == len(missing)


def test_digits_a_silent_unit_of_a_trained_network() -> None:
    """A 7 against 2s: some unit is off on the 7, on on the 2s, and that raises logit 7."""
    model = digits_cnn()
    seven = DIGITS.test_images[DIGITS.test_labels == 7][:1]
    twos = ReferenceSet(DIGITS.train_images, DIGITS.train_labels, contrast=2).nearest(seven)[0][:, None]
    layer = [name for name, one in model.named_modules() if isinstance(one, nn.ReLU)][-1]
    found = find_carriers(model, seven, twos, 7, layers=layer)
    assert torch.allclose(found.layers[layer].relevance.sum(1), found.difference, atol=1e-4)
    figure = found.figure()
    assert len(figure.axes[0].patches) == 12
    assert "u(x) - u(r)" in found.table()


def test_what_does_not_fit_is_named() -> None:
    net, (x, r) = small(), pair()
    with pytest.raises(ValueError, match="no layer 'relu'"):
        find_carriers(net, x, r, 0, layers="relu")
    with pytest.raises(ValueError, match="5 units, 0 to 4, and no 7"):
        conditional_maps(net, x, r, [7], 0, layer="3")
    with pytest.raises(ValueError, match="named twice"):
        find_carriers(net, x, r, 0, layers=["1", "1"])
    with pytest.raises(ValueError, match="one sample"):
        carrier_graph(net, x, r, 0, layers=["1", "3"])
    with pytest.raises(ValueError, match=r"decoder has shape \(2, 3\)"):
        find_carriers(net, x, r, 0, layers="3", features={"3": Features(lambda a: a, torch.zeros(2, 3))})
    with pytest.raises(ValueError, match="none of the layers"):
        find_carriers(net, x, r, 0, layers="3", features={"1": Features(lambda a: a, torch.zeros(2, 3))})
    with pytest.raises(TypeError, match="pass the module"):
        find_carriers(lambda images: images, x, r, 0, layers="3")

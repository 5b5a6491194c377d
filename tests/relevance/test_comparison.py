"""Hidden layers, rules, the lower-level entry, and that nothing is left behind."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from graph_nets import Call, D, check, net, rand
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from absence_plugins.core.outputs import Logit, Margin, Others
from absence_plugins.relevance import Comparison, RelevanceError, relevance
from absence_plugins.relevance.secants.redistribution import Gamma, Spread, Stabilized

# -- layers, rules, the lower-level entry ------------------------------------------------------------------------------


def test_hidden_relevance_sums_at_cuts() -> None:
    model = net(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 2))
    x, r = rand(3, 4), rand(2, 3, 4, seed=1)
    found = relevance(model, x, r, 1, layers=["0", model[2], "3"])
    for name, width in (("0", 5), ("2", 6), ("3", 6)):
        assert found.at(name).shape == (3, width)
        torch.testing.assert_close(found.at(name).sum(1), found.difference.mean(0))
    assert torch.equal(found.attribution, relevance(model, x, r, 1).attribution)
    with pytest.raises(KeyError, match="was not asked for"):
        found.at("4")


def test_rules_apply_inside_their_module_and_not_to_the_last_layer() -> None:
    model = net(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x, r = rand(2, 1, 8, 8), rand(2, 1, 8, 8, seed=1)
    gross = {}
    for rule in ("epsilon", "gamma", "zplus", "alpha_beta"):
        gross[rule] = float(check(model, x, r, 1, rule=rule).attribution.abs().sum())
    assert gross["zplus"] < gross["gamma"] < gross["epsilon"]
    epsilon = relevance(model, x, r, 1).attribution
    assert torch.equal(
        relevance(model, x, r, 1, rule=lambda name: "zplus" if name == "5" else None).attribution, epsilon
    )
    assert not torch.equal(relevance(model, x, r, 1, rule={"2": "zplus"}.get).attribution, epsilon)
    everywhere = relevance(model, x, r, 1, rule=lambda name: "gamma").attribution
    assert torch.equal(everywhere, relevance(model, x, r, 1, rule="gamma").attribution)


def test_flat_and_wsquare_are_written_to_the_map_of_the_input() -> None:
    model = net(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    x, r = rand(2, 1, 8, 8), rand(2, 1, 8, 8, seed=1)
    r[:, :, :3] = x[:, :, :3]  # nothing differs there
    for rule in (Spread(0), Spread(2)):
        found = check(model, x, r, 1, rule={"0": rule}.get)
        assert bool((found.attribution[:, :, 2] != 0).any())
        assert not bool(found.multipliers.any())
        torch.testing.assert_close(found.attribution.flatten(1).sum(1), found.difference[0])
    deep = net(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(RelevanceError, match=r"conv2d in module .2. has Spread.* use Gamma there"):
        relevance(deep, x, r, 1, rule={"2": Spread(0)}.get)


def test_what_a_stabilizer_absorbs_is_known() -> None:
    model = net(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, r = rand(2, 4), rand(2, 4, seed=1)
    rule = Stabilized(Gamma(0.5), lambda change: change + 0.3 * torch.sign(change))
    comparison = Comparison(model, [x], rule=lambda _name: rule)
    other = comparison.against([r])
    for seed in (torch.ones(2, 3, dtype=D), torch.eye(3, dtype=D)[[0, 1]]):  # the second call forgets the first
        pulled = comparison.pull(comparison.output, seed)
        change = (seed * (comparison.output.detach() - other.detach())).sum(1)
        assert len(pulled.absorbed) == 2
        kept = pulled.inputs[0].relevance.sum(1)
        assert float((kept - change).abs().min()) > 1e-3
        torch.testing.assert_close(kept + sum(one.sum(1) for one in pulled.absorbed), change)
    relevance(model, x, r, 1, rule=lambda _name: rule)  # the sum is right with what is absorbed


def test_seeds_and_multipliers() -> None:
    model = net(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x, r = rand(2, 4), rand(2, 4, seed=1)
    comparison = Comparison(model, [x])
    other = comparison.against([r])
    seed = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=D)
    entry = comparison.pull(comparison.output, seed).inputs[0]
    assert entry is not None
    expected = (seed * (comparison.output.detach() - other.detach())).sum(1)
    torch.testing.assert_close((entry.multiplier * (x - r)).sum(1), expected)
    assert torch.equal(entry.relevance, entry.multiplier * entry.difference)


def test_compiled_models_run_as_they_were_written() -> None:
    model = net(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    compiled = torch.compile(model, backend="eager")
    x, r = rand(2, 4), rand(2, 4, seed=1)
    compiled(x)
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        with pytest.raises(RelevanceError, match="_orig_mod"):
            relevance(compiled, x, r, 1)
        return
    assert torch.equal(check(compiled, x, r, 1).attribution, relevance(model, x, r, 1).attribution)


def test_parametrized_weights_checkpoints_and_backward_hooks() -> None:
    parametrizations = nn.utils.parametrizations
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh(), parametrizations.spectral_norm(nn.Linear(4, 2))
    )
    model.to(D).eval()
    x, r = rand(2, 4), rand(2, 4, seed=1)
    expected = check(model, x, r, 1).attribution
    saved = check(lambda value: checkpoint(model, value, use_reentrant=False), x, r, 1)
    assert torch.equal(saved.attribution, expected)
    model[1].register_full_backward_hook(lambda *_: None)
    assert torch.equal(check(model, x, r, 1).attribution, expected)
    assert len(model[1]._backward_hooks) == 1


def test_a_scripted_part_that_is_linear() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2)).to(D).eval()
    check(model, rand(2, 4), rand(2, 4, seed=1), 1)


# -- nothing is left behind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fails: bool) -> None:
    def forward(s: Call, x: Tensor) -> Tensor:
        if fails and bool(x.sum() < 0):
            raise KeyError("a model that fails")
        return s.b(s.a(x).relu_())

    model, x, r = Call(forward), rand(2, 4).abs(), -rand(2, 4, seed=1).abs()
    state, before = copy.deepcopy(model.state_dict()), (x.clone(), r.clone())
    random = torch.get_rng_state()
    with torch.no_grad():
        if fails:
            with pytest.raises(KeyError):
                relevance(model, x, r, 0, layers=["a"])
        else:
            relevance(model, x, r, 0, layers=["a"])
        assert not torch.is_grad_enabled()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(x, before[0])
    assert torch.equal(r, before[1])
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


def test_the_graph_is_freed_with_the_comparison() -> None:
    model = Call(lambda s, x: s.b(s.a(x).tanh().relu_()).max(1).values)
    comparison = Comparison(model, [rand(2, 4)])
    comparison.against([rand(2, 4, seed=1)])
    comparison.pull(comparison.output, torch.ones(2, dtype=D))
    records = [weakref.ref(record) for record in comparison._mode.records]
    del comparison
    gc.collect()
    assert len(records) == 5
    assert not any(record() for record in records)


def test_inference_mode_and_float32() -> None:
    model, x, r = net(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), rand(2, 4), rand(2, 4, seed=1)
    with torch.inference_mode():
        found = relevance(model, x.clone(), r.clone(), 0)
    assert torch.equal(found.attribution, relevance(model, x, r, 0).attribution)
    single = relevance(model.float(), x.float(), r.float(), 0)
    assert single.attribution.dtype == torch.float32
    assert float(single.conservation_error.max()) < 1e-5


def test_the_result_reads_well() -> None:
    found = relevance(net(nn.Linear(4, 1)), rand(2, 4), 0.0)
    assert repr(found).startswith("Relevance(u(x)=[")
    assert "1 reference(s)" in repr(found)
    assert found.to_dict()["output"] == found.output.tolist()


def test_a_class_of_maps_is_its_sum_over_the_image() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1)).double()
    x, r = torch.rand(2, 1, 6, 6).double(), torch.rand(2, 1, 6, 6).double()
    summed = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for one, output in (
        (2, 2),
        ([0, 3], [0, 3]),
        (torch.tensor([1, 2]), [1, 2]),
        (Logit(2), 2),
        (Others(1), Others(1)),
        (Margin(0, 2), Margin(0, 2)),
    ):
        expected = relevance(summed, x, r, output).attribution * 16
        assert torch.allclose(relevance(net, x, r, one).attribution, expected, atol=1e-12)
    pixel = relevance(net, x, r, (2, 1, 3)).output
    assert torch.allclose(pixel, net(x)[:, 2, 1, 3].detach())


def test_an_explained_output_that_is_not_finite_is_named() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (2 * x).masked_fill(torch.tensor([False, False, True]), -torch.inf)

    x, r = rand(2, 3), rand(2, 3)
    assert torch.equal(relevance(Masked(), x, r, 1).attribution[:, 1], 2 * (x - r)[:, 1])
    with pytest.raises(ValueError, match=r"the explained output of sample 0 is NaN or infinite \(-inf\)"):
        relevance(Masked(), x, r, 2)

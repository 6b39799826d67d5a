"""Stepwise EM: the identities it must obey, and a loop in raw moments that does the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Array, Mixture
from torch import Tensor
from torch.utils.data import DataLoader

import gmmedu
from gmmedu.models import GaussianMixture
from gmmedu.passes import Workspace, sums
from gmmedu.problem import Problem
from gmmedu.stepwise import Steps, Stepwise, fit_stepwise, moved, own, toward
from gmmedu.values import Points, Statistics, each

FAMILIES = list(gmmedu.MODELS)
NAMES = ("weights", "means", "covariances")


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(size: int = 300, num_dims: int = 2, family: str = "full") -> Tensor:
    return torch.tensor(reference.draw(reference.random_mixture(family, 3, num_dims, 1), size))


def _started(family: str, x: Tensor, k: int = 3, **kind: Any) -> GaussianMixture:
    model = gmmedu.MODELS[family](k, x.shape[1], **{"dtype": x.dtype, **kind})
    return gmmedu.initialize(model, x.to(model.means.dtype), "points", generator=_generator(2))


def _same(one: GaussianMixture, other: GaussianMixture, tolerance: float) -> None:
    for name in NAMES:
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance, msg=name
        )


def _mixture(model: GaussianMixture) -> Mixture:
    return Mixture(*(getattr(model, name).detach().numpy().copy() for name in NAMES))


# Identities


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_one_on_all_points_is_a_step_of_em(family: str) -> None:
    x = _points()
    whole, stream = _started(family, x), _started(family, x)
    for mitigation in (None, gmmedu.Prior()):
        gmmedu.fit_em(whole, x, 1, 0.0, mitigation=mitigation)
        fit_stepwise(stream, [x], step_size=1.0, average=None, mitigation=mitigation)
        _same(stream, whole, 1e-12)
        gmmedu.fit_em(whole, x, 4, 0.0, mitigation=mitigation)
        fit_stepwise(stream, [x], 4, step_size=1.0, average=None, mitigation=mitigation)
        _same(stream, whole, 1e-12)


def _held(model: GaussianMixture) -> GaussianMixture:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_one_over_n_at_held_parameters_are_the_statistics_of_all(family: str) -> None:
    x = _points(200)
    weights = torch.rand(200, generator=_generator(), dtype=torch.float64)
    problem = Problem(_held(_started(family, x)), [(x, weights)], mitigation=None)
    fit = Stepwise(problem, Steps(1.0, 0.0, None), 0.0)
    columns, shares = problem.units.columns(x, x.dtype), weights[None] * 200 / weights.sum()
    sizes = [3, 40, 7, 100, 50]
    for piece, share in zip(columns.split(sizes, 2), shares.split(sizes, 1), strict=True):
        fit.step(Points(piece, share))
    whole = Points(columns, shares)
    expected = sums(whole, problem.family, problem.start, Workspace())
    for part, all_of_it in zip(fit.statistics, expected, strict=True):
        torch.testing.assert_close(part, all_of_it / 200, rtol=1e-12, atol=1e-12)
    # Each point of a uniform average of means counts by when it came, so this one is another.
    assert not torch.allclose(fit.averaged.counts, fit.statistics.counts, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_m_step_of_a_states_own_statistics_is_the_state(family: str) -> None:
    x = _points()
    problem = Problem(_started(family, x), [(x,)], mitigation=None)
    fit = Stepwise(problem, Steps(0.6, 0.0, None), None)
    state = fit._maximized(own(problem.start, problem.family), 1.0)
    for part, before in zip(
        (*state[:2], *state[2]), (*problem.start[:2], *problem.start[2]), strict=True
    ):
        torch.testing.assert_close(part, before, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_move_to_another_state_as_if_counted_there(family: str) -> None:
    # Weights of 0 and 1 in place of responsibilities, so that both states count the same ones.
    x, here, there = _points(), _started(family, _points()), _started(family, _points() * 2 + 5)
    problem = Problem(here, [(x,)], mitigation=None)
    one = problem.start
    two = Problem(there, [(x,)], mitigation=None).start
    operator, offsets = problem.family.operator, problem.units.columns(x, x.dtype)[0, :-1].mT

    def counted(state: Any) -> Statistics:
        residuals = offsets.mT - state.means.unsqueeze(-1)
        whitened = operator.whiten(state.scales.whitening, residuals)
        r = torch.softmax(offsets @ torch.ones(2, 3).double().cumsum(1), 1).mT[None]
        weighted = whitened * r.unsqueeze(2)
        second = operator.second_moment(weighted, whitened)
        if problem.family.shared:
            second = second.sum(1, keepdim=True)
        return Statistics(torch.zeros(1).double(), r.sum(-1), weighted.sum(-1), second)

    found = moved(counted(one), one, two, problem.family)
    for part, expected in zip(found, counted(two), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-10)


def test_the_state_is_the_memory_so_a_fit_goes_on_where_another_ended() -> None:
    x = _points(4000)
    batches = list(x.split(50))
    once, twice = _started("full", x), _started("full", x)
    fit_stepwise(once, batches, average=None)
    half = fit_stepwise(twice, batches[:30], average=None)
    fit_stepwise(twice, batches[30:], offset=2.0 + half.num_steps, average=None)
    _same(twice, once, 1e-11)


# Against raw moments


def _raw(mixture: Mixture) -> list[Array]:
    weights, means, covariances = mixture
    second = covariances + means[:, :, None] * means[:, None]
    return [weights, weights[:, None] * means, weights[:, None, None] * second]


def _maximized(
    family: str, s: list[Array], given: Array, scatter: Array | None = None, points: float = 0.0
) -> Mixture:
    means = s[1] / s[0][:, None]
    about = s[2] - s[0][:, None, None] * means[:, :, None] * means[:, None]
    covariances = reference.pool(family, about, s[0], given, scatter, points)
    return Mixture(s[0] / s[0].sum(), means, covariances)


def _loop(
    family: str,
    start: Mixture,
    batches: list[tuple[Array, Array]],
    exponent: float,
    offset: float,
    power: float | None,
    prior: tuple[Array, float] | None = None,
) -> Mixture:
    """Cappé and Moulines (2009) for batches, in raw moments."""
    mixture, s = start, _raw(start)
    kept, mean_weight = [], 0.0
    for t, (x, weights) in enumerate(batches, 1):
        mean_weight += (weights.sum() - mean_weight) / t
        eta = min(1.0, weights.sum() / mean_weight * (t + offset) ** -exponent)
        r = reference.responsibilities(mixture, x) * weights[:, None] / weights.sum()
        new = [r.sum(0), r.T @ x, np.einsum("nk,ni,nj->kij", r, x, x)]
        s = [(1 - eta) * a + eta * b for a, b in zip(s, new, strict=True)]
        shared = (None, 0.0)
        if prior is not None:
            memory = weights.sum() / eta
            shared = (prior[0] / memory, prior[1] / memory)
        mixture = _maximized(family, s, start.covariances, *shared)
        kept.append(s)
    if power is None:
        return mixture
    shares = _power_weights(len(kept), power)
    averaged = [sum(w * s[i] for w, s in zip(shares, kept, strict=True)) for i in range(3)]
    return _maximized(family, averaged, start.covariances, *shared)


def _power_weights(size: int, power: float) -> Array:
    """What the recursion with shares (p + 1) / (t + p) comes to; t^p for p = 0 and 1."""
    shares = np.zeros(size)
    for t in range(1, size + 1):
        share = (power + 1) / (t + power)
        shares[: t - 1] *= 1 - share
        shares[t - 1] = share
    return shares


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("exponent", "offset", "power"), [(0.6, 2.0, 1.0), (0.9, 0.0, None), (1.0, 5.0, 0.0)]
)
def test_as_a_loop_in_raw_moments(
    family: str, exponent: float, offset: float, power: float | None
) -> None:
    x, model = _points(2000), _started(family, _points(2000))
    start = _mixture(model)
    weights = torch.rand(2000, generator=_generator(), dtype=torch.float64) + 0.1
    sizes = [200, 120, 240, 200, 40, 400, 400, 400]
    pairs = list(zip(x.split(sizes), weights.split(sizes), strict=True))
    fit_stepwise(
        model, iter(pairs), exponent=exponent, offset=offset, average=power, mitigation=None
    )
    batches = [(x.numpy(), w.numpy()) for x, w in pairs]
    expected = _loop(family, start, batches, exponent, offset, power)
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(getattr(model, name).detach(), value, 1e-9, 1e-9, err_msg=name)


@pytest.mark.parametrize("family", ["full", "tied", "diagonal", "isotropic"])
def test_a_prior_weighs_against_the_points_that_the_statistics_stand_for(family: str) -> None:
    x, model = _points(2000), _started(family, _points(2000))
    start = _mixture(model)
    batches = list(x.split(100))
    scale = reference.units_of(family, x[:1000].numpy())[1]
    prior = gmmedu.Prior(scatter=20.0, degrees=30.0)
    fit_stepwise(model, batches, mitigation=prior)
    added = (20.0 * np.diag(scale**2), 30.0 + 3)
    parts = [(b.numpy(), np.ones(len(b))) for b in batches]
    expected = _loop(family, start, parts, 0.6, 2.0, 1.0, added)
    np.testing.assert_allclose(model.covariances.detach(), expected.covariances, 1e-9, 1e-9)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_recursion_of_the_average_gives_weights_that_are_powers(power: float) -> None:
    shares = np.arange(1, 51.0) ** power
    np.testing.assert_allclose(_power_weights(50, power), shares / shares.sum(), rtol=1e-13)


# What it comes to


@pytest.mark.parametrize("family", FAMILIES)
def test_one_time_through_ends_near_the_optimum_of_all_points(family: str) -> None:
    mixture = reference.random_mixture(family, 3, 2, 4)
    x = torch.tensor(reference.draw(mixture._replace(means=2 * mixture.means), 40_000))
    means = 2 * torch.tensor(mixture.means) + 0.5
    model, best = (gmmedu.MODELS[family](3, 2, init_means=means, dtype=x.dtype) for _ in range(2))
    whole = gmmedu.fit_em(best, x, 500, 1e-10)
    fit_stepwise(model, iter(x.split(100)))
    # An estimate from so many other points would be off by half its free parameters over N.
    expected = best.num_free_parameters / (2 * len(x))
    assert float(model(x).detach()) - whole.nll < 3 * expected


TRUTH = (0.4, 0.0, 4.0, 1.0, 0.64)


def _fisher() -> Tensor:
    """The information of a point about weight, means and variances, by quadrature."""
    theta = torch.tensor(TRUTH, dtype=torch.float64)
    grid = torch.linspace(-9, 11, 4001, dtype=torch.float64)

    def log_density(theta: Tensor) -> Tensor:
        weight, means, variances = theta[0], theta[1:3], theta[3:]
        log_weights = torch.stack([weight, 1 - weight]).log()
        square = (grid[:, None] - means) ** 2 / variances
        joint = log_weights - 0.5 * (square + (2 * math.pi * variances).log())
        return joint.logsumexp(1)

    scores = torch.autograd.functional.jacobian(log_density, theta)
    density = log_density(theta).exp() * (grid[1] - grid[0])
    return (scores * density[:, None]).mT @ scores


def _estimates(power: float | None, num_streams: int, num_steps: int, size: int) -> Tensor:
    """Weight, means and variances after as many streams, all side by side, (M, 5)."""
    numbers = torch.tensor(TRUTH, dtype=torch.float64)
    pair = torch.stack([numbers[0], 1 - numbers[0]])
    model = gmmedu.GmmFull(2, 1, batch_shape=num_streams, dtype=torch.float64)
    model.set_parameters(
        pair.expand(num_streams, 2).clone(),
        numbers[1:3, None].expand(num_streams, 2, 1).clone(),
        numbers[3:, None, None].expand(num_streams, 2, 1, 1).clone(),
    )
    generator = _generator(5)
    problem = Problem(model, [(model[0].sample(2000, generator=generator),)], mitigation=None)
    fit = Stepwise(problem, Steps(0.6, 0.0, None), power)
    for _ in range(num_steps):
        x = model[0].sample((num_streams, size), generator=generator)
        fit.step(Points.from_columns(problem.units.columns(x, x.dtype), None))
    state = problem.units.restore(fit.result(), problem.family)
    weights, means = state.log_weights.exp()[:, :1], state.means[..., 0]
    return torch.cat([weights, means, state.scales.factor[..., 0, 0] ** 2], 1)


@pytest.mark.slow
def test_the_variance_of_the_average_is_that_of_the_inverse_information() -> None:
    num_streams, num_steps, size = 400, 500, 50
    least = torch.linalg.inv(_fisher()).diagonal() / (num_steps * size)
    uniform, linear, last = (
        (_estimates(power, num_streams, num_steps, size).var(0) / least).mean()
        for power in (0.0, 1.0, None)
    )
    # A mean of five ratios, each known from 400 streams within 7 percent; weights of t cost a
    # third, (p + 1)^2 / (2 p + 1); the last step stands for few points.
    assert 0.9 < float(uniform) < 1.2
    assert 1.1 < float(linear) < 1.5
    assert float(last) > 4


def test_a_constant_step_follows_points_that_drift() -> None:
    generator = _generator()
    shift = torch.linspace(0, 10, 400, dtype=torch.float64)
    noise = torch.randn(400, 50, 1, generator=generator, dtype=torch.float64)
    batches = list(noise + shift[:, None, None])
    followed = gmmedu.GmmFull(1, 1, dtype=torch.float64)
    lagged = gmmedu.GmmFull(1, 1, dtype=torch.float64)
    fit_stepwise(followed, batches, step_size=0.2, average=None)
    fit_stepwise(lagged, batches)
    # At a speed of 0.025 a batch a step of 0.2 lags by (1 - 0.2) / 0.2 batches.
    assert float(followed.means.detach()) == pytest.approx(10 - 4 * 10 / 399, abs=0.15)
    assert float(lagged.means.detach()) < 8


# Weights, missing values, batches of models, parts that are held


def test_weights_are_counts_of_any_unit() -> None:
    x = _points(1200)
    weights = torch.randint(0, 3, (1200,), generator=_generator()).double()
    batches = [(part, share) for part, share in zip(x.split(100), weights.split(100), strict=True)]
    repeated = [part.repeat_interleave(share.long(), 0) for part, share in batches]
    models = [_started("full", x) for _ in range(3)]
    fits = [
        fit_stepwise(models[0], repeated, mitigation=None),
        fit_stepwise(models[1], batches, mitigation=None),
        fit_stepwise(models[2], [(part, 1e-5 * share) for part, share in batches], mitigation=None),
    ]
    for model, fit in zip(models[1:], fits[1:], strict=True):
        _same(model, models[0], 1e-10)
        torch.testing.assert_close(fit.history, fits[0].history, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_values_count_as_in_em(family: str) -> None:
    x = _points(300, 3)
    hidden = torch.rand(x.shape, generator=_generator()) < 0.2
    hidden[:, 0] &= ~hidden[:, 1]
    x = x.masked_fill(hidden, torch.nan)
    whole, stream = (gmmedu.MODELS[family](2, 3, dtype=x.dtype) for _ in range(2))
    for model in (whole, stream):
        gmmedu.initialize(model, x, "points", missing=True, generator=_generator())
    one = gmmedu.fit_em(whole, x, 3, 0.0, missing=True)
    two = fit_stepwise(stream, [x], 3, step_size=1.0, average=None, missing=True)
    _same(stream, whole, 1e-11)
    torch.testing.assert_close(two.history, one.history[:-1], rtol=0, atol=1e-11)


def test_a_batch_of_models_is_each_of_them() -> None:
    x = _points(2000)
    many = _started("tied", x, batch_shape=(2, 2))
    alone = [many[i, j] for i in range(2) for j in range(2)]
    fit = fit_stepwise(many, x.split(100))
    assert fit.history.shape == (20, 2, 2) and fit.on_floor.shape == (2, 2)
    for place, model in enumerate(alone):
        single = fit_stepwise(model, x.split(100))
        _same(model, many[place // 2, place % 2], 1e-12)
        torch.testing.assert_close(single.history, fit.history.flatten(1)[:, place])


@pytest.mark.parametrize("part", ["logits", "means", "raw_scale"])
def test_what_is_held_stays(part: str) -> None:
    x, model = _points(2000), _started("full", _points(2000))
    getattr(model, part).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_stepwise(model, x.split(100))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name == part), name


@pytest.mark.slow
def test_float32_keeps_its_digits_over_many_steps() -> None:
    x = _points(20_000)
    wide, narrow = _started("full", x[:1000]), _started("full", x[:1000], dtype=torch.float32)
    fit_stepwise(wide, x.split(10))
    fit_stepwise(narrow, (x.float()).split(10))
    for name in NAMES:
        torch.testing.assert_close(
            getattr(narrow, name).double(), getattr(wide, name), rtol=2e-4, atol=2e-4
        )


def test_units_do_not_matter() -> None:
    x = _points(3000)
    scale, shift = torch.tensor([1e6, 1e-6]).double(), torch.tensor([1e8, -1.0]).double()
    here, there = _started("full", x), _started("full", x)
    with torch.no_grad():
        there.set_parameters(
            means=here.means * scale + shift,
            covariances=here.covariances * scale[:, None] * scale,
        )
    fit_stepwise(here, x.split(100))
    fit_stepwise(there, (x * scale + shift).split(100))
    means = (there.means - shift) / scale
    torch.testing.assert_close(means, here.means, rtol=1e-6, atol=1e-6)


# The record


def test_history_is_the_loss_of_points_not_yet_learned_from() -> None:
    x = _points(2000)
    batches, model = list(x.split(100)), _started("diagonal", x)
    expected = [float(model(batches[0]).detach())]
    seen = []

    def look(model: GaussianMixture, step: int, nll: float) -> None:
        seen.append((step, nll))
        if step < len(batches):
            expected.append(float(model(batches[step]).detach()))

    fit = fit_stepwise(model, iter(batches), average=None, callback=look)
    np.testing.assert_allclose(fit.history, expected, rtol=1e-10)
    assert seen == list(enumerate(fit.history.tolist(), 1))
    assert fit.num_steps == 20 and fit.num_points == 2000 and len(fit.elapsed) == 20
    assert "20 steps, 2000 points" in repr(fit)


def test_a_callback_stops_the_fit_where_the_model_is() -> None:
    x = _points(2000)
    model, short = _started("full", x), _started("full", x)
    fit = fit_stepwise(model, x.split(100), callback=lambda model, step, nll: step == 12)
    fit_stepwise(short, x.split(100)[:12])
    assert fit.num_steps == 12
    _same(model, short, 1e-13)


def test_a_generator_is_read_once_a_batch_at_a_time() -> None:
    x = _points(5000)
    alive: list[int] = []

    def stream() -> Iterator[Tensor]:
        for part in x.split(250):
            alive.append(len(alive))
            yield part

    model, steps = _started("full", x), []

    def note(model: GaussianMixture, step: int, nll: float) -> None:
        steps.append((step, len(alive)))

    fit_stepwise(model, stream(), callback=note)
    # The first thousand points wait for their units; then each batch is learned as it comes.
    assert steps == [(step, max(step, 4)) for step in range(1, 21)]


def test_epochs_read_again() -> None:
    x = _points(2000)
    one, two = _started("full", x), _started("full", x)
    fit = fit_stepwise(one, DataLoader(x, batch_size=100), 3)  # type: ignore[arg-type]
    fit_stepwise(two, list(chain.from_iterable([x.split(100)] * 3)))
    assert fit.num_steps == 60
    _same(one, two, 1e-13)


# Singularities


def _collapsing() -> tuple[GaussianMixture, list[Tensor]]:
    """A component on a point that is there a thousand times, and the others elsewhere."""
    x = _points(1000)
    spot = torch.full((1000, 2), 30.0, dtype=torch.float64)
    x = torch.cat([x, spot])[torch.randperm(2000, generator=_generator())]
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    model.set_parameters(
        means=torch.tensor([[0.0, 0.0], [30.0, 30.0]]).double(),
        covariances=torch.eye(2).double().expand(2, 2, 2).clone(),
    )
    return model, list(x.split(50)) * 4


def test_without_mitigation_a_collapse_is_an_error_and_the_last_good_step_stays() -> None:
    model, batches = _collapsing()
    seen = []

    def note(model: GaussianMixture, step: int, nll: float) -> None:
        seen.append([getattr(model, name).detach().clone() for name in NAMES])

    with pytest.raises(gmmedu.SingularityError, match="component 1 became singular") as caught:
        fit_stepwise(model, batches, mitigation=None, step_size=0.9, callback=note)
    assert caught.value.iteration == len(seen) + 1
    for name, value in zip(NAMES, seen[-1], strict=True):
        assert torch.equal(getattr(model, name).detach(), value)


def test_a_clamp_holds_and_says_so() -> None:
    model, batches = _collapsing()
    with pytest.warns(gmmedu.SingularityWarning, match="on the floor"):
        fit = fit_stepwise(model, batches, step_size=0.5, average=None)
    assert fit.on_floor
    assert [(e.component, e.action) for e in fit.events] == [(1, "clamped")]
    # Units are those of the first thousand points.
    assert gmmedu.find_singular(model, torch.cat(batches[:20]), 0.999e-3) == []
    assert gmmedu.find_singular(model, torch.cat(batches[:20]), 1.001e-3) == [1]


def test_a_reset_component_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned of the old one: statistics are those of the new state, and age begins."""
    model, batches = _collapsing()
    restarted, seen = Stepwise._restarted, []

    def watched(fit: Stepwise, events: Any, *given: Any) -> Any:
        statistics, age = restarted(fit, events, *given)
        if events:
            expected = own(given[1], fit.problem.family)
            seen.append((events[0].action, statistics, expected, age.clone()))
        return statistics, age

    monkeypatch.setattr(Stepwise, "_restarted", watched)
    reset = gmmedu.Reset(max_resets=1)
    fit = fit_stepwise(model, batches, step_size=0.5, mitigation=reset, generator=_generator(4))
    assert fit.events[0].action == "reset" and fit.events[0].component == 1
    assert math.isfinite(float(model(torch.cat(batches)).detach()))
    action, statistics, expected, age = seen[0]
    assert action == "reset" and bool((age == 0).all())
    each(torch.testing.assert_close, statistics, expected)


@dataclass(frozen=True)
class Renamed(gmmedu.Reset):
    """A mitigation of one's own, that does what ``Reset`` does."""

    def mitigate(self, *arguments: Any) -> tuple[Any, str]:
        state, action = super().mitigate(*arguments)
        return state, "moved" if action == "reset" else action


def test_after_a_mitigation_of_one_s_own_a_component_forgets_too() -> None:
    ends = []
    for kind, action in ((gmmedu.Reset, "reset"), (Renamed, "moved")):
        model, batches = _collapsing()
        mitigation = kind(max_resets=1)
        fit = fit_stepwise(
            model, batches, step_size=0.5, mitigation=mitigation, generator=_generator(4)
        )
        assert fit.events[0].action == action
        ends.append(model)
    assert all(map(torch.equal, *(model.parameters() for model in ends)))


# Bad input, and streams that break


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"exponent": 0.5}, ValueError, "exponent must be above 0.5 and at most 1, got 0.5"),
        ({"exponent": 1.1}, ValueError, "exponent"),
        ({"exponent": "a"}, TypeError, "exponent must be a number"),
        ({"offset": -1.0}, ValueError, "offset must be finite and at least 0"),
        ({"step_size": 0.0}, ValueError, "step_size"),
        ({"step_size": 2.0}, ValueError, "step_size must be at most 1, got 2"),
        ({"average": -1.0}, ValueError, "average"),
        ({"average": True}, TypeError, "average must be a number"),
        ({"num_epochs": 0}, ValueError, "num_epochs"),
        ({"callback": 3}, TypeError, "callback must be callable"),
        ({"mitigation": "clamp"}, TypeError, "mitigation must be"),
        ({"missing": 1}, TypeError, "missing must be True or False"),
        ({"generator": 1}, TypeError, "generator"),
        ({"x": _points()}, TypeError, "x.split(256)"),
        ({"x": 3}, TypeError, "x must give batches of points, got a int"),
        ({"x": iter([_points()]), "num_epochs": 2}, TypeError, "can be read again"),
        ({"x": []}, ValueError, "x holds no points"),
        ({"x": [_points()[:2]]}, ValueError, "x has 2 points and at least 3 are needed"),
        ({"x": [_points(num_dims=3)]}, ValueError, "num_dims=2"),
        ({"x": [_points().masked_fill(_points() > 0, torch.nan)]}, ValueError, "finite"),
        ({"x": [_points().numpy()]}, TypeError, "torch.as_tensor"),
        ({"x": [(_points(), -torch.ones(300))]}, ValueError, "must not be negative"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    model = _started("full", _points())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error) as caught:
        fit_stepwise(model, **{"x": [_points()], **options})
    assert type(caught.value) is error and said in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("trouble", ["nan", "gone"])
def test_a_stream_that_breaks_leaves_what_was_learned(trouble: str) -> None:
    x = _points(4000)

    def stream() -> Iterator[Tensor]:
        yield from x.split(100)[:30]
        if trouble == "gone":
            raise OSError("the line is dead")
        yield torch.full((100, 2), torch.nan, dtype=torch.float64)

    model, known = _started("full", x), _started("full", x)
    with pytest.raises((OSError, ValueError), match="the line is dead|a batch of x must be finite"):
        fit_stepwise(model, stream())
    fit_stepwise(known, x.split(100)[:30])
    _same(model, known, 1e-13)


def test_points_out_of_range_are_an_error_that_names_the_mixture() -> None:
    x = _points(1000, 2).float()
    model, known = _started("full", x), _started("full", x)
    far = torch.full((100, 2), 1e30)
    with pytest.raises(gmmedu.SingularityError, match="no longer finite at iteration 10"):
        fit_stepwise(model, [*x.split(100), far])
    fit_stepwise(known, x.split(100))
    _same(model, known, 1e-6)


def test_toward_is_exact_at_both_ends() -> None:
    problem = Problem(_started("full", _points()), [(_points(),)], mitigation=None)
    one = own(problem.start, problem.family)
    other = each(lambda part: part * torch.pi, one)
    for share, expected in ((0.0, one), (1.0, other)):
        for part, value in zip(toward(one, other, share), expected, strict=True):
            assert torch.equal(part, value)


@pytest.mark.parametrize("place", ["moved", "toward", "_maximized"])
def test_who_interrupts_a_step_finds_the_one_before(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(0))
    problem = Problem(model, [(x,)], mitigation=None)
    learning = Stepwise(problem, Steps.of(0.6, 2.0, None), 1.0)
    points = Points(problem.units.columns(x, x.dtype))
    learning.step(points)
    before = dict(vars(learning))

    def stop(*given: Any) -> Any:
        raise KeyboardInterrupt

    owner: Any = Stepwise if place == "_maximized" else "gmmedu.stepwise"
    if owner is Stepwise:
        monkeypatch.setattr(Stepwise, place, stop)
    else:
        monkeypatch.setattr(f"{owner}.{place}", stop)
    with pytest.raises(KeyboardInterrupt):
        learning.step(points)
    assert all(vars(learning)[name] is value for name, value in before.items())


def test_a_callback_of_a_batch_may_use_the_nll_as_it_likes() -> None:
    many = gmmedu.GmmFull(2, 2, batch_shape=3, init_radius=1.0)
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    kept: list[Tensor] = []
    fit_stepwise(many, x.split(20), callback=lambda m, step, nll: kept.append(nll.mul_(2)))
    assert len(kept) == 5 and not any(nll.is_inference() for nll in kept)

"""SQUAREM: the same optimum as EM's, never uphill, in fewer passes over the data."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gmmedu
from engine.told import Told
from gmmedu.em import Squarem, ascend, leap
from gmmedu.problem import Problem
from gmmedu.values import State, Statistics

GENERATOR = torch.Generator().manual_seed(3)
OVERLAPPING = torch.randn(600, 2, generator=GENERATOR, dtype=torch.float64)
OVERLAPPING[:300, 0] += 2.0


def _started(family: str) -> gmmedu.GaussianMixture:
    model = gmmedu.MODELS[family](2, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    return gmmedu.initialize(model, OVERLAPPING, "points", generator=generator)


def _fit(family: str, x: Tensor = OVERLAPPING, **options: object) -> gmmedu.FitResult:
    settings = {"num_iterations": 20_000, "tolerance": 1e-13} | options
    return gmmedu.fit_em(_started(family), x, **settings)  # type: ignore[arg-type]


@functools.cache
def _to_the_end(family: str, accelerate: str | None) -> gmmedu.FitResult:
    return _fit(family, accelerate=accelerate)


@pytest.mark.parametrize("family", gmmedu.MODELS)
def test_the_optimum_is_that_of_em_in_fewer_passes(family: str) -> None:
    plain, fast = _to_the_end(family, None), _to_the_end(family, "squarem")
    assert plain.converged and fast.converged
    assert fast.passes < 0.7 * plain.passes, (fast.passes, plain.passes)
    assert fast.nll == pytest.approx(plain.nll, abs=1e-8)


# A bound that binds is meant to, and the fit says that it ends there.
@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
@pytest.mark.parametrize("mitigation", [None, gmmedu.Clamp(0.3), gmmedu.Reset(0.1), gmmedu.Prior()])
@pytest.mark.parametrize("family", gmmedu.MODELS)
def test_what_is_minimized_never_rises(family: str, mitigation: object) -> None:
    rule = Told(0.0)
    options: dict[str, Any] = {"num_iterations": 300, "tolerance": rule}
    options["mitigation"] = mitigation
    fit = _fit(family, accelerate="squarem", **options)
    assert len(rule.told) == 301 and max(np.diff(rule.told)) <= 1e-12
    assert isinstance(mitigation, gmmedu.Prior) or fit.history.tolist() == rule.told


def test_weights_count_as_copies() -> None:
    copies = torch.arange(len(OVERLAPPING)) % 3 + 1
    weighted = _fit("full", accelerate="squarem", sample_weight=copies.double())
    repeated = _fit("full", OVERLAPPING.repeat_interleave(copies, 0), accelerate="squarem")
    assert weighted.nll == pytest.approx(repeated.nll, abs=1e-8)


# A leap


def test_a_geometric_path_is_followed_to_its_end_at_once() -> None:
    """Each row of a batch at its own rate."""
    rates = torch.tensor([0.9, 0.5], dtype=torch.float64)
    end = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, 7.0]], dtype=torch.float64)
    away = torch.tensor([[0.1, 4.0, -1.0], [2.0, 2.0, -0.3]], dtype=torch.float64)
    path = [end + (rates**i).unsqueeze(-1) * away for i in range(3)]
    here, there, beyond = path
    ahead, length = leap(here, there, beyond, torch.full((2,), 100.0, dtype=torch.float64))
    assert length.tolist() == pytest.approx([10.0, 2.0])
    torch.testing.assert_close(ahead, end, rtol=0, atol=1e-10)
    _, length = leap(here, there, beyond, torch.tensor([4.0, 1.5], dtype=torch.float64))
    assert length.tolist() == [4.0, 1.5]


def test_where_em_stands_still_there_is_no_leap() -> None:
    still = torch.ones(1, 3, dtype=torch.float64)
    ahead, length = leap(still, still, still, longest=torch.ones(1, dtype=torch.float64))
    assert bool(ahead.isnan().all()) and math.isnan(float(length))


def _searching(mitigation: gmmedu.Clamp | None = None) -> tuple[Squarem, list[State]]:
    """SQUAREM where EM creeps, and the states that plain EM would have after 0, 1, ... steps."""
    model = _started("full")
    gmmedu.fit_em(model, OVERLAPPING, 100, tolerance=0, mitigation=mitigation)
    problem = Problem(model, OVERLAPPING, mitigation=mitigation)
    squarem = Squarem(problem, 100)
    states = [problem.start]
    for iteration in range(5):
        counted = problem.e_step(states[-1])
        states.append(ascend(squarem.problem, states[-1], counted, iteration)[0])
    return squarem, states


def _step(squarem: Squarem, state: State) -> State:
    statistics: Statistics = squarem.problem.e_step(state)
    return squarem.step(state, statistics, 0)[0]


def test_each_pair_of_steps_is_used_once() -> None:
    squarem, states = _searching()
    first = _step(squarem, states[0])
    torch.testing.assert_close(first.means, states[1].means)
    second = _step(squarem, first)
    moved = (second.means - states[2].means).abs().max()
    assert float(moved) > 1e-3, "after the second step there is a leap"
    third = _step(squarem, second)
    expected = ascend(squarem.problem, second, squarem.problem.e_step(second), 2)[0]
    torch.testing.assert_close(third.means, expected.means)


@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
def test_a_path_that_a_mitigation_broke_is_not_extrapolated() -> None:
    squarem, states = _searching(gmmedu.Clamp(0.95))
    state = states[0]
    for i in range(1, 5):
        state = _step(squarem, state)
        torch.testing.assert_close(state.means, states[i].means)
    assert squarem.problem.events[0].action == "clamped"


def test_trust_grows_and_shrinks() -> None:
    squarem, states = _searching()
    here, following, worse, better = states[1], states[2], states[0], states[5]
    problem = squarem.problem
    objective = problem.nll(problem.e_step(here)) + problem.penalty(here)

    def tried(ahead: State, length: float) -> Tensor:
        ready, lengths = torch.tensor([True]), torch.tensor([length], dtype=torch.float64)
        return squarem._try(objective, following, ahead, ready, lengths)[0].means

    assert torch.equal(tried(better, 4.0), better.means) and float(squarem.longest) == 16.0
    assert torch.equal(tried(better, 6.0), better.means) and float(squarem.longest) == 16.0
    assert torch.equal(tried(worse, 6.0), following.means) and float(squarem.longest) == 3.0
    assert torch.equal(tried(worse, 2.0), following.means) and float(squarem.longest) == 1.5


def test_an_unknown_acceleration_is_refused() -> None:
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match='accelerate must be None or "squarem"'):
        gmmedu.fit_em(model, OVERLAPPING, accelerate="fast")  # type: ignore[arg-type]


def test_passes_are_counted_at_each_iteration() -> None:
    plain, fast = _to_the_end("full", None), _to_the_end("full", "squarem")
    assert plain.passes_after.tolist() == list(range(1, plain.num_iterations + 2))
    # A leap that was refused costs a pass, and nothing else does.
    assert set(fast.passes_after.diff().tolist()) == {1, 2}
    for fit in (plain, fast):
        assert fit.passes_after[-1] == fit.passes
    batch = gmmedu.GmmFull(2, 2, batch_shape=(3,), dtype=torch.float64)
    gmmedu.initialize(batch, OVERLAPPING, generator=torch.Generator().manual_seed(0))
    fit = gmmedu.fit_em(batch, OVERLAPPING, 20_000)
    assert fit.passes_after.shape == fit.history.shape
    assert torch.equal(fit.passes_after[-1], fit.passes)

"""When a fit stops: each rule by its own words, on sequences whose limit is known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import gmmedu
from gmmedu.stopping import Absolute, Aitken, Relative, Stopping

RULES = [kind for kind in Stopping.__subclasses__() if kind.__module__ == "gmmedu.stopping"]


def _stops_at(rule: Stopping, objectives: list[float]) -> int | None:
    """The first index at which the rule is met."""
    met = (i for i in range(len(objectives)) if rule.met(objectives[i], objectives[:i]))
    return next(met, None)


def _geometric(rate: float, limit: float = 3.0, length: int = 2_000) -> list[float]:
    return [limit + rate**i for i in range(length)]


def test_absolute_stops_at_a_small_step_however_much_is_left() -> None:
    stop = _stops_at(Absolute(1e-6), _geometric(0.99))
    assert stop == math.ceil(math.log(1e-6 / (1 / 0.99 - 1)) / math.log(0.99))
    assert 0.99**stop > 9e-5, "ninety times the tolerance is left"


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.99])
def test_aitken_stops_when_less_than_the_tolerance_is_left(rate: float) -> None:
    stop = _stops_at(Aitken(1e-6), _geometric(rate))
    assert stop is not None
    assert rate**stop < 1e-6 * 1.001
    assert stop <= 2 or rate ** (stop - 1) >= 1e-6 * 0.999


def test_relative_is_absolute_in_shares() -> None:
    objectives = _geometric(0.5)
    assert _stops_at(Relative(1e-6), objectives) == _stops_at(Absolute(3e-6), objectives)
    assert _stops_at(Relative(1e-6), _geometric(0.5, limit=0.0, length=900)) is None


@pytest.mark.parametrize("rule", RULES)
def test_a_tolerance_of_zero_never_stops(rule: type[Stopping]) -> None:
    assert _stops_at(rule(0.0), [5.0, 4.0, 3.5, 3.25, 3.25, 3.25, 3.25]) is None


@pytest.mark.parametrize("rule", RULES)
def test_a_standstill_is_an_end(rule: type[Stopping]) -> None:
    assert _stops_at(rule(1e-9), [5.0, 4.0, 3.0, 3.0, 3.0]) == 3


def test_steps_that_grow_do_not_stop_aitken() -> None:
    assert _stops_at(Aitken(10.0), [0.0, -1e-3, -3e-3, -9e-3, -27e-3]) is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf, "1e-3", None])
def test_a_bad_tolerance_is_refused(rule: type[Stopping], tolerance: float) -> None:
    with pytest.raises((TypeError, ValueError), match="tolerance"):
        rule(tolerance)


@pytest.mark.parametrize("fitter", [gmmedu.fit_em, gmmedu.fit_model])
@pytest.mark.parametrize("rule", RULES)
def test_both_fitters_take_every_rule(rule: type[Stopping], fitter: object) -> None:
    x = gmmedu.load_old_faithful()
    model = gmmedu.GmmFull(2, 2, dtype=x.dtype)
    gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(0))
    fit = fitter(model, x, 3_000, tolerance=rule(1e-6))  # type: ignore[operator]
    assert fit.converged and fit.num_iterations < 3_000
    assert rule(1e-6).met(float(fit.history[-1]), fit.history[:-1].tolist())
    assert not rule(1e-6).met(float(fit.history[-2]), fit.history[:-2].tolist())


def test_aitken_gets_closer_than_absolute_where_em_is_slow() -> None:
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left = {}
    for rule in (Absolute(1e-7), Aitken(1e-7), Absolute(1e-14)):
        model = gmmedu.GmmIsotropic(2, 2, dtype=x.dtype)
        gmmedu.initialize(model, x, "points", generator=torch.Generator().manual_seed(1))
        left[rule] = gmmedu.fit_em(model, x, 50_000, rule).nll
    end = left[Absolute(1e-14)]
    assert left[Aitken(1e-7)] - end < left[Absolute(1e-7)] - end


def test_a_rule_may_answer_with_one_bool_for_all() -> None:
    class Patience(Stopping):
        def met(self, objective: Any, earlier: Sequence[Any]) -> Any:
            return len(earlier) == 4 and abs(float((earlier[0] - objective).max())) < self.tolerance

    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for num_iterations, converged in ((3, False), (500, True)):
        model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
        gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = gmmedu.fit_em(model, x, num_iterations, Patience(1e-6))
        assert found.converged is converged

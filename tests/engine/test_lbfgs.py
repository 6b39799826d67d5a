"""L-BFGS: down at every iteration, to a point where the gradient is zero."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gmmedu
from engine.told import Told

FAMILIES = list(gmmedu.MODELS)
MITIGATIONS = [None, gmmedu.Clamp(), gmmedu.Reset(), gmmedu.Prior()]


def _overlapping(dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:200, 0] += 2.5
    return x.to(dtype)


def _started(family: str, x: Tensor, num_components: int = 2) -> gmmedu.GaussianMixture:
    model = gmmedu.MODELS[family](num_components, x.shape[1], dtype=x.dtype)
    return gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_after_em_it_ends_where_the_gradient_is_zero(family: str) -> None:
    x = _overlapping()
    model = _started(family, x)
    em = gmmedu.fit_em(model, x, 30, tolerance=0)
    fit = gmmedu.fit_lbfgs(model, x, 500, 1e-14)
    assert fit.converged and fit.nll < em.nll
    leaves = [p for p in model.parameters() if p.requires_grad]
    for gradient in torch.autograd.grad(model(x), leaves):
        assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_it_finds_the_optimum_of_em_in_fewer_passes(family: str) -> None:
    x = _overlapping()
    by_em, by_search = _started(family, x), _started(family, x)
    for model in (by_em, by_search):
        gmmedu.fit_em(model, x, 20, tolerance=0)
    em = gmmedu.fit_em(by_em, x, 50_000, 1e-14)
    fit = gmmedu.fit_lbfgs(by_search, x, 500, 1e-14)
    assert fit.nll == pytest.approx(em.nll, abs=1e-9)
    assert fit.passes < em.num_iterations / 2


@pytest.mark.parametrize("mitigation", MITIGATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_minimized_never_rises(family: str, mitigation: object) -> None:
    x, rule = _overlapping(), Told(0.0)
    fit = gmmedu.fit_lbfgs(_started(family, x, 3), x, 60, rule, mitigation=mitigation)  # type: ignore[arg-type]
    assert len(fit.history) == len(rule.told) == 61
    assert max(np.diff(rule.told)) <= 1e-12 and fit.objective == pytest.approx(
        min(rule.told), abs=1e-12
    )
    assert isinstance(mitigation, gmmedu.Prior) or fit.history.tolist() == rule.told


@pytest.mark.parametrize("family", FAMILIES)
def test_under_a_prior_it_finds_what_em_maximizes(family: str) -> None:
    x, ends = _overlapping(), []
    model = _started(family, x)
    gmmedu.fit_em(model, x, 20, 0.0, mitigation=gmmedu.Prior())
    for fit, count in ((gmmedu.fit_em, 20_000), (gmmedu.fit_lbfgs, 500)):
        one = copy.deepcopy(model)
        ends.append(fit(one, x, count, 1e-14, mitigation=gmmedu.Prior()).objective)
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


# The floor is where the collapse ends, and the fit says so.
@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mitigation", [m for m in MITIGATIONS if m is not None])
def test_it_survives_a_collapse(mitigation: gmmedu.Clamp, dtype: torch.dtype) -> None:
    x = _overlapping(dtype)
    x[:40] = x[0]
    model = _started("full", x, 6)
    fit = gmmedu.fit_lbfgs(model, x, 100, tolerance=0, mitigation=mitigation)
    assert torch.isfinite(fit.history).all()
    assert fit.events or fit.on_floor or isinstance(mitigation, gmmedu.Prior)
    assert not gmmedu.find_singular(model, x, 9e-4)


def test_without_mitigation_a_collapse_is_reported_and_the_model_kept() -> None:
    x = _overlapping()
    x[:40] = x[0]
    model = _started("isotropic", x, 3)
    with torch.no_grad():
        model.means[0] = x[0]
        model.raw_scale[0] = -4.0
    with pytest.raises(gmmedu.SingularityError, match="component 0"):
        gmmedu.fit_lbfgs(model, x, 200, 0.0, mitigation=None)
    assert torch.isfinite(model(x))


def test_a_wild_start_does_not_leave_the_range_of_numbers() -> None:
    x = _overlapping(torch.float32)
    generator = torch.Generator().manual_seed(0)
    model = gmmedu.GmmFull(3, 2, init_radius=1e4, dtype=torch.float32, generator=generator)
    fit = gmmedu.fit_lbfgs(model, x, 100, tolerance=0)
    assert torch.isfinite(fit.history).all() and fit.nll < fit.history[0]


def test_missing_values_and_weights_are_for_it_too() -> None:
    x = _overlapping()
    x[::5, 1] = torch.nan
    weights = torch.arange(len(x)).double() % 3
    by_em, by_search = _started("full", _overlapping()), _started("full", _overlapping())
    both: Any = {"missing": True, "sample_weight": weights}
    em = gmmedu.fit_em(by_em, x, 20_000, 1e-14, accelerate="squarem", **both)
    fit = gmmedu.fit_lbfgs(by_search, x, 500, 1e-14, **both)
    assert fit.nll == pytest.approx(em.nll, abs=1e-9)

"""SQUAREM: the same optimum as EM's, never uphill, in fewer passes over the data."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import gmmedu
from gmmedu import em
from gmmedu.acceleration import Squarem
from gmmedu.mixture import State

GENERATOR = torch.Generator().manual_seed(3)
OVERLAPPING = torch.randn(600, 2, generator=GENERATOR, dtype=torch.float64)
OVERLAPPING[:300, 0] += 2.0


def _fit(family: str, x: Tensor = OVERLAPPING, **options: object) -> tuple[gmmedu.FitResult, int]:
    """The fit, and how many passes over the data it took."""
    model = gmmedu.FAMILIES[family](2, x.shape[1], dtype=torch.float64)
    gmmedu.initialize(model, OVERLAPPING, "points", generator=torch.Generator().manual_seed(0))
    with patch.object(em, "collect", wraps=em.collect) as passes:
        fit = gmmedu.fit_em(model, x, **{"num_iterations": 20_000, "tolerance": 1e-13} | options)  # type: ignore[arg-type]
    return fit, passes.call_count


@pytest.mark.parametrize("family", gmmedu.FAMILIES)
def test_the_optimum_is_that_of_em_in_fewer_passes(family: str) -> None:
    plain, many = _fit(family)
    fast, few = _fit(family, accelerate="squarem")
    assert plain.converged and fast.converged
    assert few < 0.7 * many, (few, many)
    assert fast.nll == pytest.approx(plain.nll, abs=1e-8)


@pytest.mark.parametrize("mitigation", [None, gmmedu.Clamp(0.3), gmmedu.Reset(0.1), gmmedu.Prior()])
@pytest.mark.parametrize("family", gmmedu.FAMILIES)
def test_what_is_minimized_never_rises(family: str, mitigation: object) -> None:
    fit, _ = _fit(family, accelerate="squarem", mitigation=mitigation, num_iterations=300)
    if isinstance(mitigation, gmmedu.Prior):
        assert fit.history[-1] < fit.history[0]  # the NLL alone may rise a little
    else:
        assert float(fit.history.diff().max()) <= 1e-12


def test_weights_count_as_copies() -> None:
    copies = torch.arange(len(OVERLAPPING)) % 3 + 1
    weighted, _ = _fit("full", accelerate="squarem", sample_weight=copies.double())
    repeated, _ = _fit("full", OVERLAPPING.repeat_interleave(copies, 0), accelerate="squarem")
    assert weighted.nll == pytest.approx(repeated.nll, abs=1e-8)


def test_a_geometric_path_is_followed_to_its_end_at_once() -> None:
    family = gmmedu.GmmFull(2, 2, dtype=torch.float64).family
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    state = model.state()
    end = state.means.detach()
    away = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    path = [State(state.log_weights, end + 0.9**i * away, state.factors) for i in range(3)]
    squarem = Squarem(family, 1e-6, longest=100.0)
    assert squarem.leap(path[0], path[1]) is None
    ahead = squarem.leap(path[1], path[2])
    assert ahead is not None and squarem.length == pytest.approx(10.0)
    torch.testing.assert_close(ahead.means, end, rtol=0, atol=1e-10)
    assert squarem.leap(path[2], path[0]) is None, "each pair of steps is used once"


def test_a_broken_path_is_not_extrapolated() -> None:
    state = gmmedu.GmmFull(2, 2, dtype=torch.float64).state()
    moved = [State(state.log_weights, state.means + i, state.factors) for i in (0.0, 1.0, 1.5, 9.0)]
    squarem = Squarem(gmmedu.GmmFull(2, 2).family, 1e-6)
    assert squarem.leap(moved[0], moved[1]) is None
    assert squarem.leap(moved[3], moved[2]) is None


def test_trust_grows_and_shrinks() -> None:
    squarem = Squarem(gmmedu.GmmFull(2, 2).family, 1e-6)
    squarem.length = 4.0
    assert squarem.keep(True) and squarem.longest == 16.0
    squarem.length = 6.0
    assert squarem.keep(True) and squarem.longest == 16.0
    assert not squarem.keep(False) and squarem.longest == 3.0


def test_an_unknown_acceleration_is_refused() -> None:
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match='accelerate must be None or "squarem"'):
        gmmedu.fit_em(model, OVERLAPPING, accelerate="fast")  # type: ignore[arg-type]

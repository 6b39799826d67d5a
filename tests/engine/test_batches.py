"""A batch of mixtures gives what a loop over its members gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gmmedu
from gmmedu import GaussianMixture, SingularityError

FAMILIES = list(gmmedu.MODELS)
Fit = Callable[..., gmmedu.FitResult]


def _em(model: GaussianMixture, x: Tensor, **options: Any) -> gmmedu.FitResult:
    return gmmedu.fit_em(model, x, 8, 1e-3, **options)


def _squarem(model: GaussianMixture, x: Tensor, **options: Any) -> gmmedu.FitResult:
    return gmmedu.fit_em(model, x, 8, 1e-3, accelerate="squarem", **options)


def _adam(model: GaussianMixture, x: Tensor, **options: Any) -> gmmedu.FitResult:
    return gmmedu.fit_model(model, x, 8, 0.05, 0.1, tolerance=1e-2, **options)


def _lbfgs(model: GaussianMixture, x: Tensor, **options: Any) -> gmmedu.FitResult:
    return gmmedu.fit_lbfgs(model, x, 4, 1e-3, **options)


FITTERS: dict[str, Fit] = {
    "em": _em,
    "squarem": _squarem,
    "adam": _adam,
    "lbfgs": _lbfgs,
}
MITIGATIONS = {
    "clamp": gmmedu.Clamp(),
    "tight": gmmedu.Clamp(0.4),
    "reset": gmmedu.Reset(0.3, max_resets=3),
    "prior": gmmedu.Prior(),
    "none": None,
}
DATA = ("shared", "own", "weighted", "missing")
MEMBERS = 3

quiet = pytest.mark.filterwarnings(
    "ignore::gmmedu.ConvergenceWarning", "ignore::gmmedu.SingularityWarning"
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _clusters(size: int = 45, num_dims: int = 2, seed: int = 0) -> Tensor:
    """A narrow cluster and a wide one: (N, D)."""
    x = torch.randn(size, num_dims, generator=_generator(seed), dtype=torch.float64)
    x[: size // 3] = 0.3 * x[: size // 3] + 3
    return x


def _data(kind: str) -> tuple[Tensor, Tensor | None]:
    """Points (N, D) or (M, N, D), and weights (M, N) or None."""
    if kind == "shared":
        return _clusters(), None
    x = torch.stack([_clusters(seed=m) + 10 * m for m in range(MEMBERS)])
    if kind == "own":
        return x, None
    if kind == "weighted":
        weights = torch.rand(MEMBERS, 45, generator=_generator(), dtype=torch.float64)
        return x[0], weights * (weights > 0.2) * torch.tensor([[1.0], [5.0], [0.01]])
    hidden = torch.rand(x.shape, generator=_generator()) < 0.2
    hidden[..., 0] &= ~hidden[..., 1]
    return x.masked_fill(hidden, torch.nan), None


def _many(family: str, x: Tensor, k: int = 2, shape: Any = MEMBERS) -> GaussianMixture:
    many = gmmedu.MODELS[family](k, 2, batch_shape=shape, dtype=torch.float64)
    return gmmedu.initialize(many, x, "points", missing=True, generator=_generator(1))


def _same(one: GaussianMixture, other: GaussianMixture, within: float = 1e-9) -> None:
    for name in ("weights", "means", "covariances"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=within, atol=within, msg=name
        )


def _each(x: Tensor, m: int) -> Tensor:
    return x[m] if x.ndim == 3 else x


def _compare(family: str, fitter: str, mitigation: str, kind: str) -> None:
    x, weights = _data(kind)
    many = _many(family, x)
    singles = [many[m] for m in range(MEMBERS)]
    options = {"mitigation": MITIGATIONS[mitigation], "missing": kind == "missing"}
    generator, fit = _generator(2), FITTERS[fitter]
    batch = fit(many, x, sample_weight=weights, generator=_generator(2), **options)
    for m, single in enumerate(singles):
        mine = None if weights is None else weights[m]
        one = fit(single, _each(x, m), sample_weight=mine, generator=generator, **options)
        _same(many[m], single)
        assert float(batch.nll[m]) == pytest.approx(one.nll, abs=1e-9)
        assert bool(batch.converged[m]) == one.converged
        assert int(batch.num_iterations[m]) == one.num_iterations
        assert int(batch.passes[m]) == one.passes
        steps = one.num_iterations + 1
        history = batch.history[:, m]
        torch.testing.assert_close(history[:steps], one.history, rtol=0, atol=1e-9)
        assert bool(history[steps:].isnan().all())
        events = [(e.iteration, e.component, e.action) for e in one.events]
        assert events == [
            (e.iteration, e.component, e.action) for e in batch.events if e.member == m
        ]


@quiet
@pytest.mark.parametrize("mitigation", MITIGATIONS)
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_fits_is_a_loop_of_fits(family: str, fitter: str, mitigation: str) -> None:
    # Each family and each fitter meets each kind of data, and the next test each mitigation.
    shift = FAMILIES.index(family) + list(FITTERS).index(fitter)
    kind = DATA[(shift + list(MITIGATIONS).index(mitigation)) % len(DATA)]
    _compare(family, fitter, mitigation, kind)


@quiet
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_with_every_mitigation_on_every_kind_of_data(mitigation: str, kind: str) -> None:
    _compare("full", "squarem", mitigation, kind)


@quiet
@pytest.mark.parametrize("fitter", FITTERS)
def test_members_leave_one_by_one(fitter: str) -> None:
    x = torch.stack([_clusters(seed=m) for m in range(MEMBERS)])
    x[0, 15:] += torch.tensor([20.0, 0.0])
    many = _many("diagonal", x)
    done = many[0]
    gmmedu.fit_em(done, x[0], 500, 1e-14)
    for whole, part in zip(many.parameters(), done.parameters(), strict=True):
        whole.data[0] = part.data
    fit = FITTERS[fitter](many, x)
    assert fit.num_iterations[0] == 1 < fit.num_iterations[1]
    assert fit.num_iterations.max() == len(fit.history) - 1


@quiet
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_each_member_has_its_own_learning_rates(
    shape: tuple[int, ...], shared: bool, tmp_path: Path
) -> None:
    """With members that leave early, and with a fit that is taken up after some have left."""
    x, tolerance = _clusters(), 1e-5
    means = torch.tensor([1e-3, 1e-1], dtype=torch.float64)
    logits = torch.linspace(0.01, 0.2, 4).reshape(shape)
    rates = logits, torch.tensor(0.05) if shared else means.expand(2, 2).reshape(shape)
    many = _many("full", x, shape=shape)
    singles = [many[np.unravel_index(m, shape)] for m in range(4)]
    path = tmp_path / "fit.pt"
    start = copy.deepcopy(many)
    gmmedu.fit_model(many, x, 100, *rates, tolerance=tolerance)
    ended = []
    for m, single in enumerate(singles):
        own = [float(r.expand(shape).flatten()[m]) for r in rates]
        ended.append(gmmedu.fit_model(single, x, 100, *own, tolerance=tolerance).num_iterations)
        _same(many[np.unravel_index(m, shape)], single)
    assert len({*ended}) > 2

    def stop(_: Any, iteration: int, __: Any) -> bool:
        return iteration > min(ended)

    options: dict[str, Any] = {
        "tolerance": tolerance,
        "checkpoint": path,
        "checkpoint_every": 1,
    }
    gmmedu.fit_model(start, x, 100, *rates, callback=stop, **options)
    gmmedu.fit_model(start, x, 100, *rates, **options)
    _same(start, many, 0)
    if not shared:
        with pytest.raises(ValueError, match="the algorithm"):
            gmmedu.fit_model(start, x, 100, *reversed(rates), **options)


@quiet
@pytest.mark.parametrize("family", ["full", "diagonal", "isotropic"])
def test_members_that_leave_make_blocks_wider(family: str) -> None:
    """Points that all share, in several blocks, whose features are kept from pass to pass."""
    generator = _generator()
    x = torch.randn(6_000, 3, generator=generator, dtype=torch.float64)
    x += 3 * torch.randint(0, 3, (6_000, 1), generator=generator)
    many = gmmedu.MODELS[family](5, 3, batch_shape=(30,), dtype=torch.float64)
    gmmedu.initialize(many, x, "kmeans++", generator=generator)
    fit = gmmedu.fit_em(many, x, 60, tolerance=1e-4)
    assert len(set(fit.num_iterations.tolist())) > 3
    torch.testing.assert_close(fit.nll, many(x).detach(), rtol=0, atol=1e-10)


@quiet
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_member_that_fails_leaves_alone(fitter: str) -> None:
    x = torch.stack([_clusters(seed=m) for m in range(MEMBERS)])
    # One component of member 1 sits on nine equal points.
    x[1, :9] = 7.0
    many = _many("full", x)
    means = many.means.detach().clone()
    means[1] = torch.tensor([[7.0, 7.0], [0.0, 0.0]])
    # Close above the least that float64 resolves, so that few steps lead below it.
    covariances = many.covariances.detach().clone()
    covariances[1, 0] = torch.eye(2) * (6e-8 * float(x[1].std())) ** 2
    many.set_parameters(means=means, covariances=covariances)
    alone = [many[m] for m in range(MEMBERS)]
    fit = FITTERS[fitter](many, x, mitigation=None)
    (error,) = fit.errors
    assert isinstance(error, SingularityError)
    assert (error.member, error.component) == (1, 0)
    assert fit.nll[1] == torch.inf and not fit.converged[1]
    assert "component 0 became singular" in str(error)
    with pytest.raises(SingularityError) as caught:
        FITTERS[fitter](alone[1], x[1], mitigation=None)
    assert (caught.value.iteration, caught.value.member) == (error.iteration, None)
    _same(many[1], alone[1])
    for m in (0, 2):
        single = FITTERS[fitter](alone[m], x[m], mitigation=None)
        assert float(fit.nll[m]) == pytest.approx(single.nll, abs=1e-9)
        assert int(fit.num_iterations[m]) == single.num_iterations
        _same(many[m], alone[m])


def test_where_all_members_fail_the_first_error_is_raised() -> None:
    x = _clusters().clone()
    x[:9] = 7.0
    means = torch.tensor([[7.0, 7.0], [0.0, 0.0]], dtype=x.dtype).expand(2, 2, 2)
    many = gmmedu.GmmFull(2, 2, init_means=means, batch_shape=2, dtype=x.dtype)
    with pytest.raises(SingularityError, match="component 0"):
        gmmedu.fit_em(many, x, mitigation=None)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("method", ["box", "points", "kmeans", "kmeans++"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_starts_where_a_loop_starts(family: str, method: str, own: bool) -> None:
    x, _ = _data("missing" if own else "shared")
    many = gmmedu.MODELS[family](4, 2, batch_shape=MEMBERS, dtype=torch.float64)
    gmmedu.initialize(many, x, method, missing=own, generator=_generator(3))
    generator = _generator(3)
    for m in range(MEMBERS):
        single = gmmedu.MODELS[family](4, 2, dtype=torch.float64)
        gmmedu.initialize(single, _each(x, m), method, missing=own, generator=generator)
        _same(many[m], single, within=1e-12)


@quiet
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("own", [False, True])
def test_two_batch_dimensions_are_one_laid_out(fitter: str, own: bool) -> None:
    x = torch.stack([_clusters(seed=m) for m in range(6)])
    weights = torch.rand(6, 45, generator=_generator(), dtype=x.dtype)
    grid, row = (_many("full", x[0], shape=shape) for shape in ((2, 3), 6))
    given = x if own else x[0]
    wide = x.unflatten(0, (2, 3)) if own else x[0]
    one = FITTERS[fitter](row, given, sample_weight=weights)
    two = FITTERS[fitter](grid, wide, sample_weight=weights.unflatten(0, (2, 3)))
    for name in ("nll", "converged", "num_iterations", "passes"):
        assert getattr(two, name).shape == (2, 3)
        assert torch.equal(getattr(two, name).flatten(), getattr(one, name))
    assert two.history.shape == (*one.history.shape[:1], 2, 3)
    for index in range(6):
        _same(grid[index // 3, index % 3], row[index], within=0)
    assert grid[1].batch_shape == (3,) and grid[:, 1:].batch_shape == (2, 2)
    _same(grid[1][2], grid[1, 2], within=0)


def test_a_member_is_a_model_of_its_own() -> None:
    many = _many("tied", _clusters())
    many.means.requires_grad_(False)
    one = many[torch.tensor(1)]
    assert one.batch_shape == () and type(one) is type(many)
    assert not one.means.requires_grad and one.logits.requires_grad
    kept = many.means.clone()
    with torch.no_grad():
        one.means.add_(1)
    assert torch.equal(many.means, kept)
    assert torch.equal(many[-1].means, many.means[2])
    with pytest.raises(IndexError):
        many[3]
    with pytest.raises(TypeError, match="batch_shape"):
        one[0]


@pytest.mark.parametrize("method", ["log_prob", "responsibilities", "predict"])
@pytest.mark.parametrize("missing", [False, True])
def test_the_density_of_a_batch(method: str, missing: bool) -> None:
    many = _many("full", _clusters(), shape=(2, 3))
    x = _clusters(7)
    if missing:
        x[2, 0] = torch.nan
    own = torch.stack([x + m for m in range(6)]).unflatten(0, (2, 3))
    for points in (x[0], x, own):
        whole = getattr(many, method)(points, missing=missing)
        for i in range(2):
            for j in range(3):
                mine = points[i, j] if points.ndim == 4 else points
                one = getattr(many[i, j], method)(mine, missing=missing)
                torch.testing.assert_close(whole[i, j], one)


@pytest.mark.parametrize("method", ["aic", "bic", "forward"])
def test_criteria_of_a_batch(method: str) -> None:
    many, x = _many("diagonal", _clusters()), _clusters(9)
    whole = getattr(many, method)(x)
    assert whole.shape == (MEMBERS,)
    for m in range(MEMBERS):
        one = torch.as_tensor(getattr(many[m], method)(x))
        torch.testing.assert_close(whole[m], one, check_dtype=False)


@pytest.mark.parametrize("family", ["full", "diagonal", "constant"])
def test_marginals_conditionals_and_samples_of_a_batch(family: str) -> None:
    many = _many(family, _clusters())
    marginal, conditional = many.marginal([1]), many.condition({0: 0.5})
    assert many.sample((4, 5), generator=_generator()).shape == (4, 5, MEMBERS, 2)
    assert many.sample(7).shape == (7, MEMBERS, 2)
    for m in range(MEMBERS):
        _same(marginal[m], many[m].marginal([1]), 1e-12)
        _same(conditional[m], many[m].condition({0: 0.5}), 1e-12)


@quiet
@pytest.mark.parametrize("fitter", ["fit_em", "fit_model", "fit_lbfgs"])
@pytest.mark.parametrize("missing", [False, True])
def test_fit_best_is_the_best_of_a_loop(fitter: str, missing: bool) -> None:
    x, _ = _data("missing" if missing else "shared")
    x = _each(x, 0)
    fit, starts = getattr(gmmedu, fitter), 5
    best = gmmedu.GmmFull(3, 2, dtype=torch.float64)
    result = gmmedu.fit_best(
        best,
        x,
        starts,
        method="points",
        fitter=fit,
        missing=missing,
        generator=_generator(5),
        num_iterations=8,
    )
    generator, loop = _generator(5), []
    for _ in range(starts):
        model = gmmedu.GmmFull(3, 2, dtype=torch.float64)
        gmmedu.initialize(model, x, "points", missing=missing, generator=generator)
        loop.append((fit(model, x, 8, missing=missing), model))
    nlls = [one.nll for one, _ in loop]
    assert result.starts is not None
    assert result.starts.tolist() == pytest.approx(nlls, abs=1e-9)
    alone, model = loop[nlls.index(min(nlls))]
    assert result.nll == pytest.approx(alone.nll, abs=1e-9)
    for name in ("converged", "num_iterations", "passes"):
        assert getattr(result, name) == getattr(alone, name)
    torch.testing.assert_close(result.history, alone.history, rtol=0, atol=1e-9)
    _same(best, model)
    if not missing:
        assert float(best(x).detach()) == pytest.approx(result.nll)


@quiet
def test_fit_best_goes_in_turns_where_memory_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, results = _clusters(), []
    for numbers in (2**24, 2 * 2 * 45):
        monkeypatch.setattr("gmmedu.starts._BATCH_NUMBERS", numbers)
        model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
        results.append(gmmedu.fit_best(model, x, 5, method="box", generator=_generator()))
    torch.testing.assert_close(results[0].starts, results[1].starts)
    assert results[0].nll == pytest.approx(results[1].nll, abs=1e-9)


def test_fit_best_keeps_what_some_starts_lose() -> None:
    x = _clusters().clone()
    x[:9] = 7.0
    model = gmmedu.GmmFull(3, 2, dtype=torch.float64)
    fit = gmmedu.fit_best(model, x, 12, method="points", mitigation=None, generator=_generator(4))
    assert fit.starts is not None
    assert 0 < int(fit.starts.isinf().sum()) < 12
    assert fit.nll == float(fit.starts.min())
    assert float(model(x).detach()) == pytest.approx(fit.nll)

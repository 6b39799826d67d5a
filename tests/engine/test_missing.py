"""Missing values: EM and descent use each row for what it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Mixture
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import MultivariateNormal

import gmmedu
from gmmedu import GaussianMixture
from gmmedu.descent import score
from gmmedu.em import m_step
from gmmedu.passes import e_step
from gmmedu.units import Units, moments
from gmmedu.values import Points, each

FAMILIES = list(gmmedu.MODELS)


def _incomplete(num_points: int = 60, num_dims: int = 3, share: float = 0.3) -> Tensor:
    """Draws with values missing at random, no row without any."""
    rng = np.random.default_rng(5)
    x = torch.tensor(reference.draw(reference.random_mixture("full", 2, num_dims), num_points))
    missing = torch.tensor(rng.random((num_points, num_dims)) < share)
    missing[:, 0] &= ~missing.all(1)
    return x.masked_fill(missing, torch.nan)


def _model(family: str, num_components: int = 2, num_dims: int = 3) -> GaussianMixture:
    mixture = reference.random_mixture(family, num_components, num_dims)
    model = gmmedu.MODELS[family](num_components, num_dims, dtype=torch.float64)
    covariances = torch.tensor(mixture.covariances) if model.family.trainable else None
    return model.set_parameters(
        torch.tensor(mixture.weights), torch.tensor(mixture.means), covariances
    )


def _parameters(model: GaussianMixture) -> Mixture:
    with torch.no_grad():
        parts = model.weights, model.means, model.covariances
        return Mixture(*(part.numpy().copy() for part in parts))


def _log_joint(m: Mixture, row: np.ndarray) -> np.ndarray:
    """log pi_k + log density of what is observed of a row, (K,), by scipy."""
    seen = ~np.isnan(row)
    return np.array(
        [
            np.log(w) + multivariate_normal(mu[seen], sigma[np.ix_(seen, seen)]).logpdf(row[seen])
            for w, mu, sigma in zip(m.weights, m.means, m.covariances, strict=True)
        ]
    )


def _textbook_m_step(m: Mixture, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (K,), means (K, D) and covariances (K, D, D) of the rows, filled in with their
    conditional means, plus the conditional covariances; row by row, component by component."""
    K, D = m.means.shape
    counts, sums, squares = np.zeros(K), np.zeros((K, D)), np.zeros((K, D, D))
    for row in x:
        log_joint = _log_joint(m, row)
        r = np.exp(log_joint - np.logaddexp.reduce(log_joint))
        s, h = ~np.isnan(row), np.isnan(row)
        for k in range(K):
            sigma, mu = m.covariances[k], m.means[k]
            slopes = sigma[np.ix_(h, s)] @ np.linalg.inv(sigma[np.ix_(s, s)])
            full, spread = row.copy(), np.zeros((D, D))
            full[h] = mu[h] + slopes @ (row[s] - mu[s])
            spread[np.ix_(h, h)] = sigma[np.ix_(h, h)] - slopes @ sigma[np.ix_(s, h)]
            counts[k] += r[k]
            sums[k] += r[k] * full
            squares[k] += r[k] * (np.outer(full, full) + spread)
    means = sums / counts[:, None]
    covariances = squares / counts[:, None, None] - means[:, :, None] * means[:, None, :]
    return counts, means, covariances


def _restrict(family: str, counts: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """What a family keeps of its components' covariances."""
    K, D = covariances.shape[:2]
    pooled = np.einsum("k,kij->ij", counts, covariances) / counts.sum()
    kept = {
        "full": lambda: covariances,
        "tied": lambda: np.stack([pooled] * K),
        "diagonal": lambda: np.stack([np.diag(np.diag(c)) for c in covariances]),
        "isotropic": lambda: np.stack([np.trace(c) / D * np.eye(D) for c in covariances]),
        "shared_isotropic": lambda: np.stack([np.trace(pooled) / D * np.eye(D)] * K),
    }
    return np.asarray(kept[family]())


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "constant"])
def test_one_step_of_em_is_the_textbooks(family: str) -> None:
    x, model = _incomplete(), _model(family)
    before = _parameters(model)
    fit = gmmedu.fit_em(model, x, 1, tolerance=0, missing=True)
    counts, means, covariances = _textbook_m_step(before, x.numpy())
    after = _parameters(model)
    np.testing.assert_allclose(after.weights, counts / len(x), atol=1e-11)
    np.testing.assert_allclose(after.means, means, atol=1e-11)
    expected = _restrict(family, counts, covariances)
    np.testing.assert_allclose(after.covariances, expected, atol=1e-11)
    assert fit.history.shape == (2,)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nll_is_that_of_what_was_observed(family: str) -> None:
    x, model = _incomplete(), _model(family)
    m = _parameters(model)
    expected = -np.mean([np.logaddexp.reduce(_log_joint(m, row)) for row in x.numpy()])
    fit = gmmedu.fit_em(model, x, 0, missing=True)
    assert fit.nll == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_autograds(family: str) -> None:
    x, model = _incomplete(), _model(family)
    total = torch.zeros(())
    for row in x:
        seen = ~row.isnan()
        means, covariances = model.means[:, seen], model.covariances[:, seen][:, :, seen]
        log_density = MultivariateNormal(means, covariances).log_prob(row[seen])
        total = total + torch.logsumexp(model.logits.log_softmax(0) + log_density, 0)
    leaves = [p for p in (model.logits, model.means, model.raw_scale) if p.requires_grad]
    expected = torch.autograd.grad(total, leaves)
    with torch.no_grad():
        state = model.state()
        found = score(e_step(Points.of(x), model.family, state), model.family, state)
    for one, other in zip(found, expected, strict=False):
        torch.testing.assert_close(one.tril() if one.ndim == 3 else one, other, rtol=0, atol=1e-9)


# The third component has a point or two in the end, and the fit says so.
@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("accelerate", [None, "squarem"])
def test_the_nll_never_rises(family: str, accelerate: str | None) -> None:
    x, model = _incomplete(200), _model(family, 3)
    fit = gmmedu.fit_em(model, x, 100, 0.0, missing=True, accelerate=accelerate)  # type: ignore[arg-type]
    assert float(fit.history.diff().max()) <= 1e-12


def test_one_gaussian_with_a_column_half_observed_has_a_formula() -> None:
    """Anderson (1957): the first column from all rows, the second by regression on the first."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    x[:, 1] += 2 * x[:, 0] + 1
    x[120:, 1] = torch.nan
    model = gmmedu.GmmFull(1, 2, dtype=x.dtype)
    _ = gmmedu.fit_em(model, x, 5_000, 1e-15, missing=True)
    first = x[:, 0].numpy()
    slope, intercept = np.polyfit(first[:120], x[:120, 1].numpy(), 1)
    rest = np.mean((x[:120, 1].numpy() - intercept - slope * first[:120]) ** 2)
    mean = [first.mean(), intercept + slope * first.mean()]
    variance = first.var()
    covariance = [
        [variance, slope * variance],
        [slope * variance, rest + slope**2 * variance],
    ]
    np.testing.assert_allclose(model.means[0].detach(), mean, atol=1e-6)
    np.testing.assert_allclose(model.covariances[0].detach(), covariance, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_where_nothing_is_missing_nothing_changes(family: str) -> None:
    x = _incomplete(share=0.0)
    fits = [
        gmmedu.fit_em(_model(family), x, 20, 0.0, missing=missing).history
        for missing in (False, True)
    ]
    assert torch.equal(*fits)


def test_weights_count_as_copies() -> None:
    x = _incomplete()
    copies = torch.arange(len(x)) % 3
    weighted, repeated = _model("full"), _model("full")
    kept = x.repeat_interleave(copies, 0)
    one = gmmedu.fit_em(weighted, x, 10, 0.0, missing=True, sample_weight=copies.double())
    other = gmmedu.fit_em(repeated, kept, 10, 0.0, missing=True)
    torch.testing.assert_close(one.history, other.history, rtol=0, atol=1e-11)


def test_both_fitters_find_the_same_optimum() -> None:
    x = _incomplete(300)
    by_em, by_descent = _model("full"), _model("full")
    em = gmmedu.fit_em(by_em, x, 3_000, 1e-13, missing=True)
    descent = gmmedu.fit_model(by_descent, x, 300, 0.02, 0.02, missing=True)
    assert descent.nll == pytest.approx(em.nll, abs=1e-5)


@pytest.mark.parametrize("mitigation", [gmmedu.Reset(), gmmedu.Prior(), None])
def test_every_mitigation_works_with_missing_values(mitigation: object) -> None:
    model, same = _model("full"), _model("full")
    options: dict[str, Any] = {"mitigation": mitigation, "missing": True}
    fit = gmmedu.fit_em(model, _incomplete(), 50, 0.0, **options)
    log_prob = model.log_prob(_incomplete(), missing=True).detach()
    assert fit.nll == pytest.approx(float(-log_prob.mean()), abs=1e-10)
    # Where nothing is missing it is the fit to complete data.
    x = gmmedu.impute(model, _incomplete())
    gmmedu.fit_em(same, x, 10, 0.0, mitigation=mitigation)  # type: ignore[arg-type]
    other = _model("full")
    gmmedu.fit_em(other, x, 10, 0.0, **options)
    torch.testing.assert_close(other.covariances, same.covariances, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
def test_a_component_on_the_floor_is_reset_with_missing_values() -> None:
    fit = gmmedu.fit_em(
        _model("full"), _incomplete(), 20, 0.0, missing=True, mitigation=gmmedu.Reset(0.9)
    )
    assert "reset" in {event.action for event in fit.events}


@pytest.mark.parametrize("family", FAMILIES)
def test_imputed_values_are_conditional_expectations(family: str) -> None:
    x, model = _incomplete(), _model(family)
    filled = gmmedu.impute(model, x)
    present = ~x.isnan()
    assert torch.equal(filled[present], x[present]) and bool(filled.isfinite().all())
    for row, full in zip(x[:20], filled[:20], strict=True):
        hidden = row.isnan().nonzero().flatten().tolist()
        if hidden:
            given = {d: float(row[d]) for d in range(3) if d not in hidden}
            then = model.condition(given)
            mean = (then.weights[:, None] * then.means).sum(0)
            torch.testing.assert_close(full[hidden], mean.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_row_without_any_value_the_mean_of_the_mixture_is_expected(family: str) -> None:
    model, x = _model(family), _with(torch.nan, 4, slice(None))
    filled = gmmedu.impute(model, x)
    torch.testing.assert_close(filled[4], model.mean.detach())
    assert torch.equal(filled[:4], x[:4]) and torch.equal(filled[5:], x[5:])


def _with(value: float, rows: object, columns: object) -> Tensor:
    x = _incomplete(share=0.0)
    x[rows, columns] = value  # type: ignore[index]
    return x


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (_with(torch.nan, 4, slice(None)), "no observed value in row 4"),
        (_with(torch.nan, slice(None), 1), "no observed value in column 1"),
        (_with(torch.inf, 0, 0), "must not hold infinity"),
    ],
)
@pytest.mark.parametrize("fitter", [gmmedu.fit_em, gmmedu.fit_model])
def test_what_cannot_be_fitted_is_named(fitter: object, x: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fitter(_model("full"), x, missing=True)  # type: ignore[operator]


def test_nan_is_refused_unless_it_is_said_to_be_missing() -> None:
    with pytest.raises(ValueError, match="missing=True"):
        gmmedu.fit_em(_model("full"), _incomplete())
    with pytest.raises(TypeError, match="missing must be True or False"):
        gmmedu.fit_em(_model("full"), _incomplete(), missing="yes")  # type: ignore[arg-type]


def test_a_step_leaves_an_unseen_direction_as_it_was() -> None:
    """Two columns never observed together: their covariance given the rest stays where it was."""
    x = _incomplete(100, 2, 0.0)
    x[:50, 0], x[50:, 1] = torch.nan, torch.nan
    model = _model("full", 1, 2)
    before = model.covariances[0].detach().clone()
    fit = gmmedu.fit_em(model, x, 2_000, 1e-14, missing=True)
    after = model.covariances[0].detach()
    assert fit.converged and float(after.det()) > 0
    np.testing.assert_allclose(
        after.diagonal(), [x[50:, 0].var(0, False), x[:50, 1].var(0, False)], rtol=1e-4
    )
    assert float(before[0, 1] * after[0, 1]) > 0


def test_the_m_step_of_statistics_is_that_of_the_fit() -> None:
    x, model = _incomplete(), _model("tied")
    units = Units.of([moments([(x, None)])], per_dimension=True)
    with torch.no_grad():
        one = each(lambda part: part.unsqueeze(0), model.state())
        state = units.standardize(one, model.family)
        points = Points.from_columns(units.columns(x, x.dtype), None)
        step, _ = m_step(e_step(points, model.family, state), model.family, state, 1e-6)
        expected = units.restore(step, model.family).means[0]
    _ = gmmedu.fit_em(model, x, 1, tolerance=0, missing=True)
    torch.testing.assert_close(model.means.detach(), expected)

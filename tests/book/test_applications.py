"""Figures that others published, which chapter 13 is held to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.metrics import roc_auc_score
from torch import Tensor

import gmmedu


def one_gaussian(x: Tensor, missing: bool = False) -> gmmedu.GmmFull:
    """Fitted to the last digits, with no floor."""
    model = gmmedu.GmmFull(1, x.shape[1], dtype=x.dtype)
    gmmedu.initialize(model, x, missing=missing)
    gmmedu.fit_em(model, x, 5000, 1e-13, mitigation=None, missing=missing)
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("load", "full", "tied", "errors"),
    [
        (datasets.load_iris, -182.92085, -256.64618, (0.02, 0.02)),
        (datasets.load_wine, -2782.2613, -3172.400, (0.0056, 0.0)),
    ],
)
def test_class_conditional_fits_of_mclust(
    load: Callable[..., Any], full: float, tied: float, errors: tuple[float, float]
) -> None:
    """MclustDA of mclust 6.0.0, one component a class: the likelihood of the points alone."""
    x, y = (torch.tensor(part) for part in load(return_X_y=True))
    log_prior = (y.bincount() / len(y)).log()
    models = [one_gaussian(x[y == c]) for c in range(3)]
    own = torch.stack([model.log_prob(x) for model in models], 1) + log_prior
    # One covariance for all classes: a tied mixture whose responsibilities are the classes.
    means = torch.stack([x[y == c].mean(0) for c in range(3)])
    centered = x - means[y]
    pooled = (centered.mT @ centered / len(x)).expand(3, -1, -1)
    common = gmmedu.GmmTied(3, x.shape[1], dtype=x.dtype)
    common.set_parameters(log_prior.exp(), means, pooled).requires_grad_(False)
    assert math.isclose(float(own.logsumexp(1).sum()), full, rel_tol=1e-6)
    assert math.isclose(float(common.log_prob(x).sum()), tied, rel_tol=1e-6)
    wrong = ((guess != y).double().mean() for guess in (own.argmax(1), common.predict(x)))
    assert all(abs(float(w) - e) < 1e-4 for w, e in zip(wrong, errors, strict=True))


def test_air_quality_has_the_published_likelihood() -> None:
    """One Gaussian by full-information maximum likelihood, lavaan 0.6-14."""
    air = gmmedu.load_airquality()
    model = one_gaussian(air, missing=True)
    total = float(model.log_prob(air, missing=True).sum())
    assert math.isclose(total, -2326.697383, rel_tol=1e-8)
    means = torch.tensor([[41.87117, 184.84681, 9.957516, 77.88235]]).double()
    assert torch.allclose(model.means, means, rtol=1e-4)


@pytest.mark.parametrize(("seeds", "k", "low", "high"), [(3, 1, 0.985, 0.987), (3, 6, 0.8, 0.9)])
def test_a_component_of_their_own_hides_the_tumors(
    seeds: int, k: int, low: float, high: float
) -> None:
    """The WDBC set of ADBench: .986 with one diagonal Gaussian, less with six."""
    x, y = (torch.tensor(part) for part in datasets.load_breast_cancer(return_X_y=True))
    odd = x[[28, 117, 230, 95, 370, 323, 516, 498, 33, 564]]
    assert (y[[28, 117, 230, 95, 370, 323, 516, 498, 33, 564]] == 0).all()
    x = torch.cat([x[y == 1], odd])
    x = (x - x.mean(0)) / x.std(0)
    for seed in range(seeds):
        model = gmmedu.GmmDiagonal(k, 30, dtype=x.dtype)
        gmmedu.fit_best(model, x, 5, generator=torch.Generator().manual_seed(seed))
        score = -model.log_prob(x).detach().numpy()
        assert low <= roc_auc_score(np.arange(len(x)) >= 357, score) <= high

"""The log density of the multivariate normal, from its whitening factor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from reference import Mixture

from gmmedu import gaussian


@pytest.mark.parametrize("num_dims", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("num_components", [1, 2, 8, 64])
def test_log_density_agrees_with_scipy(num_components: int, num_dims: int) -> None:
    mixture = reference.random_mixture("full", num_components, num_dims)
    x = reference.draw(mixture, 50)
    factor = torch.tensor(np.linalg.cholesky(mixture.covariances))
    residuals = gaussian.residuals(torch.tensor(x), torch.tensor(mixture.means))
    assert residuals.shape == (num_components, num_dims, 50)
    whitened = torch.linalg.solve_triangular(factor, residuals, upper=False)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    found = gaussian.log_density(whitened, log_det).mT.numpy()
    components = Mixture(np.ones(num_components), mixture.means, mixture.covariances)
    expected = reference.log_joint(components, x)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_one_factor_serves_all_components() -> None:
    whitened = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)).double()
    shared = gaussian.log_density(whitened, torch.tensor([0.3], dtype=torch.float64))
    each = gaussian.log_density(whitened, torch.full((3,), 0.3, dtype=torch.float64))
    assert torch.equal(shared, each)


def test_log_normalizer_is_that_of_the_standard_normal() -> None:
    found = gaussian.log_normalizer(3, torch.zeros(1, dtype=torch.float64))
    assert found.shape == (1, 1)
    assert float(found) == pytest.approx(1.5 * math.log(2 * math.pi), rel=1e-15)


def test_far_tails_do_not_underflow() -> None:
    whitened = torch.full((1, 1, 1), 1e4, dtype=torch.float64)
    log_density = gaussian.log_density(whitened, torch.zeros(1, dtype=torch.float64))
    assert float(log_density) == pytest.approx(-0.5e8 - 0.5 * math.log(2 * math.pi), rel=1e-15)

"""What a mixture expects of values that were not observed, given those that were (chapter 06)."""

from __future__ import annotations

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.mixture import GaussianMixture, check_mixture
from gmmedu.statistics import patterns_of


@torch.no_grad()
def impute(model: GaussianMixture, x: Tensor) -> Tensor:
    """x (N, D) with its expectation in the place of each NaN, given what the row has: (N, D)
    (eq-imputation).

    An expectation is not a draw: filled-in values vary less than real ones do. Raises ``TypeError``
    or ``ValueError`` for bad input, a row without any value included.
    """
    check_mixture(model)
    checks.check_points(
        x, model.num_dims, device=model.means.device, missing=True
    )
    filled = x.clone()
    means, covariances = model.means, model.covariances
    for pattern in patterns_of(x):
        seen = pattern.observed
        hidden = torch.ones(
            model.num_dims, dtype=torch.bool, device=x.device
        )
        hidden[seen] = False
        if not bool(hidden.any()):
            continue
        observed = x[pattern.rows][:, seen].to(means)
        r = model.marginal(seen.tolist()).responsibilities(observed)
        residuals = observed - means[:, None, seen]  # (K, B, O)
        cross = covariances[:, hidden][:, :, seen]
        within = covariances[:, seen][:, :, seen]
        slopes = torch.cholesky_solve(
            cross.mT, torch.linalg.cholesky(within)
        ).mT
        expected = means[:, None, hidden] + residuals @ slopes.mT
        block = filled[pattern.rows]
        block[:, hidden] = (
            (r.mT.unsqueeze(-1) * expected).sum(0).to(x.dtype)
        )
        filled[pattern.rows] = block
    return filled

"""What a mixture expects of values that were not observed, given those that were (chapter 06)."""

from __future__ import annotations

import torch
from torch import Tensor

from gmmedu import checks, mixture
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.values import each


@torch.no_grad()
def impute(model: GaussianMixture, x: Tensor) -> Tensor:
    """x (N, D), or one point (D,), with its expectation in the place of each NaN, given what the
    row has (eq-imputation); a row that has nothing gets the mean of the mixture.

    An expectation is not a draw: filled-in values vary less than real ones do. Raises
    ``TypeError`` or ``ValueError`` for bad input, and for a batch of models.
    """
    check_mixture(model)
    if model.batch_shape:
        raise TypeError("impute asks one mixture; write impute(model[i], x)")
    checks.check_event(x, model.num_dims, like=model.means, missing=True)
    rows = x.detach().reshape(-1, model.num_dims)
    state = each(lambda part: part.detach().unsqueeze(0), model.state())
    filled = mixture.impute(model.family, state, rows.to(model.means.dtype))
    return torch.where(rows.isnan(), filled.to(x.dtype), rows).reshape(x.shape)

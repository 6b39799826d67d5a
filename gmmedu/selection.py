"""Several starts, the best kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.em import fit_em
from gmmedu.fitting import FitResult
from gmmedu.initialization import initialize
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.values import each

#: Numbers that the largest array of a batch of starts may hold; more starts go in turns.
_BATCH_NUMBERS = 2**24


def fit_best(
    model: GaussianMixture,
    x: Tensor,
    num_starts: int = 10,
    *,
    method: str = "kmeans",
    fitter: Callable[..., FitResult] = fit_em,
    missing: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> FitResult:
    """Fit a mixture from several starts, all in one batch, and keep the best.

    Args:
        model: one mixture; it is changed in place. What it holds before plays no part, but what
            has ``requires_grad=False`` stays.
        x: data, (N, D).
        num_starts: how many starts.
        method: where each begins, as in ``initialize``.
        fitter: ``fit_em``, ``fit_model`` or ``fit_lbfgs``; its arguments go in by keyword.
        generator: a CPU generator, for the starts and for ``Reset``.

    Returns the record of the best fit, with ``starts``, the NLL of each, (num_starts,). Raises as
    ``fitter`` does, where every start failed.
    """
    check_mixture(model)
    if model.batch_shape:
        raise TypeError("fit_best fits one mixture; its starts are a batch already")
    num_starts = checks.check_count(num_starts, "num_starts")
    checks.check_points(
        x, model.num_dims, device=model.means.device, minimum=model.num_components, missing=missing
    )
    most = max(model.num_components * model.num_dims**2, model.num_components * len(x))
    size = min(num_starts, max(1, _BATCH_NUMBERS // most))
    best: FitResult | None = None
    nlls: list[Tensor] = []
    for start in range(0, num_starts, size):
        many = _copies(model, min(size, num_starts - start))
        initialize(many, x, method, missing=missing, generator=generator)
        result = fitter(many, x, missing=missing, generator=generator, **options)
        nlls.append(result.nll)
        winner = int(result.nll.argmin())
        if best is None or float(result.nll[winner]) < best.nll:
            best = _member(result, winner)
            model.set_state(each(lambda part: part.detach(), many[winner].state()))
    assert best is not None
    return replace(best, starts=torch.cat(nlls))


def _copies(model: GaussianMixture, size: int) -> GaussianMixture:
    """A batch of that many copies of a model."""
    many = model._like(model.num_dims, (size,))
    with torch.no_grad():
        for mine, its in zip(model._numbers(), many._numbers(), strict=True):
            its.copy_(mine.expand_as(its))
            if its.is_leaf and isinstance(its, torch.nn.Parameter):
                its.requires_grad_(mine.requires_grad)
    return many


def _member(result: FitResult, member: int) -> FitResult:
    """The record of one fit of a batch."""
    length = int(result.num_iterations[member]) + 1
    return FitResult(
        nll=float(result.nll[member]),
        history=result.history[:length, member],
        elapsed=result.elapsed[:length],
        passes_after=result.passes_after[:length, member],
        converged=bool(result.converged[member]),
        num_iterations=length - 1,
        passes=int(result.passes[member]),
        seconds=result.seconds,
        events=[replace(e, member=None) for e in result.events if e.member == member],
        snapshots=[
            replace(
                s,
                nll=float(s.nll[member]),
                weights=s.weights[member],
                means=s.means[member],
                covariances=s.covariances[member],
            )
            for s in result.snapshots
            if s.iteration < length
        ],
        errors=[],
    )

"""Expectation-maximization, derived in chapter 06."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gmmedu.acceleration import Squarem
from gmmedu.families import NO_PSEUDO, Family, Pseudo
from gmmedu.fitting import Callback, Fit, FitResult
from gmmedu.mixture import GaussianMixture, State
from gmmedu.singularities import DEFAULT_MITIGATION, Mitigation
from gmmedu.statistics import Statistics, collect
from gmmedu.stopping import Stopping


def fit_em(
    model: GaussianMixture,
    x: Tensor,
    num_iterations: int = 200,
    tolerance: float | Stopping = 1e-8,
    *,
    accelerate: Literal["squarem"] | None = None,
    mitigation: Mitigation | None = DEFAULT_MITIGATION,
    sample_weight: Tensor | None = None,
    missing: bool = False,
    callback: Callback | None = None,
    progress: bool = False,
    snapshot_every: int = 0,
    generator: torch.Generator | None = None,
) -> FitResult:
    """Fit a mixture by EM (eq-em), from whatever state it is in.

    Where the M-step maximizes its surrogate, under a floor on the scales or without one, the NLL
    never rises (eq-em-monotone).

    Args:
        model: any mixture of this package; it is changed in place.
        x: data, (N, D), finite, at least as many points as components.
        num_iterations: the most iterations.
        tolerance: stop when the mean NLL changes by less, in nats; 0 runs every iteration. Or
            another rule: ``Relative(...)``, ``Aitken(...)``.
        accelerate: None, or "squarem": every second step is extrapolated, and kept where that
            lowers the NLL; fewer passes over the data where EM is slow.
        mitigation: of singularities: ``Clamp()`` unless named, ``Reset()``, ``Prior()``, or None.
        sample_weight: (N,), not negative; a point of weight 2 counts as two points
            (eq-sample-weights).
        missing: whether NaN in x is a value that was not observed, at random as far as the
            observed ones tell; the fit then maximizes the likelihood of those
            (eq-missing-likelihood).
        callback: called with (model, iteration, nll); a true return value stops the fit.
        progress: show a progress bar.
        snapshot_every: keep the parameters every so many iterations, and the last; 0 keeps none.
        generator: a CPU generator, for ``Reset``.

    Returns the record; history and NLL are those of the parameters, never of the step before.
    Raises ``SingularityError`` when a component collapses and mitigation is None, ``ValueError``
    or ``TypeError`` for bad input. The model then keeps the last good parameters.
    Sources: Dempster, Laird and Rubin (1977); Varadhan and Roland (2008) for "squarem".
    """
    if accelerate not in (None, "squarem"):
        raise ValueError(
            f'accelerate must be None or "squarem", got {accelerate!r}'
        )
    with Fit(
        model,
        x,
        num_iterations,
        tolerance=tolerance,
        mitigation=mitigation,
        sample_weight=sample_weight,
        missing=missing,
        callback=callback,
        progress=progress,
        snapshot_every=snapshot_every,
        generator=generator,
    ) as fit:
        state = fit.state
        statistics = collect(fit.points, fit.family, state)
        squarem = (
            None if accelerate is None else Squarem(fit.family, fit.floor)
        )
        while not fit.record(statistics, state):
            following, singular = m_step(
                statistics, fit.family, state, fit.floor, fit.pseudo
            )
            if squarem is not None and not bool(singular.any()):
                ahead = squarem.leap(state, following)
                if ahead is not None:
                    statistics = collect(fit.points, fit.family, ahead)
                    if squarem.keep(fit.improves(statistics, ahead)):
                        state = ahead
                        continue
            state = fit.mend(following, singular)
            statistics = collect(fit.points, fit.family, state)
    return fit.result()


def m_step(
    statistics: Statistics,
    family: Family,
    state: State,
    floor: float,
    pseudo: Pseudo = NO_PSEUDO,
) -> tuple[State, Tensor]:
    """The parameters that maximize EM's surrogate (eq-surrogate); statistics counted at ``state``.

    Weights are N_k / N (eq-m-step-weights), means move by L_k times the mean whitened residual
    (eq-m-step-means), covariances as the family has it. Returns the new state and which
    covariances (K or 1,) were raised to ``floor``.
    """
    # Beside any points this is nothing; without any it keeps the state.
    counts = statistics.counts + torch.finfo(statistics.counts.dtype).tiny
    mean = statistics.first / counts.unsqueeze(-1)
    means = state.means + family.apply_factor(state.factors.factor, mean)
    factors, singular = family.m_step(
        statistics, mean, state.factors, floor, pseudo
    )
    if bool(singular.any()):
        blurred = _blurred(singular, mean)
        singular = singular & ~blurred
        factors = family.choose(blurred, state.factors, factors)
    return State((counts / counts.sum()).log(), means, factors), singular


def _blurred(singular: Tensor, mean: Tensor) -> Tensor:
    """Which of the singular covariances (K or 1,) were counted from too far away, (K or 1,).

    Seen from a mean that was far away, the spread of the points drowns in rounding. Such a step
    moves means only; the next one counts about the new mean. mean: of whitened residuals, (K, D).
    """
    far = mean.square().sum(-1) > 1e-3 / torch.finfo(mean.dtype).eps
    return singular & (far if len(singular) == len(far) else far.any())

"""Gradient descent on the mean negative log likelihood, derived in chapter 05."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.families import NO_PSEUDO, Family, Pseudo
from gmmedu.fitting import Callback, Fit, FitResult
from gmmedu.mixture import GaussianMixture, State
from gmmedu.singularities import DEFAULT_MITIGATION, Mitigation
from gmmedu.statistics import Statistics, collect
from gmmedu.stopping import Stopping


def fit_model(
    model: GaussianMixture,
    x: Tensor,
    num_iterations: int = 10_000,
    mixture_lr: float = 1e-3,
    component_lr: float = 1e-2,
    *,
    tolerance: float | Stopping = 0.0,
    mitigation: Mitigation | None = DEFAULT_MITIGATION,
    sample_weight: Tensor | None = None,
    missing: bool = False,
    callback: Callback | None = None,
    progress: bool = False,
    snapshot_every: int = 0,
    generator: torch.Generator | None = None,
) -> FitResult:
    """Fit a mixture by gradient descent, from whatever state it is in.

    The steps are Adam's (eq-adam; Kingma and Ba 2015), on the exact gradient of the mean NLL, which
    is read from the statistics of one pass (eq-fisher-identity) rather than from autograd. Both
    learning rates fall along half a cosine to zero at ``num_iterations``. Call ``initialize``
    first: the box that a new model starts in is for data of its own size.

    Args:
        model: any mixture of this package; it is changed in place.
        x: data, (N, D), finite, at least as many points as components.
        num_iterations: the most iterations.
        mixture_lr: learning rate of the weights' logits. Slower than the other, so that no
            component loses its weight before its mean has found its points.
        component_lr: learning rate of means and covariances. A mean moves by about so many
            standard deviations of the data at a step, a scale by so much of its logarithm.
        tolerance: stop when the mean NLL changes by less, in nats; 0 runs every iteration. Or
            another rule: ``Relative(...)``, ``Aitken(...)``.
        mitigation: of singularities: ``Clamp()`` unless named, ``Reset()``, ``Prior()``, or None.
        sample_weight: (N,), not negative; a point of weight 2 counts as two points.
        missing: whether NaN in x is a value that was not observed, at random as far as the
            observed ones tell; the fit then maximizes the likelihood of those.
        callback: called with (model, iteration, nll); a true return value stops the fit.
        progress: show a progress bar.
        snapshot_every: keep the parameters every so many iterations, and the last; 0 keeps none.
        generator: a CPU generator, for ``Reset``.

    Returns the record; history and NLL are those of the parameters, never of the step before.
    Raises as ``fit_em`` does.
    """
    checks.check_number(mixture_lr, "mixture_lr", inclusive=True)
    checks.check_number(component_lr, "component_lr", inclusive=True)
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
        logits, means = (
            fit.state.log_weights.clone(),
            fit.state.means.clone(),
        )
        factors = fit.state.factors
        theta = fit.family.pack(factors.factor)
        optimizer = torch.optim.Adam(
            [
                {"params": [logits], "lr": mixture_lr},
                {"params": [means, theta], "lr": component_lr},
            ],
            fused=True,
        )
        rates = [group["lr"] for group in optimizer.param_groups]
        for iteration in range(num_iterations + 1):
            state = State(logits.log_softmax(0), means.clone(), factors)
            statistics = collect(fit.points, fit.family, state)
            if fit.record(statistics, state):
                break
            ascent = gradient(statistics, fit.family, state, fit.pseudo)
            for leaf, direction in zip(
                (logits, means, theta), ascent, strict=True
            ):
                leaf.grad = direction.div_(-fit.points.total)
            for group, rate in zip(
                optimizer.param_groups, rates, strict=True
            ):
                group["lr"] = (
                    rate
                    * (1 + math.cos(math.pi * iteration / num_iterations))
                    / 2
                )
            optimizer.step()
            factors, singular = fit.family.clamp(
                fit.family.unpack(theta), fit.floor
            )
            mended = fit.mend(State(logits, means, factors), singular)
            if bool(singular.any()):
                logits.copy_(mended.log_weights)
                means.copy_(mended.means)
                factors = mended.factors
                theta.copy_(fit.family.pack(factors.factor))
    return fit.result()


def gradient(
    statistics: Statistics,
    family: Family,
    state: State,
    pseudo: Pseudo = NO_PSEUDO,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the log likelihood (plus the log prior) in logits, means and theta.

    By Fisher's identity (eq-fisher-identity) it is that of EM's surrogate at the current
    parameters: N_k - N pi_k for the logits (eq-gradient-weights), L_k^{-T} sum_n r_nk y_nk for the
    means (eq-gradient-means), and as the family has it for theta.
    """
    counts = statistics.counts
    return (
        counts - counts.sum() * state.log_weights.exp(),
        family.apply_whitening_transposed(
            state.factors.whitening, statistics.first
        ),
        family.gradient(statistics, state.factors, pseudo),
    )

"""Quasi-Newton descent on the mean negative log likelihood (chapter 05): L-BFGS, from torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmedu.descent import gradient
from gmmedu.fitting import Callback, Fit, FitResult
from gmmedu.mixture import GaussianMixture, State
from gmmedu.singularities import DEFAULT_MITIGATION, Mitigation
from gmmedu.statistics import Statistics, collect
from gmmedu.stopping import Stopping


def fit_lbfgs(
    model: GaussianMixture,
    x: Tensor,
    num_iterations: int = 200,
    tolerance: float | Stopping = 1e-8,
    *,
    mitigation: Mitigation | None = DEFAULT_MITIGATION,
    sample_weight: Tensor | None = None,
    missing: bool = False,
    callback: Callback | None = None,
    progress: bool = False,
    snapshot_every: int = 0,
    generator: torch.Generator | None = None,
) -> FitResult:
    """Fit a mixture by L-BFGS, from whatever state it is in; best near an optimum, say after EM.

    An iteration is a line search along a direction that remembers the last ten gradients, and takes
    one pass over the data or a few. It has no learning rates, and what it minimizes never rises
    but where a mitigation moved a component.

    Arguments, result and errors are those of ``fit_em``. Source: Liu and Nocedal (1989).
    """
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
        search = _Search(fit)
        state, statistics = search.look()
        while not fit.record(statistics, state):
            search.step()
            state, statistics = search.look()
            factors, singular = fit.family.clamp(state.factors, fit.floor)
            if bool(singular.any()):
                search = _Search(
                    fit, fit.mend(State(*state[:2], factors), singular)
                )
                state, statistics = search.look()
    return fit.result()


class _Search:
    """The unconstrained numbers, torch's optimizer of them, and the last pass at them."""

    def __init__(self, fit: Fit, state: State | None = None) -> None:
        state = fit.state if state is None else state
        self.fit = fit
        self.leaves = [
            state.log_weights.clone(),
            state.means.clone(),
            fit.family.pack(state.factors.factor),
        ]
        self.optimizer = torch.optim.LBFGS(
            self.leaves,
            max_iter=1,
            max_eval=25,
            history_size=10,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        self._seen: tuple[list[Tensor], State, Statistics] | None = None

    def step(self) -> None:
        self.optimizer.step(self._loss)

    def look(self) -> tuple[State, Statistics]:
        """The state and its statistics, counted once."""
        if self._seen is None or not all(
            map(torch.equal, self.leaves, self._seen[0])
        ):
            logits, means, theta = (leaf.clone() for leaf in self.leaves)
            state = State(
                logits.log_softmax(0), means, self.fit.family.unpack(theta)
            )
            statistics = collect(self.fit.points, self.fit.family, state)
            self._seen = [logits, means, theta], state, statistics
        return self._seen[1], self._seen[2]

    def _loss(self) -> float:
        state, statistics = self.look()
        objective = self.fit.objective(statistics, state)
        ascent = gradient(
            statistics, self.fit.family, state, self.fit.pseudo
        )
        finite = math.isfinite(objective) and all(
            bool(g.isfinite().all()) for g in ascent
        )
        for leaf, direction in zip(self.leaves, ascent, strict=True):
            # Where a step left the range of numbers, a wall without a slope sends it back.
            leaf.grad = (
                -direction / self.fit.points.total
                if finite
                else torch.zeros_like(leaf)
            )
        return objective if finite else 1e30

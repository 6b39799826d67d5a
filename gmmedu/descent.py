"""Descent on the mean negative log likelihood, derived in chapter 05: Adam, and L-BFGS.

Both read the exact gradient from the statistics of one pass, not from autograd.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.covariance import ConjugatePrior, Family
from gmmedu.em import FREE, ascend
from gmmedu.fitting import Algorithm, FitResult, Options, fit, with_options
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.problem import Problem
from gmmedu.stopping import Stopping
from gmmedu.values import State, Statistics, each, take

if TYPE_CHECKING:
    from typing_extensions import Unpack


@with_options
def fit_model(
    model: GaussianMixture,
    x: Tensor | Iterable[Any],
    num_iterations: int = 10_000,
    mixture_lr: float | Tensor = 1e-3,
    component_lr: float | Tensor = 1e-2,
    *,
    tolerance: float | Stopping = 0.0,
    **options: Unpack[Options],
) -> FitResult:
    """Fit a mixture by gradient descent, from whatever state it is in.

    The steps are Adam's (eq-adam; Kingma and Ba 2015), on the exact gradient of the mean NLL,
    which is read from the statistics of one pass (eq-fisher-identity). Both learning rates fall
    along half a cosine to zero at ``num_iterations``. Call ``initialize`` first: the box that a
    new model starts in is for data of its own size.

    Args:
        model, x: as in ``fit_em``.
        num_iterations: the most iterations.
        mixture_lr: learning rate of the weights' logits. Slower than the other, so that no
            component loses its weight before its mean has found its points.
        component_lr: learning rate of means and covariances. A mean moves by about so many
            standard deviations of the data at a step, a scale by so much of its logarithm. Of a
            batch of models each may have its own rates, in tensors that broadcast with
            (*batch_shape).
        tolerance: as in ``fit_em``; 0 runs every iteration.

    Returns and raises as ``fit_em`` does.
    """
    start = partial(
        Adam,
        mixture_lr=_rates(mixture_lr, "mixture_lr", model),
        component_lr=_rates(component_lr, "component_lr", model),
    )
    return fit(model, x, num_iterations, tolerance, start, options)


def _rates(value: Any, name: str, model: GaussianMixture) -> list[float]:
    """The learning rate of all members, or that of each."""
    if not isinstance(value, Tensor) or not value.ndim:
        return [checks.check_number(value, name, inclusive=True)]
    shape = check_mixture(model).batch_shape
    rates = checks.check_floats(value, name, shape=str(shape)).detach()
    if not bool((rates.isfinite() & (rates >= 0)).all()):
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    try:
        return [float(rate) for rate in rates.expand(shape).flatten().tolist()]
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number, or broadcast with the batch {shape} of the model, got a "
            f"tensor of shape {tuple(value.shape)}"
        ) from None


@with_options
def fit_lbfgs(
    model: GaussianMixture,
    x: Tensor | Iterable[Any],
    num_iterations: int = 200,
    tolerance: float | Stopping = 1e-8,
    **options: Unpack[Options],
) -> FitResult:
    """Fit a mixture by L-BFGS, from whatever state it is in; best near an optimum, say after EM.

    An iteration is a line search along a direction that remembers the last ten gradients, and
    takes one pass over the data or a few. It has no learning rates, and what it minimizes never
    rises but where a mitigation moved a component. Where a search finds no lower point, or
    one below the floor of the scales, a step of EM, which knows the floor, takes its place. The
    members of a batch search one after the other.

    Arguments, result and errors are those of ``fit_em``, but for ``accelerate``. Source: Liu and
    Nocedal (1989).
    """
    return fit(model, x, num_iterations, tolerance, LBFGS, options)


def score(
    statistics: Statistics,
    family: Family,
    state: State,
    prior: ConjugatePrior | None = None,
    held: Sequence[bool] = FREE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the log likelihood (plus the log prior) in logits, means and ``raw_scale``.

    By Fisher's identity (eq-fisher-identity) it is that of EM's surrogate at the current
    parameters: N_k - N pi_k for the logits (eq-gradient-weights), L_k^{-T} sum_n r_nk y_nk for
    the means (eq-gradient-means), and as the family has it for the scales. What is held has none.
    """
    counts, operator = statistics.counts, family.operator
    slopes = (
        counts - counts.sum(-1, keepdim=True) * state.log_weights.exp(),
        operator.apply_transposed(state.scales.whitening, statistics.first),
        family.slope(statistics, state.scales, prior),
    )
    parts = (
        torch.zeros_like(slope) if fixed else slope
        for slope, fixed in zip(slopes, held, strict=True)
    )
    logits, means, raw_scale = parts
    return logits, means, raw_scale


class Adam(Algorithm):
    """Adam on the numbers of all members at once (eq-adam); its rates fall along half a cosine."""

    #: How much of the averages of slopes, and of their squares, a step keeps; what is added to the
    #: root of the latter. The values of Kingma and Ba.
    betas, least = (0.9, 0.999), 1e-8
    kept = ("numbers", "slope", "square", "begun")

    def __init__(
        self,
        problem: Problem,
        num_iterations: int,
        mixture_lr: list[float],
        component_lr: list[float],
    ) -> None:
        self.problem, self.num_iterations = problem, num_iterations
        self.numbers = problem.family.flatten(problem.start)
        self.slope, self.square = torch.zeros_like(self.numbers), torch.zeros_like(self.numbers)
        # After how many steps each number was last set by a mitigation.
        self.begun = torch.zeros_like(self.numbers, dtype=torch.float64)
        largest = torch.finfo(self.numbers.dtype).max
        count = problem.model.num_components
        # Rates of all members in one row, or a row for each.
        self.rates = self.numbers.new_zeros(
            max(len(mixture_lr), len(component_lr)), self.numbers.shape[1]
        )
        for part, rates in ((slice(count), mixture_lr), (slice(count, None), component_lr)):
            self.rates[:, part] = self.rates.new_tensor(rates).clamp_max(largest).unsqueeze(-1)

    def step(
        self, state: State, statistics: Statistics, iteration: int
    ) -> tuple[State, Statistics]:
        problem, family = self.problem, self.problem.family
        total = torch.from_numpy(problem.of(problem.total)).to(self.numbers).unsqueeze(-1)
        slope = -_flat_score(problem, statistics, state) / total
        self.slope.lerp_(slope, 1 - self.betas[0])
        self.square.mul_(self.betas[1]).addcmul_(slope, slope, value=1 - self.betas[1])
        # Both averages began at 0; so much of them is from steps.
        share, share_square = self._shares(iteration + 1)
        root = (self.square / share_square).sqrt_().add_(self.least)
        decay = (1 + math.cos(math.pi * iteration / self.num_iterations)) / 2
        rates = self.rates if len(self.rates) == 1 else self.rates[problem.members]
        self.numbers = self.numbers - self.slope / root * (decay / share) * rates
        following = family.unflatten(self.numbers, state)
        scales, singular = problem.clamp(following.scales)
        clamped = following._replace(scales=scales)
        state = problem.mitigate(state, clamped, singular, iteration + 1)
        rows = singular.any(-1, keepdim=True)
        if bool(rows.any()):
            now = family.flatten(state)
            # What the mitigation moved, and did not only raise, has no past.
            moved = now != family.flatten(clamped)
            self.begun = torch.where(moved, iteration + 1.0, self.begun)
            self.slope, self.square = (
                average.masked_fill(moved, 0.0) for average in (self.slope, self.square)
            )
            self.numbers = torch.where(rows, now, self.numbers)
        return state, problem.e_step(state)

    def _shares(self, num_steps: int) -> list[Any]:
        """How much of either average, which began at 0, is from steps: for all numbers, or each."""
        if not bool(self.begun.any()):
            return [1 - beta**num_steps for beta in self.betas]
        return [(1 - beta ** (num_steps - self.begun)).to(self.numbers) for beta in self.betas]


def _flat_score(problem: Problem, statistics: Statistics, state: State) -> Tensor:
    """``score`` as ``Family.flatten`` orders the numbers, (M, P)."""
    slopes = score(statistics, problem.family, state, problem.prior, problem.held)
    return torch.cat([slope.flatten(1) for slope in slopes], 1)


class LBFGS(Algorithm):
    """torch's L-BFGS, one search for each member."""

    kept = ("memory",)

    def __init__(self, problem: Problem, num_iterations: int) -> None:
        self.problem = problem
        self.searches = [
            Search(
                problem, take(problem.start, torch.tensor([m], device=problem.start.means.device))
            )
            for m in range(problem.num_members)
        ]

    @property
    def memory(self) -> list[dict[str, Any]]:
        """What each search remembers."""
        return [search.memory for search in self.searches]

    @memory.setter
    def memory(self, memory: list[dict[str, Any]]) -> None:
        self.searches = [Search(self.problem, its["start"]) for its in memory]
        for search, its in zip(self.searches, memory, strict=True):
            search.memory = its

    def step(
        self, state: State, statistics: Statistics, iteration: int
    ) -> tuple[State, Statistics]:
        states, sums = [], []
        for row, search in enumerate(self.searches):
            index = torch.tensor([row], device=state.means.device)
            mine = take(state, index), take(statistics, index)
            one = search.step(*mine, index)
            if one is None:
                one = self._safe(*mine, row, index, iteration)
            states.append(one[0])
            sums.append(one[1])
        return each(_joined, *states), each(_joined, *sums)

    def _safe(
        self, state: State, statistics: Statistics, row: int, index: Tensor, iteration: int
    ) -> tuple[State, Statistics]:
        """A step of EM in the place of one that led below the floor or nowhere; a new search."""
        state, _ = ascend(self.problem, state, statistics, iteration, index)
        self.searches[row] = self.searches[row].again(state)
        return state, self.problem.e_step(state, index)

    def keep(self, rows: Tensor) -> None:
        self.searches = [self.searches[row] for row in rows.tolist()]


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


class Search:
    """The unconstrained numbers of one member, (1, P), and torch's optimizer of them."""

    def __init__(self, problem: Problem, state: State) -> None:
        self.problem = problem
        self.numbers, self.start = problem.family.flatten(state), state
        self.optimizer = torch.optim.LBFGS(
            [self.numbers],
            max_iter=1,
            max_eval=25,
            history_size=10,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        self._seen: tuple[Tensor, State, Statistics] | None = None
        self._index: Tensor
        # A search in vain costs many passes: so many steps of EM before the next one, and after
        # another in vain. Beside an active floor all are in vain.
        self.pause, self.patience = 0, 0

    @property
    def memory(self) -> dict[str, Any]:
        """What it remembers."""
        names = ("start", "pause", "patience", "_seen")
        known = {name: getattr(self, name) for name in names}
        return {**known, "numbers": self.numbers, "optimizer": self.optimizer.state_dict()}

    @memory.setter
    def memory(self, memory: dict[str, Any]) -> None:
        memory = dict(memory)
        self.numbers.copy_(memory.pop("numbers"))
        self.optimizer.load_state_dict(memory.pop("optimizer"))
        for name, value in memory.items():
            setattr(self, name, value)

    def again(self, state: State) -> Search:
        """A search that starts afresh from a state, after the same pause."""
        other = Search(self.problem, state)
        other.pause, other.patience = self.pause, self.patience
        return other

    def step(
        self, state: State, statistics: Statistics, index: Tensor
    ) -> tuple[State, Statistics] | None:
        """The next state and its statistics; None where that is below the floor or the search
        finds none, as what it remembers may lead nowhere from a point that is no end, and during
        the pause after that."""
        if self.pause:
            self.pause -= 1
            return None
        found = self._search(state, statistics, index)
        if found is None:
            self.pause, self.patience = self.patience, max(1, 2 * self.patience)
        else:
            self.patience = 0
        return found

    def _search(
        self, state: State, statistics: Statistics, index: Tensor
    ) -> tuple[State, Statistics] | None:
        self._index = index
        if self._seen is None:
            self._seen = self.numbers.clone(), state, statistics
        before = self.numbers.clone()
        self.optimizer.step(self._loss)
        if torch.equal(self.numbers, before):
            return None
        state, statistics = self._look()
        if bool(self.problem.clamp(state.scales, rows=index)[1].any()):
            return None
        return state, statistics

    def _look(self) -> tuple[State, Statistics]:
        """The state and its statistics, counted once."""
        seen = self._seen
        if seen is None or not torch.equal(self.numbers, seen[0]):
            numbers = self.numbers.clone()
            state = self.problem.family.unflatten(numbers, self.start)
            seen = self._seen = numbers, state, self.problem.e_step(state, self._index)
        return seen[1], seen[2]

    def _loss(self) -> float:
        problem = self.problem
        state, statistics = self._look()
        objective = float(
            problem.nll(statistics, self._index)[0]
            + np.ravel(problem.penalty(state, self._index))[0]
        )
        slope = _flat_score(problem, statistics, state)
        finite = math.isfinite(objective) and bool(slope.isfinite().all())
        total = float(problem.of(problem.total, self._index)[0])
        # Where a step left the range of numbers, a wall without a slope sends it back.
        self.numbers.grad = -slope / total if finite else torch.zeros_like(slope)
        return objective if finite else 1e30

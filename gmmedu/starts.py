"""Several starts, the best kept: for one mixture, or for each of many sets of points."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.em import fit_em
from gmmedu.fitting import ConvergenceWarning, FitResult
from gmmedu.initialization import METHODS, initialize
from gmmedu.models import MODELS, GaussianMixture, check_mixture
from gmmedu.problem import check_part
from gmmedu.processes import processes_of
from gmmedu.singularities import Mitigation, SingularityError, SingularityWarning
from gmmedu.values import each

#: Numbers that the largest array of a batch of starts may hold; more starts go in turns.
_BATCH_NUMBERS = 2**24
#: ``Search`` ranks its starts after a fit to this tolerance, in nats per point,
COARSE = 1e-5
#: and fits so many of them to the end, each from where it was.
FINALISTS = 3


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
        fitter: ``fit_em``, ``fit_model`` or ``fit_lbfgs``; its arguments go in by keyword, but
            for ``checkpoint``: to save many fits, give it a batch of models.
        generator: a CPU generator, for the starts and for ``Reset``.

    Returns the record of the best fit, with ``starts``, the NLL of each, (num_starts,). Raises as
    ``fitter`` does, where every start failed.
    """
    check_mixture(model)
    if model.batch_shape:
        raise TypeError("fit_best fits one mixture; its starts are a batch already")
    if options.get("checkpoint") is not None:
        raise TypeError("fit_best takes no checkpoint; give its fitter a batch of models")
    group = options.get("group")
    processes = processes_of(group, model.means.device)

    def door() -> int:
        checks.check_count(num_starts, "num_starts")
        return _at_once(model, len(check_part(model, x, missing, processes)))

    size = min(num_starts, *processes.share(door))
    best: FitResult | None = None
    nlls: list[Tensor] = []
    for start in range(0, num_starts, size):
        many = _copies(model, min(size, num_starts - start))
        initialize(many, x, method, missing=missing, generator=generator, group=group)
        result = fitter(many, x, missing=missing, generator=generator, **options)
        nlls.append(result.nll)
        winner = int(result.nll.argmin())
        if best is None or float(result.nll[winner]) < best.nll:
            best = _member(result, winner)
            model.set_state(each(lambda part: part.detach(), many[winner].state()))
    assert best is not None
    return replace(best, starts=torch.cat(nlls))


def _at_once(model: GaussianMixture, num_points: int) -> int:
    """How many fits of a model to so many points memory lets go side by side."""
    return max(1, _BATCH_NUMBERS // (model.num_components * max(model.num_dims**2, num_points)))


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
        on_floor=bool(result.on_floor[member]),
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


@dataclass(frozen=True)
class Sets:
    """Sets of points, each to be fitted for itself: x (N, D), which all share, or (M, N, D);
    weights (M, N), or None."""

    x: Tensor
    weights: Tensor | None = None
    missing: bool = False

    def __len__(self) -> int:
        if self.weights is not None:
            return len(self.weights)
        return len(self.x) if self.x.ndim == 3 else 1

    def take(self, rows: Tensor) -> Sets:
        """The sets in some rows, (R,)."""
        x = self.x if self.x.ndim == 2 else self.x[rows]
        return replace(self, x=x, weights=None if self.weights is None else self.weights[rows])

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points and weights of the sets in some rows, as a batch of fits (R, S) takes them."""
        mine = self.take(rows)
        x = mine.x if mine.x.ndim == 2 else mine.x.unsqueeze(1)
        return x, None if mine.weights is None else mine.weights.unsqueeze(1)


@dataclass(frozen=True)
class Best:
    """The best fit of each of M sets: a batch of models (M,), NLL (M,), which is infinite where
    every start failed; whether a component ends on the floor, (M,), which it does only where that
    is so for every start; whether it converged, (M,); why starts failed, the first reason."""

    model: GaussianMixture
    nll: Tensor
    on_floor: Tensor
    converged: Tensor
    reason: str

    @property
    def regular(self) -> Tensor:
        """Whether the likelihood is that of the data alone, (M,)."""
        return self.nll.isfinite() & ~self.on_floor


@dataclass(frozen=True)
class Search:
    """How the best fit of a set is looked for: from ``num_starts`` starts by ``method``, and
    others that are handed in, all sets and starts in one batch; by EM with squared extrapolation,
    first coarsely, then to the end from the best few.
    """

    num_starts: int
    method: str
    mitigation: Mitigation | None
    num_iterations: int
    tolerance: float
    variance: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        checks.check_count(self.num_starts, "num_starts")
        checks.check_choice(self.method, "method", METHODS)
        checks.check_number(self.tolerance, "tolerance", inclusive=True)
        checks.check_generator(self.generator)

    def best(
        self, sets: Sets, family: str, num_components: int, more: GaussianMixture | None = None
    ) -> Best:
        """The best fit of each of M sets. more: further starts of each, a batch (M, P).

        A start that ends with a component on the floor comes after all that do not."""
        many = self._starts(sets, family, num_components, more)
        tolerance = max(self.tolerance, 4 * torch.finfo(sets.x.dtype).eps)
        nll, on_floor, converged, reason = self._fit(many, sets, max(tolerance, COARSE))
        none = torch.full_like(nll[:, 0], torch.inf)
        best = Best(many[:, 0], none, on_floor[:, 0].clone(), converged[:, 0].clone(), reason)
        for columns in _ranked(nll, on_floor).split(FINALISTS, 1):
            # All sets at first, then those whose finalists have all come to the floor.
            rows = (~best.regular).nonzero().flatten()
            if len(rows):
                self._finish(best, many, sets, rows, columns[rows], tolerance)
        return best

    @torch.no_grad()
    def _finish(
        self,
        best: Best,
        many: GaussianMixture,
        sets: Sets,
        rows: Tensor,
        columns: Tensor,
        tolerance: float,
    ) -> None:
        """Fit the starts in some columns of the sets in some rows to the end, and keep the best."""
        few = many[rows.unsqueeze(1), columns]
        nll, on_floor, converged, _ = self._fit(few, sets.take(rows), tolerance)
        first = _ranked(nll, on_floor)[:, :1]
        nll, on_floor, converged = (n.gather(1, first)[:, 0] for n in (nll, on_floor, converged))
        # What there is so far is on the floor, or nothing.
        own = (~on_floor & nll.isfinite() | (nll < best.nll[rows])).nonzero().flatten()
        if not len(own):
            return
        rows, winners = rows[own], few[own, first[own, 0]]
        best.nll[rows], best.on_floor[rows] = nll[own], on_floor[own]
        best.converged[rows] = converged[own]
        for mine, its in zip(best.model._numbers(), winners._numbers(), strict=True):
            mine[rows] = its

    def _starts(
        self, sets: Sets, family: str, num_components: int, more: GaussianMixture | None
    ) -> GaussianMixture:
        """The starts of all sets, in one batch (M, S)."""
        new = self._model(family, num_components, sets, (len(sets), self.num_starts))
        options: dict[str, Any] = {"missing": sets.missing, "generator": self.generator}
        if sets.weights is None:
            x, _ = sets.of(torch.arange(len(sets)))
            parts = [initialize(new, x, self.method, **options).state()]
        else:
            parts = []
            for weights in sets.weights:
                one = self._model(family, num_components, sets, (1, self.num_starts))
                initialize(one, sets.x[weights > 0], self.method, **options)
                parts.append(one.state())
        state = each(lambda *all_sets: torch.cat(all_sets), *parts)
        if more is not None:
            state = each(lambda *both: torch.cat(both, 1), state, more.state())
        many = self._model(family, num_components, sets, state.means.shape[:2])
        return many.set_state(state)

    def _model(
        self, family: str, num_components: int, sets: Sets, batch_shape: tuple[int, ...]
    ) -> GaussianMixture:
        x = sets.x
        options: dict[str, Any] = {"variance": self.variance} if family == "constant" else {}
        return MODELS[family](
            num_components,
            x.shape[-1],
            init_radius=0.0,
            batch_shape=batch_shape,
            device=x.device,
            dtype=x.dtype,
            **options,
        )

    @torch.no_grad()
    def _fit(
        self, many: GaussianMixture, sets: Sets, tolerance: float
    ) -> tuple[Tensor, Tensor, Tensor, str]:
        """Fit a batch (M, S) in place, in parts where memory asks for it. Returns NLL, whether on
        the floor, whether converged, (M, S) each, and why a fit failed."""
        num_sets, num_starts = many.batch_shape
        size = _at_once(many, sets.x.shape[-2])
        nll = torch.empty(num_sets, num_starts, dtype=torch.float64, device="cpu")
        on_floor, converged = (torch.empty_like(nll, dtype=torch.bool) for _ in range(2))
        reason = ""
        for rows in torch.arange(num_sets).split(max(1, size // num_starts)):
            for columns in torch.arange(num_starts).split(size):
                place = rows.unsqueeze(1), columns
                part = many[place]
                found, why = self._fit_part(part, sets, rows, tolerance)
                nll[place], on_floor[place], converged[place] = found
                for mine, its in zip(many._numbers(), part._numbers(), strict=True):
                    mine[place] = its
                reason = reason or why
        return nll, on_floor, converged, reason

    def _fit_part(
        self, part: GaussianMixture, sets: Sets, rows: Tensor, tolerance: float
    ) -> tuple[tuple[Tensor, Tensor, Tensor], str]:
        """``_fit`` of a part, the sets in some rows, at once."""
        x, weights = sets.of(rows)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", SingularityWarning)
                result = fit_em(
                    part,
                    x,
                    self.num_iterations,
                    tolerance,
                    accelerate="squarem",
                    mitigation=self.mitigation,
                    sample_weight=weights,
                    missing=sets.missing,
                    generator=self.generator,
                )
        except SingularityError as error:
            none = torch.zeros(part.batch_shape, dtype=torch.bool)
            return (torch.full(part.batch_shape, torch.inf).double(), none, none), str(error)
        reason = str(result.errors[0]) if result.errors else ""
        return (result.nll, result.on_floor, result.converged), reason


def _ranked(nll: Tensor, on_floor: Tensor) -> Tensor:
    """The starts of each set, the best first, those on the floor last: (M, S)."""
    order = nll.argsort(dim=-1, stable=True)
    low = on_floor.gather(1, order)
    return order.gather(1, low.byte().argsort(dim=-1, stable=True))


def split(model: GaussianMixture) -> GaussianMixture:
    """Of each of a batch (M,) of mixtures K + 1 new ones with K + 1 components, (M, K + 1): in the
    k-th component k is two, a standard deviation to either side along its longest axis; in the
    last component 0 is two in the same place, so that it has the likelihood of the old one."""
    count, device = model.num_components, model.means.device
    own = torch.arange(count, device=device)
    which = torch.cat([own, own[:1]])
    rows = torch.arange(count + 1, device=device)
    twice = torch.cat([own.expand(count + 1, count), which[:, None]], 1)
    weights, means, covariances = (
        numbers.detach()[:, twice] for numbers in (model.weights, model.means, model.covariances)
    )
    variances, axes = torch.linalg.eigh(model.covariances.detach())
    step = (variances[..., -1:].sqrt() * axes[..., -1])[:, which]
    step[:, -1] = 0
    means[:, rows, which] -= step
    means[..., -1, :] += step
    shares = torch.ones_like(weights)
    shares[:, rows, which], shares[..., -1] = 0.5, 0.5
    held = not model.family.trainable
    options: dict[str, Any] = {"variance": float(covariances.flatten()[0])} if held else {}
    new = type(model)(
        count + 1,
        model.num_dims,
        init_radius=0.0,
        batch_shape=weights.shape[:2],
        device=device,
        dtype=means.dtype,
        **options,
    )
    return new.set_parameters(shares * weights, means, covariances)

"""Several starts, the best kept: for one mixture, or for each of many sets of points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmmedu import checks, mixture
from gmmedu.em import fit_em
from gmmedu.fitting import ConvergenceWarning, FitResult, Snapshot
from gmmedu.initialization import METHODS, initialize
from gmmedu.models import MODELS, GaussianMixture, check_mixture
from gmmedu.problem import check_part
from gmmedu.processes import processes_of
from gmmedu.singularities import Mitigation, SingularityError, SingularityWarning
from gmmedu.values import each

#: Numbers that the largest array of a batch of starts may hold; more starts go in turns.
_BATCH_NUMBERS = 2**24
#: ``Search`` ranks its starts after a fit to this tolerance, in nats per point, and where a closer
#: one is asked for, after at most so many iterations;
COARSE = 1e-5
HEAT = 60
#: then it fits so many of them to the end, each from where it was.
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
    """Fit a mixture from several starts, all in one batch, and keep the one that ends at the lowest
    objective.

    Args:
        model: one mixture; it is changed in place. What it holds before plays no part, but what
            has ``requires_grad=False`` stays.
        x: data, (N, D).
        num_starts: how many starts.
        method: where each begins, as in ``initialize``.
        fitter: ``fit_em``, ``fit_model`` or ``fit_lbfgs``.
        missing: whether NaN in x is a value that was not observed.
        generator: a CPU generator, for the starts and for ``Reset``.
        options: further arguments of the fitter, by keyword, but for ``checkpoint``: to save many
            fits, give it a batch of models. A ``callback`` is told of such a batch, of as many
            starts as memory lets go side by side, and stops that; ``group`` is as in ``fit_em``.

    Returns the record of the best fit, with ``starts``, the NLL of each, (num_starts,). Raises as
    ``fitter`` does, where every start failed, and ``TypeError`` for a batch of models or a
    ``checkpoint``.
    """
    check_mixture(model)
    if model.batch_shape:
        raise TypeError("fit_best fits one mixture; its starts are a batch already")
    if options.get("checkpoint") is not None:
        raise TypeError("fit_best takes no checkpoint; give its fitter a batch of models")
    group = options.get("group")
    processes = processes_of(group, model.means.device)
    counted = x

    processes.same(lambda: {"num_starts": checks.check_count(num_starts, "num_starts")})

    def door() -> int:
        nonlocal counted
        counted = _counted(check_part(model, x, missing, processes), options, processes.size > 1)
        return _at_once(model, len(x))

    size = min(num_starts, *processes.share(door))
    best: FitResult | None = None
    failed: SingularityError | None = None
    nlls: list[Tensor] = []
    for start in range(0, num_starts, size):
        many = _copies(model, min(size, num_starts - start))
        initialize(many, counted, method, missing=missing, generator=generator, group=group)
        try:
            result = fitter(many, x, missing=missing, generator=generator, **options)
        except SingularityError as error:
            # That every start of this part failed says nothing of the next.
            failed = failed or error
            nlls.append(torch.full(many.batch_shape, torch.inf, dtype=torch.float64, device="cpu"))
            continue
        nlls.append(result.nll)
        winner = int(result.objective.argmin())
        if best is None or float(result.objective[winner]) < best.objective:
            best = _member(result, winner)
            model.set_state(each(lambda part: part.detach(), many[winner].state()))
    if best is None:
        assert failed is not None
        raise failed
    return replace(best, starts=torch.cat(nlls))


def _counted(x: Tensor, options: dict[str, Any], empty: bool) -> Tensor:
    """The points that weigh something: a start is among them."""
    weights = options.get("sample_weight")
    if weights is None:
        return x
    weights = checks.check_weights(weights, x.shape[:1], x.device, "sample_weight", empty=empty)
    return x[weights > 0]


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
        objective=float(result.objective[member]),
        history=result.history[:length, member],
        elapsed=result.elapsed[:length],
        passes_after=result.passes_after[:length, member],
        converged=bool(result.converged[member]),
        on_floor=bool(result.on_floor[member]),
        num_iterations=length - 1,
        passes=int(result.passes[member]),
        seconds=result.seconds,
        events=[replace(e, member=None) for e in result.events if e.member == member],
        snapshots=_snapshots(result.snapshots, member, length - 1),
        errors=[],
    )


def _snapshots(shared: list[Snapshot], member: int, last: int) -> list[Snapshot]:
    """Those of one fit of a batch. The first one at or after its last iteration shows its end."""
    before = [s for s in shared if s.iteration < last]
    end = next((s for s in shared if s.iteration >= last), None)
    if end is not None:
        before.append(replace(end, iteration=last))
    return [
        replace(
            s,
            nll=float(s.nll[member]),
            weights=s.weights[member],
            means=s.means[member],
            covariances=s.covariances[member],
        )
        for s in before
    ]


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


class Ends(NamedTuple):
    """How the fits of M sets from S starts ended, (M, S) each: NLL and objective, infinite where
    one failed; whether a component is on the floor; whether it converged."""

    nll: Tensor
    objective: Tensor
    on_floor: Tensor
    converged: Tensor

    @classmethod
    def failed(cls, shape: Sequence[int]) -> Ends:
        nll, objective = torch.full((2, *shape), torch.inf, dtype=torch.float64, device="cpu")
        on_floor, converged = torch.zeros((2, *shape), dtype=torch.bool, device="cpu")
        return cls(nll, objective, on_floor, converged)

    def ranked(self) -> Tensor:
        """The starts of each set, the best first, those on the floor last: (M, S)."""
        order = self.objective.argsort(dim=-1, stable=True)
        low = self.on_floor.gather(1, order)
        return order.gather(1, low.byte().argsort(dim=-1, stable=True))


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
        close = tolerance < COARSE
        heat = replace(self, num_iterations=min(HEAT, self.num_iterations)) if close else self
        ends, reason = heat._fit(many, sets, max(tolerance, COARSE))
        none = torch.full_like(ends.nll[:, 0], torch.inf)
        on_floor, converged = (part[:, 0].clone() for part in (ends.on_floor, ends.converged))
        best = Best(many[:, 0], none, on_floor, converged, reason)
        for columns in ends.ranked().split(FINALISTS, 1):
            # All sets at first, then those whose finalists have all come to the floor.
            rows = (~best.regular).nonzero().flatten()
            if len(rows):
                few = many[rows.unsqueeze(1), columns[rows]]
                if close:
                    own, _ = self._fit(few, sets.take(rows), tolerance)
                else:
                    own = Ends(*(part[rows].gather(1, columns[rows]) for part in ends))
                self._keep(best, few, own, rows)
        return best

    @staticmethod
    @torch.no_grad()
    def _keep(best: Best, few: GaussianMixture, ends: Ends, rows: Tensor) -> None:
        """Keep the best of a few fits to each of the sets in some rows."""
        first = ends.ranked()[:, :1]
        nll, _, on_floor, converged = (part.gather(1, first)[:, 0] for part in ends)
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
            x, _ = sets.of(torch.arange(len(sets), device="cpu"))
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
    def _fit(self, many: GaussianMixture, sets: Sets, tolerance: float) -> tuple[Ends, str]:
        """Fit a batch (M, S) in place, in parts where memory asks for it. Returns how the fits
        ended, and why one failed."""
        num_sets, num_starts = many.batch_shape
        size = _at_once(many, sets.x.shape[-2])
        if num_sets * num_starts <= size:
            return self._fit_part(many, sets, torch.arange(num_sets, device="cpu"), tolerance)
        ends, reason = Ends.failed((num_sets, num_starts)), ""
        for rows in torch.arange(num_sets, device="cpu").split(max(1, size // num_starts)):
            for columns in torch.arange(num_starts, device="cpu").split(size):
                place = rows.unsqueeze(1), columns
                part = many[place]
                found, why = self._fit_part(part, sets, rows, tolerance)
                for whole, own in zip(ends, found, strict=True):
                    whole[place] = own
                for mine, its in zip(many._numbers(), part._numbers(), strict=True):
                    mine[place] = its
                reason = reason or why
        return ends, reason

    def _fit_part(
        self, part: GaussianMixture, sets: Sets, rows: Tensor, tolerance: float
    ) -> tuple[Ends, str]:
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
            return Ends.failed(part.batch_shape), str(error)
        reason = str(result.errors[0]) if result.errors else ""
        return Ends(result.nll, result.objective, result.on_floor, result.converged), reason


def split(model: GaussianMixture) -> GaussianMixture:
    """Of each of a batch (M,) of mixtures K + 1 new ones with K + 1 components, (M, K + 1): in the
    k-th component k is two, a standard deviation to either side along its longest axis; in the
    last component 0 is two in the same place, so that it has the likelihood of the old one."""
    count, device = model.num_components, model.means.device
    own = torch.arange(count, device=device)
    which = torch.cat([own, own[:1]])
    rows = torch.arange(count + 1, device=device)
    twice = torch.cat([own.expand(count + 1, count), which[:, None]], 1)
    own = mixture.wide_covariances(model.family, model.state())
    weights, means, covariances = (
        numbers.detach().double()[:, twice] for numbers in (model.weights, model.means, own)
    )
    variances, axes = torch.linalg.eigh(own.detach())
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
        dtype=model.means.dtype,
        **options,
    )
    return new.set_parameters(shares * weights, means, covariances)

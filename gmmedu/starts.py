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
from gmmedu.values import absent, each

#: Numbers that the largest array of a batch of starts may hold; more starts go in turns.
_BATCH_NUMBERS = 2**24
#: ``Search`` ranks its starts after a fit to this tolerance, in nats per point, and where a closer
#: one is asked for, after at most so many iterations;
COARSE = 1e-5
HEAT = 60
#: then it fits so many of them to the end, each from where it was.
FINALISTS = 3
#: A fit that gains so much, in nats per point, since it was split is split again.
GAIN = 1e-3
#: Fits with different numbers of components go side by side while a pass over all of them is of at
#: most so many residuals, N x K x D for each.
SHORT = 2**19


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


class Fits(NamedTuple):
    """Fits of M sets with one number of components, from S starts each: a batch of models (M, S),
    how they ended, and why one failed."""

    model: GaussianMixture
    ends: Ends
    reason: str

    def take(self, rows: Tensor, columns: Tensor) -> Fits:
        """Of the sets in some rows, (R,), those in some columns, (R, C)."""
        place = rows.unsqueeze(1), columns
        return Fits(self.model[place], Ends(*(part[place] for part in self.ends)), self.reason)

    def beside(self, other: Fits) -> Fits:
        """Fits of the same sets with as many components, from these starts and others."""
        size = self.ends.nll.shape[1] + other.ends.nll.shape[1]
        many = self.model._like(self.model.num_dims, (len(self.ends.nll), size))
        pairs = zip(self.model._numbers(), other.model._numbers(), strict=True)
        for mine, both in zip(many._numbers(), pairs, strict=True):
            mine.detach().copy_(torch.cat(both, 1))
        ends = each(lambda *parts: torch.cat(parts, 1), self.ends, other.ends)
        return Fits(many, ends, self.reason or other.reason)

    def best(self) -> Best:
        """The best of each set."""
        rows, first = torch.arange(len(self.ends.nll), device="cpu"), self.ends.ranked()[:, 0]
        nll, _, on_floor, converged = (part[rows, first] for part in self.ends)
        return Best(self.model[rows, first], nll, on_floor, converged, self.reason)


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

    @property
    def regular_nll(self) -> Tensor:
        """The NLL where it is that of the data alone, else infinity, (M,)."""
        return self.nll.where(self.regular, torch.inf)

    @torch.no_grad()
    def improve(self, other: Best, rows: Tensor) -> None:
        """Take over what is better among other fits of the sets in some rows, (R,)."""
        mine, its = self.regular[rows], other.regular
        lower = other.nll < self.nll[rows]
        own = (its & ~mine | lower & (its == mine)).nonzero().flatten()
        if not len(own):
            return
        place = rows[own]
        self.nll[place], self.on_floor[place] = other.nll[own], other.on_floor[own]
        self.converged[place] = other.converged[own]
        for number, new in zip(self.model._numbers(), other.model._numbers(), strict=True):
            number[place] = new[own]


@dataclass(frozen=True)
class Search:
    """How the best fits of sets are looked for: from ``num_starts`` starts by ``method``, and
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
        return self._best(sets, [self._starts(sets, family, num_components, more)])[0]

    def grid(self, sets: Sets, family: str, counts: Sequence[int]) -> list[Best]:
        """``best`` with each of several numbers of components, ascending. Where there is a fit
        with one component less, its components split in turn are further starts, and again where
        that fit has become better since."""
        if self._counts_weights_alone:
            return self._best(sets, [self._starts(sets, family, count, None) for count in counts])
        found: list[Best] = []
        for count in counts:
            less = bool(found) and found[-1].model.num_components == count - 1
            more = split(found[-1].model) if less else None
            found.append(self.best(sets, family, count, more))
        return found

    @property
    def _counts_weights_alone(self) -> bool:
        """Whether a component without weight plays no part, in the mitigation either."""
        mine = self.mitigation
        if not isinstance(mine, Mitigation):
            return mine is None  # what is wrong is for the fit to say
        return not mine.moves and type(mine).prior is Mitigation.prior

    def _best(self, sets: Sets, starts: list[GaussianMixture]) -> list[Best]:
        """The best fit of each set from starts (M, S) of each of several numbers of components."""
        looked = self._look(starts, sets)
        every = torch.arange(len(sets), device="cpu")
        less = [fits.best() for fits in looked]
        split_at = [best.regular_nll for best in less]
        places = _next(less)
        for place, others in zip(places, self._look_beyond(less, places, sets), strict=True):
            looked[place] = looked[place].beside(others)
        found = self._finish(looked, sets)
        while places := [
            place for place in _next(found) if _gained(split_at[place - 1], found[place - 1])
        ]:
            new = self._look_beyond(found, places, sets)
            for place in places:
                split_at[place - 1] = found[place - 1].regular_nll
            for place, best in zip(places, self._finish(new, sets), strict=True):
                found[place].improve(best, every)
        for best, all_of_it in zip(found, looked, strict=True):
            self._regular(best, all_of_it, sets)
        for place in _next(found):
            self._not_worse(found[place], found[place - 1], sets)
        return found

    def _least(self, sets: Sets) -> float:
        return max(self.tolerance, 4 * torch.finfo(sets.x.dtype).eps)

    def _look(self, starts: list[GaussianMixture], sets: Sets) -> list[Fits]:
        """Coarse fits, which rank the starts."""
        least = self._least(sets)
        if least >= COARSE:
            return self._fit_all(starts, sets, least)
        heat = replace(self, num_iterations=min(HEAT, self.num_iterations))
        return heat._fit_all(starts, sets, COARSE)

    def _look_beyond(self, found: list[Best], places: list[int], sets: Sets) -> list[Fits]:
        """Coarse fits with the numbers of components in some places, from the fits before them,
        split."""
        return self._look([split(found[place - 1].model) for place in places], sets)

    def _finish(self, looked: list[Fits], sets: Sets) -> list[Best]:
        """The best of each once its finalists are fitted to the end."""
        every = torch.arange(len(sets), device="cpu")
        few = [fits.take(every, fits.ends.ranked()[:, :FINALISTS]) for fits in looked]
        return [fits.best() for fits in self._to_the_end(few, sets)]

    def _to_the_end(self, few: list[Fits], sets: Sets) -> list[Fits]:
        if self._least(sets) >= COARSE:
            return few
        return self._fit_all([fits.model for fits in few], sets, self._least(sets))

    def _regular(self, best: Best, looked: Fits, sets: Sets) -> None:
        """Go on through the starts of those sets whose finalists have all come to the floor."""
        for columns in looked.ends.ranked().split(FINALISTS, 1)[1:]:
            rows = (~best.regular).nonzero().flatten()
            if not len(rows):
                return
            (few,) = self._to_the_end([looked.take(rows, columns[rows])], sets.take(rows))
            best.improve(few.best(), rows)

    def _not_worse(self, best: Best, less: Best, sets: Sets) -> None:
        """See that no fit is worse than that with one component less."""
        worse = ~best.regular | (best.nll > less.nll)
        rows = (less.regular & worse).nonzero().flatten()
        if len(rows):
            starts = split(less.model[rows])
            (few,) = self._fit_all([starts], sets.take(rows), self._least(sets))
            best.improve(few.best(), rows)

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

    def _fit_all(self, models: list[GaussianMixture], sets: Sets, tolerance: float) -> list[Fits]:
        """Fit batches (M, S) in place, each with its own number of components, and all at once
        where a pass over all is short."""
        sizes = [model.batch_shape[1] for model in models]
        largest = max((model.num_components for model in models), default=0)
        numbers = len(sets) * sum(sizes) * largest * sets.x.shape[-2] * sets.x.shape[-1]
        if len(models) < 2 or numbers > SHORT:
            return [self._fits(model, sets, tolerance) for model in models]
        family = models[0].family.name
        whole = self._model(family, largest, sets, (len(sets), sum(sizes)))
        blank = self._blank(sets, family)
        parts = torch.arange(sum(sizes), device="cpu").split(sizes)
        with torch.no_grad():
            for model, own in zip(models, parts, strict=True):
                triples = zip(whole._numbers(), model._numbers(), blank._numbers(), strict=True)
                for all_of_it, its, nothing in triples:
                    all_of_it[:, own, : its.shape[2]] = its
                    all_of_it[:, own, its.shape[2] :] = nothing
        ends, reasons = self._fit(whole, sets, tolerance)
        if not bool(ends.nll.isfinite().any()):
            # One error stands for all: of each alone there is its own.
            return [self._fits(model, sets, tolerance) for model in models]
        found = []
        with torch.no_grad():
            for model, own in zip(models, parts, strict=True):
                for its, all_of_it in zip(model._numbers(), whole._numbers(), strict=True):
                    its.copy_(all_of_it[:, own, : its.shape[2]])
                reason = next((reasons[c] for c in own.tolist() if c in reasons), "")
                found.append(Fits(model, Ends(*(part[:, own] for part in ends)), reason))
        return found

    def _blank(self, sets: Sets, family: str) -> GaussianMixture:
        """A component of no weight, wider than the points, (1, 1)."""
        x = sets.x if sets.weights is None else sets.x[(sets.weights > 0).any(0)]
        wide, number = x.reshape(-1, x.shape[-1]).double(), torch.finfo(x.dtype)
        mean = wide.nanmean(0)
        variance = 1e4 * (wide - mean).square().nanmean(0)
        variance = torch.where(variance > 0, variance, 1.0).clamp(
            1e3 * number.tiny, 1e-3 * number.max
        )
        one = self._model(family, 1, sets, (1, 1))
        if family != "constant":
            one.set_parameters(
                None,
                mean.to(x).expand(1, 1, 1, -1),
                torch.diag(variance.to(x)).expand(1, 1, 1, -1, -1),
            )
        one.logits.detach().fill_(absent(x.dtype))
        return one

    def _fits(self, many: GaussianMixture, sets: Sets, tolerance: float) -> Fits:
        ends, reasons = self._fit(many, sets, tolerance)
        return Fits(many, ends, next(iter(reasons.values()), ""))

    @torch.no_grad()
    def _fit(
        self, many: GaussianMixture, sets: Sets, tolerance: float
    ) -> tuple[Ends, dict[int, str]]:
        """Fit a batch (M, S) in place, in parts where memory asks for it. Returns how the fits
        ended, and why one failed, by its column."""
        num_sets, num_starts = many.batch_shape
        size = _at_once(many, sets.x.shape[-2])
        if num_sets * num_starts <= size:
            return self._fit_part(many, sets, torch.arange(num_sets, device="cpu"), tolerance)
        ends = Ends.failed((num_sets, num_starts))
        reasons: dict[int, str] = {}
        for rows in torch.arange(num_sets, device="cpu").split(max(1, size // num_starts)):
            for columns in torch.arange(num_starts, device="cpu").split(size):
                place = rows.unsqueeze(1), columns
                part = many[place]
                found, why = self._fit_part(part, sets, rows, tolerance)
                for whole, own in zip(ends, found, strict=True):
                    whole[place] = own
                for mine, its in zip(many._numbers(), part._numbers(), strict=True):
                    mine[place] = its
                reasons = {int(columns[c]): text for c, text in why.items()} | reasons
        return ends, reasons

    def _fit_part(
        self, part: GaussianMixture, sets: Sets, rows: Tensor, tolerance: float
    ) -> tuple[Ends, dict[int, str]]:
        """``_fit`` of a part, the sets in some rows, at once."""
        x, weights = sets.of(rows)
        num_starts = part.batch_shape[1]
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
            return Ends.failed(part.batch_shape), dict.fromkeys(range(num_starts), str(error))
        reasons = {(e.member or 0) % num_starts: str(e) for e in reversed(result.errors)}
        ends = Ends(result.nll, result.objective, result.on_floor, result.converged)
        return ends, reasons


def _next(several: Sequence[Best]) -> list[int]:
    """The places of those with one component more than the one before."""
    counts = [one.model.num_components for one in several]
    return [place for place in range(1, len(counts)) if counts[place] == counts[place - 1] + 1]


def _gained(before: Tensor, best: Best) -> bool:
    """Whether the fit of some set has become better by much since it was split."""
    return bool((best.regular & (before - best.nll > GAIN)).any())


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

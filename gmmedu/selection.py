"""How many components, and which family (chapter 09): criteria, cross-validation, and a test.

All starts of a family, whatever their number of components, the folds of a cross-validation and
the samples of a bootstrap are members of one batch of fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.models import MODELS, GaussianMixture
from gmmedu.singularities import DEFAULT_MITIGATION, Mitigation, Prior, SingularityError
from gmmedu.starts import Best, Search, Sets, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRITERIA = ("aic", "bic", "icl", "held_out")


@dataclass(frozen=True)
class Row:
    """A cell of the grid in numbers; criteria are better when they are lower.

    family, num_components; num_free_parameters: p; log_likelihood: of all points, in nats; aic,
    bic, icl: as ``GaussianMixture`` has them; held_out: mean NLL of points that were left out, in
    nats, and held_out_error, its standard error over points, where folds were asked for; regular:
    whether the cell may be chosen; note: what went wrong, if anything did. NaN stands for what
    there is not.
    """

    family: str
    num_components: int
    num_free_parameters: int
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    held_out: float
    held_out_error: float
    regular: bool
    note: str


class Table(tuple[Row, ...]):
    """The rows of a selection. It prints as a table; ``pandas.DataFrame(table)`` is a frame."""

    def __repr__(self) -> str:
        lines = self._cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = {0, len(widths) - 1}
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place in left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _cells(self) -> list[list[str]]:
        scored = any(not math.isnan(row.held_out) for row in self)
        names = ["family", "K", "p", "log_lik", "aic", "bic", "icl"]
        lines = [[*names, *["held_out"] * scored, "note"]]
        for row in self:
            numbers = (row.log_likelihood, row.aic, row.bic, row.icl)
            shape = (row.family, str(row.num_components), str(row.num_free_parameters))
            score = [f"{row.held_out:.4f}"] * scored
            lines.append([*shape, *(f"{number:.2f}" for number in numbers), *score, row.note])
        return lines


@dataclass(frozen=True, repr=False)
class Selection:
    """What ``select`` found: ``table``, a row for each cell; ``models``, the best fit of each cell
    that has one, by (family, num_components); ``criterion``, by which ``best`` is chosen."""

    table: Table
    models: dict[tuple[str, int], GaussianMixture]
    criterion: str

    def __repr__(self) -> str:
        regular = sum(row.regular for row in self.table)
        text = f"{regular} of {len(self.table)} cells regular"
        if regular:
            row = self.best_row
            value = f"{self.criterion} {getattr(row, self.criterion):.6g}"
            text = f"best: {row.family}, num_components={row.num_components}, {value}; {text}"
        return f"Selection({text})"

    @property
    def best_row(self) -> Row:
        """The regular row of the lowest criterion; ``ValueError`` where no row is regular."""
        regular = [row for row in self.table if row.regular]
        if not regular:
            raise ValueError(
                "no cell has a regular fit; the notes in .table say why. Select among fewer "
                "components, or with mitigation=Prior()"
            )
        return min(regular, key=lambda row: float(getattr(row, self.criterion)))

    @property
    def best(self) -> GaussianMixture:
        """The model of the best row."""
        row = self.best_row
        return self.models[row.family, row.num_components]

    def values(self, criterion: str | None = None) -> dict[str, dict[int, float]]:
        """A criterion (or "log_likelihood") by family and number of components; this selection's
        own unless named, and NaN where a cell is not regular."""
        name = self.criterion if criterion is None else criterion
        checks.check_choice(name, "criterion", (*CRITERIA, "log_likelihood"))
        found: dict[str, dict[int, float]] = {}
        for row in self.table:
            value = float(getattr(row, name)) if row.regular else math.nan
            found.setdefault(row.family, {})[row.num_components] = value
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the criterion against K, a line for each family, and mark the best."""
        from gmmedu import plot

        row = self.best_row
        return plot.criterion_curves(
            self.values(), self.criterion, best=(row.family, row.num_components), ax=ax
        )


def select(
    x: Tensor,
    num_components: Iterable[int] | int = range(1, 10),
    families: Iterable[str] | str = ("full", "tied", "diagonal", "isotropic", "shared_isotropic"),
    criterion: str = "bic",
    *,
    num_starts: int = 10,
    num_folds: int = 5,
    method: str = "kmeans++",
    mitigation: Mitigation | None = DEFAULT_MITIGATION,
    sample_weight: Tensor | None = None,
    missing: bool = False,
    variance: float = 1.0,
    num_iterations: int = 1000,
    tolerance: float = 1e-8,
    progress: bool = False,
    generator: torch.Generator | None = None,
) -> Selection:
    """Fit every family with every number of components, and choose by a criterion.

    Args:
        x: data, (N, D); the models have its device and its dtype, float32 where that is narrower.
        num_components: the values of K.
        families: names of families, as in ``MODELS``.
        criterion: "aic" (eq-aic), "bic" (eq-bic), "icl" (eq-icl), or "held_out", the mean NLL of
            each fold's points under the fit to the other folds (eq-cross-validation).
        num_starts: of each cell, by ``method``, as in ``initialize``. Where the family has just
            been fitted with one component less there are more, in each of which one component of
            that fit is two; so the likelihood does not fall from K to K + 1.
        num_folds: of the cross-validation: at random, and equally large to one point.
        mitigation, sample_weight, missing, num_iterations: as in ``fit_em``.
        tolerance: stop when the objective changes by less, in nats; at least four roundings.
        variance: of the constant family, in squared units of the data.
        progress: show a progress bar, of cells; those of a family may be done together.
        generator: a CPU generator, for starts and folds.

    A start that ends with a component on the floor of the mitigation is set aside, as its NLL is
    what the floor makes it. Where every start of a cell does, or fails, the row says so and cannot
    be chosen. Raises ``ValueError`` or ``TypeError`` for bad input.
    """
    counts, names = _grid(num_components, families)
    checks.check_choice(criterion, "criterion", CRITERIA)
    checks.check_flag(progress, "progress")
    x = _checked(x, counts[-1], missing)
    if sample_weight is not None:
        sample_weight = checks.check_weights(sample_weight, x.shape[:1], x.device, "sample_weight")
    search = Search(num_starts, method, mitigation, num_iterations, tolerance, variance, generator)
    fold = _folds(x, num_folds, counts[-1], generator) if criterion == "held_out" else None
    sets = Sets(x, _fold_weights(sample_weight, fold), missing)
    rows, models = [], {}
    for family, fits, gained in _fitted(sets, names, counts, search, progress):
        row = _row(family, fits, gained, sets, sample_weight, fold)
        rows.append(row)
        if bool(fits.nll[0].isfinite()):
            models[family, row.num_components] = fits.model[0]
    return Selection(Table(rows), models, criterion)


def _checked(x: Any, minimum: int, missing: bool) -> Tensor:
    """Points in a dtype that a model may have."""
    x = checks.check_points(x, minimum=minimum, missing=missing).detach()
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _grid(num_components: Any, families: Any) -> tuple[list[int], list[str]]:
    """The values of K, ascending, and the families, each once."""
    counts = _several(num_components)
    names = _several(families)
    if not counts or not names:
        empty = "families" if counts else "num_components"
        raise ValueError(f"{empty} must name at least one, got none")
    counts = sorted({checks.check_count(count, "num_components") for count in counts})
    return counts, list(dict.fromkeys(checks.check_choice(n, "families", MODELS) for n in names))


def _several(value: Any) -> list[Any]:
    """One value, or each of many."""
    scalar = isinstance(value, str) or getattr(value, "shape", None) == ()
    return [value] if scalar or not isinstance(value, Iterable) else list(value)


def _folds(x: Tensor, num_folds: int, largest: int, generator: torch.Generator | None) -> Tensor:
    """The fold of each point of x (N, D), (N,)."""
    num_points = len(x)
    num_folds = checks.check_count(num_folds, "num_folds", minimum=2)
    most = num_points - math.ceil(num_points / num_folds)
    if num_folds > num_points or most < largest:
        raise ValueError(
            f"num_folds={num_folds} leaves {max(most, 0)} of {num_points} points to fit "
            f"{largest} components to; use fewer components, or more folds of at least a point"
        )
    order = torch.randperm(num_points, generator=generator, device="cpu")
    return (order.argsort() % num_folds).to(x.device)


def _fold_weights(sample_weight: Tensor | None, fold: Tensor | None) -> Tensor | None:
    """Weights of all points, then of those outside each fold: (1 + F, N); None for all alike."""
    if fold is None:
        return None if sample_weight is None else sample_weight.unsqueeze(0)
    outside = fold != torch.arange(-1, int(fold.max()) + 1, device=fold.device).unsqueeze(1)
    if sample_weight is None:
        return outside.double()
    return outside.to(sample_weight) * sample_weight


def _fitted(
    sets: Sets, families: list[str], counts: list[int], search: Search, progress: bool
) -> Iterable[tuple[str, Best, float]]:
    """The best fits of each cell, to all points and without each fold, and by how much the first
    has a lower NLL than that with a component less, where there is one."""
    from tqdm.auto import tqdm

    with tqdm(total=len(families) * len(counts), unit="cell", disable=not progress) as bar:
        for family in families:
            last: Best | None = None
            for fits in search.grid(sets, family, counts):
                count, gained = fits.model.num_components, math.inf
                # A prior moves with K, and the likelihood may fall.
                if last is not None and last.model.num_components == count - 1:
                    if not isinstance(search.mitigation, Prior):
                        gained = float(last.nll[0] - fits.nll[0])
                last = fits
                yield family, fits, gained
                bar.update()


def _row(
    family: str,
    fits: Best,
    gained: float,
    sets: Sets,
    sample_weight: Tensor | None,
    fold: Tensor | None,
) -> Row:
    """The row of a cell."""
    model = fits.model[0]
    options: dict[str, Any] = {"sample_weight": sample_weight, "missing": sets.missing}
    regular, note = bool(fits.regular[0]), _note(fits)
    if not note and gained < 1e-9:
        note = "no regular fit is better than with a component less"
    aic, bic, icl = (math.nan,) * 3
    if bool(fits.nll[0].isfinite()):
        aic, bic, icl = (float(c(sets.x, **options)) for c in (model.aic, model.bic, model.icl))
    mean, error = math.nan, math.nan
    if fold is not None:
        regular = bool(fits.regular.all())
        mean, error = _held_out(fits, sets, sample_weight, fold)
    parameters = model.num_free_parameters
    log_likelihood = parameters - aic / 2
    return Row(
        family, model.num_components, parameters, log_likelihood, aic, bic, icl, mean, error,
        regular, note,
    )  # fmt: skip


def _note(fits: Best) -> str:
    """What is to be said of the fits of a cell, the first to all points, the others to folds."""
    named = ["", *(f"fold {fold}: " for fold in range(len(fits.nll) - 1))]
    for which, (name, nll) in enumerate(zip(named, fits.nll.tolist(), strict=True)):
        if math.isinf(nll):
            return f"{name}every start failed: {fits.reason.split(':')[0]}"
        if bool(fits.on_floor[which]):
            return f"{name}singular: every start ends on the floor"
        if not bool(fits.converged[which]):
            return f"{name}not converged"
    return ""


@torch.no_grad()
def _held_out(
    fits: Best, sets: Sets, sample_weight: Tensor | None, fold: Tensor
) -> tuple[float, float]:
    """Mean NLL of each point under the fit that has not seen it, and its standard error; NaN where
    a fold has no fit."""
    if not bool(fits.nll.isfinite().all()):
        return math.nan, math.nan
    others = fits.model[1:]
    log_prob = others.log_prob(sets.x, missing=sets.missing).detach().double()
    nll = -log_prob.gather(0, fold.unsqueeze(0)).squeeze(0)
    weights = torch.ones_like(nll) if sample_weight is None else sample_weight
    total = weights.sum()
    mean = (weights * nll).sum() / total
    variance = (weights * (nll - mean).square()).sum() / total
    return float(mean), float((variance / total).sqrt())


@dataclass(frozen=True, repr=False)
class LikelihoodRatioTest:
    """Of K components against K + 1. statistic: 2 (log L_1 - log L_0); samples: the same of each
    bootstrap sample, (B,), NaN where a fit was singular; p_value: the share of samples, the data
    themselves counted in, whose statistic is not smaller; null and alternative: the two fits."""

    statistic: float
    p_value: float
    samples: Tensor
    null: GaussianMixture
    alternative: GaussianMixture

    def __repr__(self) -> str:
        count = self.null.num_components
        return (
            f"LikelihoodRatioTest({count} against {count + 1} components: "
            f"statistic={self.statistic:.4f}, p_value={self.p_value:.4g}, "
            f"{len(self.samples)} samples)"
        )


def bootstrap_lrt(
    x: Tensor,
    family: str = "full",
    num_components: int = 1,
    num_samples: int = 99,
    *,
    num_starts: int = 5,
    method: str = "kmeans++",
    mitigation: Mitigation | None = DEFAULT_MITIGATION,
    missing: bool = False,
    variance: float = 1.0,
    num_iterations: int = 1000,
    tolerance: float = 1e-8,
    generator: torch.Generator | None = None,
) -> LikelihoodRatioTest:
    """Test K components against K + 1 by the parametric bootstrap (eq-bootstrap-p-value).

    Samples of the size of the data are drawn from the fit with K components, and both numbers are
    fitted to each of them, all in one batch (McLachlan 1987).

    Args:
        x: data, (N, D).
        family: name of the family, as in ``MODELS``.
        num_components: K, of the null hypothesis.
        num_samples: B; the smallest p-value is 1 / (B + 1).
        num_starts, method, mitigation, missing, variance, num_iterations, tolerance: as in
            ``select``. The fit with K + 1 components starts also from the other's, each component
            split in turn, and the fit with K to a sample also from the truth.
        generator: a CPU generator, for starts and samples.

    Missing values are missing in the samples too. Raises ``ValueError`` or ``TypeError`` for bad
    input, ``SingularityError`` where the data themselves have no regular fit.
    """
    checks.check_choice(family, "family", MODELS)
    num_components = checks.check_count(num_components, "num_components")
    num_samples = checks.check_count(num_samples, "num_samples")
    x = _checked(x, num_components + 1, missing)
    search = Search(num_starts, method, mitigation, num_iterations, tolerance, variance, generator)
    null, alternative, statistic = _ratio(search, Sets(x, None, missing), family, num_components)
    for fits in (null, alternative):
        if not bool(fits.regular[0]):
            raise SingularityError(
                f"x has no regular fit of {fits.model.num_components} {family} components: "
                f"{_note(fits)}. Use fewer components, or mitigation=Prior().",
                None,
                0,
            )
    truth = null.model[0]
    drawn = truth.sample((num_samples, len(x)), generator=generator)
    drawn = torch.where(x.isnan(), x, drawn)
    again = null.model[torch.zeros(num_samples, 1, dtype=torch.long, device="cpu")]
    _, _, samples = _ratio(search, Sets(drawn, None, missing), family, num_components, again)
    # A sample that has no regular fit speaks for no hypothesis: it counts against the second.
    p_value = (1 + int((~(samples < statistic)).sum())) / (1 + num_samples)
    return LikelihoodRatioTest(float(statistic), p_value, samples, truth, alternative.model[0])


def _ratio(
    search: Search,
    sets: Sets,
    family: str,
    num_components: int,
    truth: GaussianMixture | None = None,
) -> tuple[Best, Best, Tensor]:
    """The fits of K and of K + 1 components to each set, and twice the log of the ratio of their
    likelihoods, (M,)."""
    null = search.best(sets, family, num_components, truth)
    alternative = search.best(sets, family, num_components + 1, split(null.model))
    gain = 2 * sets.x.shape[-2] * (null.nll - alternative.nll)
    return null, alternative, torch.where(null.regular & alternative.regular, gain, torch.nan)

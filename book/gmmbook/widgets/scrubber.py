"""One or two fits, iteration by iteration: where the components are, and how far the NLL came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook.widgets.base import Interactive, down_to
from gmmedu import checks, plot
from gmmedu.fitting import FitResult

#: Points that a page draws at most.
_MOST_POINTS = 1_000
#: NLLs that are kept for each snapshot that is.
_HISTORY = 4
_CURVES = ((plot.PALETTE[6], "-", "o"), (plot.PALETTE[3], "--", "s"))


class FitScrubber(Interactive):
    """Play one fit, or two side by side, through their snapshots.

    Above, the points and the 50 % and 95 % ellipses of the components (eq-ellipse-mass) at the last
    snapshot at or before the moment; below, how far the NLL (eq-gmm-nll) of each fit is above the
    lowest that either reached.

    fits: a ``FitResult`` of a two-dimensional model, fitted with ``snapshot_every=``, or one or two
    of them in a mapping (its keys are the labels) or a sequence; x: the points, (N, 2), of which at
    most 1000 are drawn; labels: names of the fits; max_snapshots: how many of each are kept, the
    first and the last among them, evenly in the logarithm of the iteration; axis_labels: names of
    the coordinates. Numbers are kept to six significant digits (of the spread of x, for points and
    means); the last NLL of a fit is exact.

    iteration: from 0 to the last of the longer fit; seconds: since iteration 0, to the last of the
    slower fit; against: "iterations" or "seconds", which of the two is the moment. values: of each
    of ``fits`` the iteration, seconds, nll, weights (K,), means (K, 2) and sds (K, 2), along the
    principal axes, the longer first; and ``difference``, the second NLL less the first. By torch.

    Raises ``TypeError`` or ``ValueError`` for fits, points or labels that are none, and
    ``traitlets.TraitError`` for a moment outside the fits.
    """

    fits: Any = traitlets.List().tag(sync=True)
    points: Any = traitlets.List().tag(sync=True)
    lowest = traitlets.Float().tag(sync=True)
    limits: Any = traitlets.List().tag(sync=True)
    axis_labels = traitlets.List(traitlets.Unicode(), minlen=2, maxlen=2).tag(sync=True)
    drawn = traitlets.Unicode().tag(sync=True)
    iteration = traitlets.Int(0).tag(sync=True)
    seconds = traitlets.CFloat(0.0).tag(sync=True)
    against = traitlets.Enum(("iterations", "seconds"), "iterations").tag(sync=True)
    state = ("against", "iteration", "seconds")

    def __init__(
        self,
        fits: FitResult | Mapping[str, FitResult] | Sequence[FitResult],
        x: Tensor,
        *,
        labels: Sequence[str] | None = None,
        max_snapshots: int = 60,
        axis_labels: tuple[str, str] = ("x\u2081", "x\u2082"),
        against: str = "iterations",
        iteration: int = 0,
        seconds: float = 0.0,
        name: str = "scrubber",
    ) -> None:
        named = _named(fits, labels)
        x = checks.check_points(x, dtype=torch.float64).detach().cpu()
        if x.shape[1] != 2:
            raise ValueError(
                f"x must have shape (N, 2), got {tuple(x.shape)}; a fit of two of its columns "
                "can be scrubbed over x[:, :2]"
            )
        checks.check_count(max_snapshots, "max_snapshots", minimum=2)
        quantum = _quantum(x)
        lowest = min(float(fit.history.min()) for fit in named.values())
        every = math.ceil(len(x) / _MOST_POINTS)
        kept = x[::every]
        low, high = x.amin(0), x.amax(0)
        room = 0.15 * torch.where(high > low, high - low, 1 + high.abs())
        super().__init__(
            kind="scrubber",
            name=name,
            label=f"{' and '.join(named)}, iteration by iteration",
            fits=[
                _packed(label, fit, lowest, quantum, max_snapshots) for label, fit in named.items()
            ],
            points=_rounded(kept, quantum),
            lowest=lowest,
            limits=torch.stack([low - room, high + room], dim=1).tolist(),
            axis_labels=list(axis_labels),
            drawn=f"{len(kept)} points" + (f" of {len(x)}" if every > 1 else ""),
            against=against,
            iteration=iteration,
            seconds=seconds,
        )

    @traitlets.validate("iteration", "seconds")
    def _within(self, proposal: Any) -> Any:
        trait, value = proposal["trait"].name, proposal["value"]
        times = "iterations" if trait == "iteration" else trait
        last = max((fit[times][-1] for fit in self.fits), default=math.inf)
        if not 0 <= value <= last:
            raise traitlets.TraitError(
                f"{trait} must lie between 0 and {last:g}, the last of the fits, got {value!r}"
            )
        return value

    def _shown(self, fit: dict[str, Any]) -> int:
        """The last snapshot at or before the moment; the first where there is none."""
        moment = self.seconds if self.against == "seconds" else self.iteration
        times = torch.tensor(fit[self.against], dtype=torch.float64)
        now = torch.tensor(moment, dtype=torch.float64)
        return max(0, int(torch.searchsorted(times, now, right=True)) - 1)

    @torch.no_grad()
    def compute(self) -> dict[str, Any]:
        shown = []
        for fit in self.fits:
            i = self._shown(fit)
            sds = torch.linalg.svdvals(_triangular(fit["factors"][i]))
            shown.append(
                {
                    "iteration": fit["iterations"][i],
                    "seconds": fit["seconds"][i],
                    "nll": self.lowest + fit["excess"][i],
                    "weights": fit["weights"][i],
                    "means": fit["means"][i],
                    "sds": sds.tolist(),
                }
            )
        pair = [now["nll"] for now in shown]
        difference = pair[1] - pair[0] if len(pair) > 1 else 0.0
        return {"fits": shown, "difference": difference}

    def _answer(self) -> None:
        super()._answer()
        words = [
            f"{fit['label']} at iteration {now['iteration']} of {fit['iterations'][-1]} with an "
            f"NLL of {now['nll']:.6g} nats, at the end "
            f"{self.lowest + fit['excess'][-1]:.6g}"
            for fit, now in zip(self.fits, self.values["fits"], strict=True)
        ]
        self.alt = (
            f"The points and the ellipses of the components: {'; '.join(words)}. "
            "Below, how far each NLL is above the lowest, on a logarithmic axis, against "
            f"{self.against}."
        )

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 6.0)
        grid = figure.add_gridspec(2, len(self.fits), height_ratios=(3, 2))
        curve = figure.add_subplot(grid[1, :])
        bottom = self._bottom()
        points = torch.tensor(self.points, dtype=torch.float64)
        for place, fit in enumerate(self.fits):
            i = self._shown(fit)
            ax = figure.add_subplot(grid[0, place])
            plot.scatter(points, ax, size=8)
            # A vector for each point would be most of the page.
            ax.collections[-1].set_rasterized(len(points) > 100)
            factor = _triangular(fit["factors"][i])
            parts = (fit["weights"][i], fit["means"][i])
            weights, means = (torch.tensor(part, dtype=torch.float64) for part in parts)
            plot.ellipses((weights, means, factor @ factor.mT), ax)
            ax.set(
                title=f"{fit['label']}: iteration {fit['iterations'][i]}",
                xlim=self.limits[0],
                ylim=self.limits[1],
                xlabel=self.axis_labels[0],
                ylabel=self.axis_labels[1] if place == 0 else "",
            )
            color, line_style, marker = _CURVES[place]
            excess = down_to(bottom, fit["history"]["excess"])
            curve.plot(
                fit["history"][self.against][: len(excess)],
                excess,
                color=color,
                linestyle=line_style,
                label=fit["label"],
            )
            curve.plot(fit[self.against][i], max(fit["excess"][i], bottom), marker, color=color)
        steps = [time for fit in self.fits for time in fit["history"][self.against] if time > 0]
        curve.set_xscale("symlog", linthresh=min(steps, default=1.0))
        curve.set_yscale("log")
        curve.set_xlim(left=0)
        name = "iteration" if self.against == "iterations" else "seconds"
        curve.set_xlabel(f"{name} (logarithmic)")
        curve.set_ylabel("NLL above the lowest (nats)")
        curve.legend()

    def _bottom(self) -> float:
        """Where the logarithmic axis ends: the lowest NLL itself has no logarithm."""
        least = min((e for f in self.fits for e in f["history"]["excess"] if e > 0), default=1.0)
        return 10.0 ** math.floor(math.log10(max(1e-10, min(least, 1.0))))


def _named(fits: Any, labels: Any) -> dict[str, FitResult]:
    """The fits by their labels."""
    if isinstance(fits, FitResult):
        fits = [fits]
    if isinstance(fits, Mapping):
        labels = list(fits) if labels is None else labels
        fits = list(fits.values())
    if not isinstance(fits, Sequence) or any(not isinstance(fit, FitResult) for fit in fits):
        raise TypeError(
            "fits must be a FitResult, or one or two of them in a mapping or a sequence, such as "
            f"{{'EM': fit_em(...), 'Adam': fit_model(...)}}; got {fits!r:.80}"
        )
    if not 1 <= len(fits) <= 2:
        raise ValueError(
            f"fits must be one fit or two, got {len(fits)}; show others in another FitScrubber"
        )
    if labels is None:
        labels = ["fit"] if len(fits) == 1 else ["first fit", "second fit"]
    if isinstance(labels, str) or not all(
        isinstance(label, str) and label.strip() for label in labels
    ):
        raise TypeError(
            f"labels must be names, one for each fit, such as ['EM', 'Adam']; got {labels!r}"
        )
    if len(labels) != len(fits) or len(set(labels)) < len(labels):
        raise ValueError(
            f"labels must be {len(fits)} different names, one for each fit, got {labels!r}"
        )
    for label, fit in zip(labels, fits, strict=True):
        if not fit.snapshots:
            raise ValueError(
                f"the fit {label!r} has no snapshots: pass snapshot_every=1 to fit_em or fit_model"
            )
        num_dims = fit.snapshots[0].means.shape[1]
        if num_dims != 2:
            raise ValueError(
                f"fits must be of models in 2 dimensions, and {label!r} has {num_dims}: "
                "fit two columns of the data, for example x[:, :2]"
            )
    return dict(zip(labels, fits, strict=True))


def _packed(
    label: str, fit: FitResult, lowest: float, quantum: Tensor, most: int
) -> dict[str, Any]:
    """A fit as plain numbers, few enough for a page: a column for each quantity."""
    snapshots = [fit.snapshots[i] for i in _spread([s.iteration for s in fit.snapshots], most)]
    # A logarithmic axis needs the digits of the excess, which an NLL cut to six would lack.
    excess = [_short(v - lowest) for v in fit.history.tolist()]
    excess[-1] = float(fit.history[-1]) - lowest
    # What happens once, before the first NLL, is no part of the descent.
    seconds = [_short(v) for v in (fit.elapsed - fit.elapsed[0]).tolist()]
    at = [s.iteration for s in snapshots]
    along = {*_spread(range(len(excess)), _HISTORY * most), *at}
    covariances = [s.covariances.double() for s in snapshots]
    return {
        "label": label,
        "iterations": at,
        "seconds": [seconds[t] for t in at],
        "excess": [excess[t] for t in at],
        "weights": [[_short(w) for w in s.weights.tolist()] for s in snapshots],
        "means": [_rounded(s.means.double(), quantum) for s in snapshots],
        "factors": [_factors(covariance) for covariance in covariances],
        "history": {
            "iterations": sorted(along),
            "seconds": [seconds[t] for t in sorted(along)],
            "excess": [excess[t] for t in sorted(along)],
        },
    }


def _spread(times: Sequence[int], most: int) -> list[int]:
    """Places in rising ``times``, at most ``most``: evenly in log(1 + time), both ends included."""
    if len(times) <= most:
        return list(range(len(times)))
    logs = torch.tensor(times, dtype=torch.float64).log1p()
    places: list[int] = []
    # Of evenly spaced targets several have the same nearest time early on: try more of them.
    for targets in range(most, 20 * most):
        goals = torch.linspace(0, 1, targets, dtype=torch.float64)
        goals = logs[0] + (logs[-1] - logs[0]) * goals
        above = torch.searchsorted(logs, goals).clamp(1, len(logs) - 1)
        nearer = goals - logs[above - 1] < logs[above] - goals
        found = torch.unique(above - nearer.long()).tolist()
        if len(found) > most:
            break
        places = found
    return places


def _factors(covariances: Tensor) -> list[list[float]]:
    """Lower triangular factors (p, q, r) of covariances (K, 2, 2): rounded, they stay factors."""
    first = covariances[:, 0, 0].sqrt()
    across = covariances[:, 1, 0] / first
    second = (covariances[:, 1, 1] - across.square()).clamp_min(0).sqrt()
    # Where rounding has eaten the width: the least that it can have been.
    least = torch.finfo(torch.float64).eps * covariances[:, 1, 1].sqrt()
    rows = torch.stack([first, across, second.maximum(least)], dim=1)
    return [[_short(v) for v in row] for row in rows.tolist()]


def _triangular(factors: list[list[float]]) -> Tensor:
    """(K, 2, 2) of the triples (p, q, r)."""
    p, q, r = torch.tensor(factors, dtype=torch.float64).unbind(1)
    rows = [torch.stack([p, torch.zeros_like(p)], 1), torch.stack([q, r], 1)]
    return torch.stack(rows, dim=1)


def _quantum(x: Tensor) -> Tensor:
    """For each coordinate the power of ten that is the sixth digit of its spread, (2,)."""
    spread = x.amax(0) - x.amin(0)
    spread = torch.where(spread > 0, spread, x.abs().amax(0))
    spread = torch.where(spread > 0, spread, 1.0)
    return 10.0 ** (spread.log10().floor() - 5)


def _rounded(x: Tensor, quantum: Tensor) -> list[list[float]]:
    """Rounded to multiples of the quantum, in as few digits as say so."""
    digits = [max(0, -round(math.log10(q))) for q in quantum.tolist()]
    rows = (x / quantum).round() * quantum
    return [[round(v, d) for v, d in zip(row, digits, strict=True)] for row in rows.tolist()]


def _short(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")

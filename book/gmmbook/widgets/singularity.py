"""One component that shrinks onto a point, and what stops it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import functional_call

from gmmbook.widgets.base import Interactive
from gmmedu import checks, plot
from gmmedu.datasets import load_galaxies
from gmmedu.em import fit_em
from gmmedu.initialization import initialize
from gmmedu.models import GaussianMixture, GmmFull, GmmIsotropic, GmmSharedIsotropic
from gmmedu.singularities import Clamp, Prior, SingularityWarning
from gmmedu.units import Units, moments

#: Weight of the needle, and how many points a page can draw while a hand moves.
_WEIGHT, _MOST_POINTS = 0.2, 2000
#: The ranges of the settings, the same in the front end.
_RANGES = {"min_scale": (1e-6, 1.0), "scatter": (1e-6, 10.0)}
_CURES = ("none", "clamp", "prior", "tied")


class SingularityExplorer(Interactive):
    """Shrink one component of a mixture onto a point of data in one dimension.

    A base mixture is fitted by EM and held. One more component, the needle, has the weight 0.2, its
    mean at ``point`` and the standard deviation ``sigma``. Below the density: the objective against
    sigma, and its slope in log sigma, which is j / N on j equal points (eq-singular-rate). Cures:
    "clamp", no standard deviation below ``min_scale`` of the data's (eq-clamp); "prior", on the
    needle's (eq-inverse-wishart), so that the objective is the NLL less the log prior over N,
    shifted to be zero at the prior's mode; "tied", one sigma for all components (eq-no-collapse).

    x: (N,) or (N, 1), floating point, at most 2000 points; the galaxies when not given. rounded:
    round x to whole numbers, so that values repeat. num_components: of the base, K. point: within
    half a standard deviation of the data; by default a value that occurs most often. sigma: from 3
    down to 1e-12, times the power of ten below the standard deviation of the data; a third of the
    widest by default. min_scale: 1e-6 to 1, and scatter: 1e-6 to 10, in units of the data, as for
    ``Clamp`` and ``Prior``.

    Fixed traits: x, sorted; weights (K + 1,), the needle's last; means and sds (K,), of the base;
    unit, the standard deviation of the data; limits, of sigma; span, of point; heights, of the
    objective as drawn. values, by torch: nll, objective, slope, effective_sigma, j, distance (to
    the nearest point), peak (the density at ``point``).

    Raises ``TypeError`` or ``ValueError`` for data that cannot be drawn, ``traitlets.TraitError``
    for a state out of range.
    """

    x = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    weights = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    means = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    sds = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    unit = traitlets.Float(read_only=True).tag(sync=True)
    limits = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    span = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    heights = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    axis_label = traitlets.Unicode().tag(sync=True)
    point = traitlets.CFloat().tag(sync=True)
    sigma = traitlets.CFloat().tag(sync=True)
    cure = traitlets.Enum(_CURES, "none").tag(sync=True)
    min_scale = traitlets.CFloat(1e-3).tag(sync=True)
    scatter = traitlets.CFloat(1.0).tag(sync=True)
    state = ("point", "sigma", "cure", "min_scale", "scatter")
    actions = ("snap", "halfway")

    def __init__(
        self,
        x: Tensor | None = None,
        num_components: int = 3,
        *,
        point: float | None = None,
        sigma: float | None = None,
        cure: str = "none",
        min_scale: float = 1e-3,
        scatter: float | None = None,
        rounded: bool = False,
        name: str = "singularity",
    ) -> None:
        checks.check_count(num_components, "num_components")
        axis_label = "speed (1000 km/s)" if x is None else "x"
        points = load_galaxies() if x is None else _column(x)
        points = points.round() if rounded else points
        points = points.sort(0).values
        values, counts = points.unique(return_counts=True)
        if len(values) < num_components + 2:
            raise ValueError(
                f"x must hold at least num_components + 2 = {num_components + 2} different values"
                f"{' when rounded' if rounded else ''}, got {len(values)}"
            )
        base = GmmFull(num_components, 1, dtype=torch.float64)
        initialize(base, points, generator=torch.Generator().manual_seed(0))
        with warnings.catch_warnings():
            # Of duplicates a component may end on the floor, which is what the page is about.
            warnings.simplefilter("ignore", SingularityWarning)
            fit_em(base, points, 5000)
        unit = float(Units.of([moments([(points, None)])], per_dimension=True).scale)
        decade = 10.0 ** math.floor(math.log10(unit))
        weights = [(1 - _WEIGHT) * w for w in base.weights.tolist()]
        self.set_trait("x", points.flatten().tolist())
        self.set_trait("weights", [*weights, _WEIGHT])
        self.set_trait("means", base.means.flatten().tolist())
        self.set_trait("sds", base.covariances.flatten().sqrt().tolist())
        self.set_trait("unit", unit)
        # Few digits, so that an address, which keeps six, holds them exactly.
        limits = [float(f"{v * decade:.6g}") for v in (1e-12, 3.0)]
        self.set_trait("limits", limits)
        self.set_trait("span", [self.x[0] - unit / 2, self.x[-1] + unit / 2])
        often = values[counts == counts.max()]
        common = float(often[len(often) // 2])
        # No sigma of the needle costs more than to have none.
        without = float(base(points).detach()) - math.log(1 - _WEIGHT)
        ends = [
            float(self._evaluate(log_sigma, "none", common)[0].detach())
            for log_sigma in torch.tensor(self.limits, dtype=torch.float64).log()
        ]
        low, high = min(ends), max(*ends, without)
        room = high - low
        heights = [low - 0.1 * room, high + 0.35 * room]
        self.set_trait("heights", heights)
        if scatter is None:
            scatter = Prior().prior(num_components + 1, 1).scatter
        super().__init__(
            kind="singularity",
            name=name,
            label="One component that shrinks onto a point, and cures",
            axis_label=axis_label,
            point=common if point is None else point,
            sigma=decade if sigma is None else sigma,
            cure=cure,
            min_scale=min_scale,
            scatter=scatter,
        )

    @traitlets.validate("point", "sigma", "min_scale", "scatter")
    def _within(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        ranges = {"point": self.span, "sigma": self.limits, **_RANGES}
        low, high = ranges[name]
        if not low <= value <= high:
            raise traitlets.TraitError(
                f"{name} must lie from {low:.6g} to {high:.6g}, got {value!r}"
            )
        return value

    # Buttons

    def snap(self) -> None:
        """Put the needle's mean onto the nearest data point."""
        self.point = min(self.x, key=lambda v: abs(v - self.point))

    def halfway(self) -> None:
        """Put it half-way between its neighbors, of which it may be the lower one itself."""
        values = sorted(set(self.x))
        above = sum(v <= self.point for v in values)
        i = min(max(above, 1), len(values) - 1)
        self.point = (values[i - 1] + values[i]) / 2

    # Values

    def _blueprint(self, cure: str, point: float) -> GaussianMixture:
        kind = GmmSharedIsotropic if cure == "tied" else GmmIsotropic
        model = kind(len(self.weights), 1, dtype=torch.float64)
        means = torch.tensor([*self.means, point], dtype=torch.float64)
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return model.set_parameters(weights, means[:, None])

    def model(self) -> GaussianMixture:
        """The mixture as it stands, with the cure: isotropic, or shared isotropic when tied."""
        effective = max(self.sigma, self._floor(self.cure))
        sds = [*self.sds, effective]
        if self.cure == "tied":
            sds = [effective] * len(sds)
        variances = torch.tensor(sds, dtype=torch.float64).square()
        return self._blueprint(self.cure, self.point).set_parameters(
            covariances=variances[:, None, None]
        )

    def _floor(self, cure: str) -> float:
        if cure != "clamp":
            return 0.0
        return Clamp(self.min_scale).floor(torch.float64) * self.unit

    def _evaluate(self, log_sigma: Tensor, cure: str, point: float) -> tuple[Tensor, Tensor]:
        """NLL and objective with the needle at a point, differentiable in log sigma, a scalar."""
        model = self._blueprint(cure, point)
        x = torch.tensor(self.x, dtype=torch.float64)[:, None]
        if cure == "tied":
            raw_scale = log_sigma.reshape(1, 1)
        else:
            own = log_sigma
            if cure == "clamp":
                own = own.clamp_min(math.log(self._floor(cure)))
            base = torch.tensor(self.sds, dtype=torch.float64).log()
            raw_scale = torch.cat([base, own.reshape(1)])[:, None]
        nll = functional_call(model, {"raw_scale": raw_scale}, (x,))
        if cure != "prior":
            return nll, nll
        prior = Prior(scatter=self.scatter).prior(len(self.weights), 1)

        def log_prior(log_scale: Tensor) -> Tensor:
            scales = model.family.operator.from_raw(log_scale.reshape(1, 1))
            return model.family.log_prior(scales, 1, prior)

        mode = torch.tensor(prior.scatter / prior.points, dtype=torch.float64)
        shift = log_prior(mode.log() / 2)
        own_prior = log_prior(log_sigma - math.log(self.unit))
        return nll, nll + (shift - own_prior) / len(x)

    def compute(self) -> dict[str, Any]:
        log_sigma = torch.tensor(math.log(self.sigma), dtype=torch.float64)
        nll, objective = self._evaluate(log_sigma.requires_grad_(), self.cure, self.point)
        (slope,) = torch.autograd.grad(objective, log_sigma)
        x = torch.tensor(self.x, dtype=torch.float64)
        at = torch.tensor([[self.point]], dtype=torch.float64)
        with torch.no_grad():
            peak = self.model().log_prob(at).exp()
        return {
            "nll": float(nll.detach()),
            "objective": float(objective.detach()),
            "slope": float(slope),
            "effective_sigma": max(self.sigma, self._floor(self.cure)),
            "j": int((x == self.point).sum()),
            "distance": float((x - self.point).abs().min()),
            "peak": float(peak),
        }

    # The still

    def _answer(self) -> None:
        super()._answer()
        j, distance = self.values["j"], self.values["distance"]
        bare = (
            f"in a straight line, without end: the mean is on {j} of {len(self.x)} points"
            if j
            else f"no further than a level: the mean is {distance:.3g} off the nearest point"
        )
        ends = {
            "none": "",
            "clamp": f" The clamp ends it at {self._floor('clamp'):.3g}.",
            "prior": " With the prior the objective turns upward.",
            "tied": " With one sigma for all components the objective turns steeply upward.",
        }
        self.alt = (
            "Above: a mixture on a logarithmic axis over the data, with a needle of standard "
            f"deviation {self.values['effective_sigma']:.3g} at {self.point:.5g}. Below: against "
            f"that standard deviation, from {self.limits[1]:.3g} down to {self.limits[0]:.3g}, the "
            f"mean NLL falls {bare}.{ends[self.cure]}"
        )

    @torch.no_grad()
    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 7.0)
        top, bottom = figure.subplots(2, 1)
        self._draw_density(top)
        self._draw_objective(bottom)

    def _draw_density(self, ax: Axes) -> None:
        model = self.model()
        sds = model.covariances.flatten().sqrt()
        near = model.means + sds[:, None] * torch.linspace(-9, 9, 181).to(sds)
        even = torch.linspace(self.span[0], self.span[1], 400, dtype=torch.float64)
        grid = torch.cat([even, near.flatten()]).sort().values
        low, high = 3e-4 / self.limits[1], _WEIGHT / self.limits[0]
        density = model.log_prob(grid[:, None]).exp()
        ax.plot(grid.numpy(), density.clamp_min(low / 10).numpy())
        marks = ax.get_xaxis_transform()
        ax.plot(self.x, [0.03] * len(self.x), "|", color=plot.GRAY, transform=marks)
        ax.plot(self.point, 0.0, "s", color=plot.PALETTE[1], transform=marks, clip_on=False)
        ax.set_yscale("log")
        ax.set(xlim=self.span, ylim=(low, high), xlabel=self.axis_label, ylabel="density")

    def _draw_objective(self, ax: Axes) -> None:
        narrowest, widest = self.limits
        widths = torch.logspace(math.log10(widest), math.log10(narrowest), 121, dtype=torch.float64)
        bare, cured = (
            torch.stack(
                [self._evaluate(log_sigma, cure, self.point)[1] for log_sigma in widths.log()]
            )
            for cure in ("none", self.cure)
        )
        if self.cure != "none":
            ax.plot(widths.numpy(), bare.numpy(), color=plot.GRAY, linewidth=1.2, label="no cure")
        low, high = self.heights
        seen = cured < 2 * high - low
        ax.plot(
            widths[seen].numpy(),
            cured[seen].numpy(),
            linewidth=2.6,
            label=self.cure if self.cure != "none" else "no cure",
        )
        at = min(self.values["objective"], high)
        ax.plot(self.sigma, at, "o", color=plot.PALETTE[1], clip_on=False)
        ax.set_xscale("log")
        ax.set(
            xlim=(widest, narrowest),
            ylim=self.heights,
            xlabel=r"standard deviation $\sigma$ of the needle",
            ylabel="objective (nats)",
        )
        ax.legend()


def _column(x: Any) -> Tensor:
    """x, (N,) or (N, 1), as (N, 1) in float64 on the CPU, if it can be drawn."""
    if isinstance(x, Tensor) and x.ndim == 1:
        x = x[:, None]
    x = checks.check_points(x, 1).detach().double().cpu()
    if len(x) > _MOST_POINTS:
        raise ValueError(
            f"x must hold at most {_MOST_POINTS} points for a page to draw, got {len(x)}; "
            "take a sample of them"
        )
    return x

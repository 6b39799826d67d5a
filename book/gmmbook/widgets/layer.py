"""EM as a layer: a point is pulled, and the fit follows, or jumps."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook.widgets.base import Interactive
from gmmedu import em_step, plot
from gmmedu.models import MODELS, GmmTied
from gmmedu.values import Scales, State

#: The highest rate of a gradient, the ranges and the start of EM: as in the front end.
_HIGHEST = 0.999
_RANGE, _STEPS, _START = (-4.0, 10.0), (1, 40), (0.5, -1.0, 4.0, 0.0)
_OUTPUTS = ("weight 2", "mean 1", "mean 2", "log sd")
_EXACT, _SOME = plot.PALETTE[6], plot.PALETTE[4]
_LEFT = [-1.3, -0.9, -0.6, -0.3, 0.0, 0.2, 0.6, 1.1]
#: States that surprise: points, which one is pulled, and to where.
_SCENES: dict[str, dict[str, Any]] = {
    name: {"points": [*_LEFT, *right], "selected": selected, "at": at}
    for name, right, selected, at in (
        ("Well apart", [4.8, 5.3, 5.6, 6.0, 6.3, 6.6, 7.2], 13, 6.6),
        ("Overlapping", [0.8, 1.2, 1.5, 1.9, 2.2, 2.6, 3.3], 13, 2.6),
        ("Near a jump", [2.8, 3.1, 3.4, 3.8, 4.1, 4.5, 5.0], 14, 8.2),
    )
}
_FAMILY = MODELS["tied"].family


class EMLayerExplorer(Interactive):
    """Pull a point, and see where the fit goes and where its gradient said that it would.

    Fifteen points and two Gaussians with weights, means and one standard deviation for both, which
    keeps components off single points; EM fits them from a fixed start until nothing moves. At
    each point the gradient of one output in it: of the fixed point, (I - J)^-1 B with J and B the
    Jacobians of a step in the parameters and the points, and of T steps at it, (I + J + ... +
    J^(T-1)) B. Below, the output against the position of the point that is pulled, and both lines
    that those gradients predict from where it was taken.

    scene: "Well apart", "Overlapping" or "Near a jump", a start for the others; points: where the
    points were when the present one was taken, -4 to 10; selected: which one that is, from 0; at:
    where it is now; output: "weight 2", "mean 1", "mean 2" or "log sd"; steps: T, 1 to 40.

    values, by torch: weights, means, sd; rate, the largest eigenvalue of J; output, and gradient
    and unrolled, one number for each point, at the fit as it is now; before, slope, slope_unrolled,
    the output and both gradients where the point was taken; predicted, what the first of them says.
    Where both means are one the weight is free, I - J is singular, and there is no gradient: None
    where the rate is above 0.999.

    Raises ``traitlets.TraitError`` for a state that there is not.
    """

    scenes = traitlets.Dict(read_only=True).tag(sync=True)
    points: traitlets.List[Any] = traitlets.List(traitlets.CFloat()).tag(sync=True)
    selected = traitlets.Int(min=0).tag(sync=True)
    at = traitlets.CFloat().tag(sync=True)
    output = traitlets.Enum(_OUTPUTS).tag(sync=True)
    steps = traitlets.Int(min=_STEPS[0], max=_STEPS[1]).tag(sync=True)
    state = ("points", "selected", "at", "output", "steps")

    def __init__(
        self,
        scene: str = "Well apart",
        *,
        points: Any = None,
        selected: int | None = None,
        at: float | None = None,
        output: str = "mean 2",
        steps: int = 1,
        name: str = "layer",
    ) -> None:
        if scene not in _SCENES:
            raise traitlets.TraitError(f"scene must be one of {list(_SCENES)}, got {scene!r}")
        given = {"points": points, "selected": selected, "at": at}
        self.set_trait("scenes", _SCENES)
        super().__init__(
            kind="layer",
            name=name,
            label="EM as a layer: where the fit goes when a point is pulled",
            output=output,
            steps=steps,
            **{**_SCENES[scene], **{k: v for k, v in given.items() if v is not None}},
        )

    @traitlets.validate("points")
    def _places(self, proposal: Any) -> Any:
        points = proposal["value"]
        able = len(points) == 15 and len(set(points)) > 3
        if not able or not all(_RANGE[0] <= v <= _RANGE[1] for v in points):
            raise traitlets.TraitError(
                f"points must be 15 numbers from -4 to 10 at four places or more, got {points!r}"
            )
        return points

    @traitlets.validate("at")
    def _place(self, proposal: Any) -> Any:
        if not _RANGE[0] <= proposal["value"] <= _RANGE[1]:
            raise traitlets.TraitError(f"at must lie from -4 to 10, got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("selected")
    def _one(self, proposal: Any) -> Any:
        if proposal["value"] > 14:
            raise traitlets.TraitError(f"selected must be 0 to 14, got {proposal['value']!r}")
        return proposal["value"]

    def moved(self, at: Tensor | None = None) -> Tensor:
        """The points (..., 15), the present one at its place or at others (...); float64."""
        place = torch.tensor(self.at, dtype=torch.float64) if at is None else at
        points = torch.tensor(self.points, dtype=torch.float64).repeat(*place.shape, 1)
        points[..., self.selected] = place
        return points

    def model(self) -> GmmTied:
        """The fit as it stands: one dimension, float64."""
        means = torch.tensor(self.values["means"], dtype=torch.float64)[:, None]
        # Given means, so that torch's own random numbers are not used up.
        model = GmmTied(2, 1, init_means=means, dtype=torch.float64)
        weights = torch.tensor(self.values["weights"], dtype=torch.float64)
        variance = torch.full((2, 1, 1), self.values["sd"] ** 2, dtype=torch.float64)
        return model.set_parameters(weights, covariances=variance)

    def compute(self) -> dict[str, Any]:
        own, n = _OUTPUTS.index(self.output), self.selected
        x = torch.stack(
            [self.moved(torch.tensor(self.points[n], dtype=torch.float64)), self.moved()]
        )
        theta = fit(x)
        slope, direct = _slopes(theta, x)
        one = torch.eye(4, dtype=torch.float64)
        some = one.expand(2, 4, 4)
        for _ in range(self.steps - 1):
            some = one + slope @ some
        rates = torch.linalg.eigvals(slope).real.amax(-1)
        gradient = [
            None if rate > _HIGHEST else torch.linalg.solve(one - each, own_direct)[own].tolist()
            for rate, each, own_direct in zip(rates, slope, direct, strict=True)
        ]
        unrolled = (some @ direct)[:, own]
        before, output = theta[:, own].tolist()
        weight, first, second, log_sd = theta[1].tolist()
        line = gradient[0] and gradient[0][n]
        by = self.at - self.points[n]
        return {
            "weights": [1 - weight, weight],
            "means": [first, second],
            "sd": math.exp(log_sd),
            "rate": float(rates[1]),
            "output": output,
            "gradient": gradient[1],
            "unrolled": unrolled[1].tolist(),
            "before": before,
            "slope": line,
            "slope_unrolled": float(unrolled[0, n]),
            "predicted": None if line is None else before + line * by,
        }

    def _answer(self) -> None:
        super()._answer()
        values, n = self.values, self.selected
        predicted = values["predicted"]
        said = "not predicted" if predicted is None else f"predicted {predicted:.3g}"
        self.alt = (
            f"Above: fifteen points, the density of two Gaussians fitted to them, and at each "
            f"point the gradient of {self.output} in it, of the fixed point and of steps, "
            f"T = {self.steps}. Below: {self.output} against the position of point {n + 1}, as "
            f"refits have it and as gradients predict from {self.points[n]:.3g}; at {self.at:.3g} "
            f"it is {values['output']:.3g}, {said}."
        )

    @torch.no_grad()
    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 7.4)
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2, 3])
        x, values = self.moved().tolist(), self.values
        plot.density_1d(self.model(), ax=top)
        top.plot(x, [0.0] * len(x), "o", color=plot.GRAY)
        top.set(xlabel="", ylabel="density", xlim=_RANGE)
        bars = (("gradient", _EXACT, "fixed point"), ("unrolled", _SOME, f"T = {self.steps}"))
        for i, (key, color, label) in enumerate(bars):
            places = [v + 0.08 * i - 0.04 for v in x]
            if values[key] is not None:
                middle.bar(places, values[key], 0.08, color=color, label=label)
        middle.axhline(0, color=plot.GRAY, linewidth=1)
        middle.set(ylabel=f"gradient of {self.output}")
        middle.legend()
        self._draw_road(bottom)

    def _draw_road(self, ax: Axes) -> None:
        grid, own = torch.linspace(*_RANGE, 141, dtype=torch.float64), _OUTPUTS.index(self.output)
        road = fit(self.moved(grid))[:, own]
        ax.plot(grid.numpy(), road.numpy(), ".", color="black", markersize=3, label="refits")
        start, values = self.points[self.selected], self.values
        for key, color, style in (("slope", _EXACT, "--"), ("slope_unrolled", _SOME, ":")):
            if values[key] is not None:
                at = start, values["before"]
                ax.axline(at, slope=values[key], color=color, linestyle=style)
        low, high = float(road.min()), float(road.max())
        room = 0.1 * max(high - low, 0.1)
        ax.set_ylim(low - room, high + room)
        ax.plot(self.at, values["output"], "o", color=plot.GRAY)
        ax.set(xlabel=f"position of point {self.selected + 1}", ylabel=self.output)
        ax.legend()


def step(theta: Tensor, x: Tensor) -> Tensor:
    """One step of EM on (weight of the second, means, log sd), (..., 4), at points (..., N)."""
    weight, first, second, log_sd = theta.unbind(-1)
    sd = log_sd.exp()[..., None, None, None]
    state = State(
        torch.stack([(1 - weight).log(), weight.log()], -1),
        torch.stack([first, second], -1)[..., None],
        Scales(sd, 1 / sd),
    )
    new = em_step(state, x[..., None], _FAMILY)
    return torch.cat(
        [
            new.log_weights[..., 1:].exp(),
            new.means[..., 0],
            new.scales.factor[..., 0, :, 0].log(),
        ],
        -1,
    )


_slopes = torch.func.vmap(torch.func.jacrev(step, (0, 1)))


@torch.no_grad()
def fit(x: Tensor) -> Tensor:
    """Where EM ends at points (M, N), from the fixed start: parameters (M, 4).

    EM until no parameter moves by 1e-9, then Newton's steps on what a step of EM changes."""
    theta = torch.tensor(_START, dtype=torch.float64).expand(len(x), 4)
    for _ in range(4000):
        before, theta = theta, step(theta, x)
        if float((theta - before).abs().max()) < 1e-9:
            break
    for _ in range(3):
        slope, _ = _slopes(theta, x)
        left = torch.eye(4, dtype=torch.float64) - slope
        by = torch.linalg.solve(left, step(theta, x) - theta)
        # A wide step is no step to a fixed point near by.
        theta = torch.where(by.abs().amax(-1, keepdim=True) < 1e-3, theta + by, theta)
    return theta

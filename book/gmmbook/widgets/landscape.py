"""The NLL over two means, and the roads of EM and descent down it (chapters 03, 05)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook.widgets.base import Interactive, down_to
from gmmedu import plot
from gmmedu.datasets import load_old_faithful

# Points along each side of the surface, as in the front end.
_GRID = 61
_MOST_STEPS = 100


class LandscapeExplorer(Interactive):
    """Press a start on the landscape, and see where EM and gradient descent go from there.

    The landscape is the mean NLL (eq-gmm-nll) of a mixture of two Gaussians in one dimension as a
    function of its two means, weights and standard deviations given. From one start two roads lead
    down: EM, whose M-step moves each mean to the mean of its responsibilities (eq-m-step-means),
    and descent at a learning rate, with momentum (eq-descent, eq-momentum). Below, the NLL after
    each step, above the lowest on the landscape.

    Args:
        x: (N,) or (N, 1), finite; the waits of Old Faithful, in minutes, when not given.
        weights: (2,), positive, summing to 1.
        sds: (2,), positive: the standard deviations, in units of x.
        start: (2,), the means at which both roads begin, within the limits.
        rate: learning rate of descent, positive; in squared units of x, for a slope is in nats a
            unit.
        num_steps: steps of each road, 1 to 100.
        limits: the lowest and the highest mean of the plane; a road ends where it leaves it.
        momentum: beta, from 0 to below 1; 0 is plain descent.
        unit: of x, for the axes; minutes when x is not given.

    values, by torch: em and descent, each with road, the means after 0, 1, ... steps, (T, 2); nll,
    the mean NLL at each; exit, where the road crosses the edge of the plane, (2,), or None. And
    gradient, (2,), by autograd at the start; lowest, the lowest NLL of the landscape.

    Raises ``traitlets.TraitError`` for a value that cannot be, and then changes nothing.
    """

    x = traitlets.List(traitlets.CFloat()).tag(sync=True)
    weights = traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2).tag(sync=True)
    sds = traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2).tag(sync=True)
    limits = traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2).tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    start = traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2).tag(sync=True)
    rate = traitlets.CFloat(30.0).tag(sync=True)
    momentum = traitlets.CFloat(0.0).tag(sync=True)
    num_steps = traitlets.Int(40).tag(sync=True)
    state = ("start", "rate", "momentum", "num_steps")

    def __init__(
        self,
        x: Any = None,
        *,
        weights: Any = (0.36, 0.64),
        sds: Any = (6.0, 6.0),
        start: Any = (88.0, 90.0),
        rate: float = 30.0,
        num_steps: int = 40,
        limits: Any = (40.0, 100.0),
        momentum: float = 0.0,
        unit: str | None = None,
        name: str = "landscape",
    ) -> None:
        if unit is None:
            unit = "min" if x is None else ""
        super().__init__(
            kind="landscape",
            name=name,
            label="The NLL over two means, with the roads of EM and descent",
            x=_points(load_old_faithful()[:, 1] if x is None else x),
            weights=_pair(weights, "weights"),
            sds=_pair(sds, "sds"),
            limits=_pair(limits, "limits"),
            unit=unit,
            start=_pair(start, "start"),
            rate=rate,
            momentum=momentum,
            num_steps=num_steps,
        )
        self.observe(lambda change: self._answer(), ["x", "weights", "sds", "limits"])

    @traitlets.validate("x", "weights", "sds", "limits", "start", "rate", "momentum")
    def _possible(self, proposal: Any) -> Any:
        """Each value by itself, and beside those that it must agree with."""
        changed, value = proposal["trait"].name, proposal["value"]
        names = ("x", "weights", "sds", "limits", "start", "rate", "momentum")
        now = {name: getattr(self, name) for name in names} | {changed: value}

        def wrong(what: str, name: str = changed) -> traitlets.TraitError:
            return traitlets.TraitError(f"{name} must {what}, got {now[name]}")

        low, high = now["limits"]
        if not (-math.inf < low < high < math.inf):
            raise wrong("be finite, the lower one first", "limits")
        if not all(low <= mean <= high for mean in now["start"]):
            raise wrong(f"lie within limits={now['limits']}", "start")
        if not all(0 < sd < math.inf for sd in now["sds"]):
            raise wrong("be positive and finite", "sds")
        if not (all(w > 0 for w in now["weights"]) and abs(sum(now["weights"]) - 1) < 1e-6):
            raise wrong("be positive and sum to 1", "weights")
        if not 0 < now["rate"] < math.inf:
            raise wrong("be positive and finite", "rate")
        if not 0 <= now["momentum"] < 1:
            raise wrong("lie in [0, 1)", "momentum")
        if not now["x"]:
            raise traitlets.TraitError("x must have at least one point, got none")
        # Beyond this a squared distance drowns the differences between the means.
        reach = 1e8 * min(now["sds"])
        for point in (*now["x"], low, high):
            if not abs(point - low) <= reach:
                raise traitlets.TraitError(
                    "x and limits must be finite and within 1e8 standard deviations of each "
                    f"other, got {point:g} with limits={now['limits']} and sds={now['sds']}"
                )
        return value

    @traitlets.validate("num_steps")
    def _countable(self, proposal: Any) -> Any:
        if not 1 <= proposal["value"] <= _MOST_STEPS:
            raise traitlets.TraitError(
                f"num_steps must be from 1 to {_MOST_STEPS}, got {proposal['value']}"
            )
        return proposal["value"]

    def _log_joint(self, means: Tensor) -> Tensor:
        """a_nk at means (..., 2), as (N, ..., 2)."""
        x, weights, sds = map(_tensor, (self.x, self.weights, self.sds))
        z = (x.view(-1, *[1] * means.ndim) - means) / sds
        return weights.log() - sds.log() - math.log(2 * math.pi) / 2 - z**2 / 2

    def nll(self, means: Tensor) -> Tensor:
        """The mean NLL at means (..., 2), in nats (eq-gmm-nll); differentiable."""
        return -self._log_joint(means).logsumexp(-1).mean(0)

    def em_step(self, means: Tensor) -> Tensor:
        """Where one iteration of EM moves the means, (2,) (eq-m-step-means).

        The shares r_nk / N_k are a softmax over the points, and so exist also where every
        responsibility of a component underflows.
        """
        x, weights, sds = map(_tensor, (self.x, self.weights, self.sds))
        x = x[:, None]
        z = (x - means) / sds
        # The log odds by themselves: at equal means and widths the same for all points, to the last
        # bit, so that a start on the diagonal stays there as long as it should.
        first, second = (weights / sds).log()
        odds = first - second - (z[:, 0] - z[:, 1]) * z.sum(1) / 2
        odds = torch.stack([odds, -odds], dim=1)
        shares = torch.nn.functional.logsigmoid(odds).softmax(0)
        return means + (shares * (x - means)).sum(0)

    def gradient(self, means: Tensor) -> Tensor:
        """The slopes of the NLL at means (2,), in nats a unit of x, by autograd."""
        means = means.detach().requires_grad_()
        return torch.autograd.grad(self.nll(means), means)[0]

    def _walk(self, step: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        low, high = self.limits
        road, leaving = [_tensor(self.start)], None
        while leaving is None and len(road) <= self.num_steps:
            following = step(road[-1])
            if bool(((following >= low) & (following <= high)).all()):
                road.append(following)
            else:
                leaving = following - road[-1]
        end = None
        if leaving is not None:
            room = torch.where(leaving > 0, high - road[-1], low - road[-1])
            share = torch.where(leaving == 0, 1.0, room / leaving).min()
            end = (road[-1] + share * leaving).clamp(low, high)
            end = end if bool(leaving.isfinite().all()) else road[-1]
        means = torch.stack(road)
        return {
            "road": means.tolist(),
            "nll": self.nll(means).tolist(),
            "exit": None if end is None else end.tolist(),
        }

    @torch.no_grad()
    def _surface(self) -> tuple[Tensor, Tensor, Tensor]:
        """Axis (61,), heights (61, 61) on its square, and the lowest point, (2,); kept."""
        key = (self.x, self.weights, self.sds, self.limits)
        if getattr(self, "_kept", (None,))[0] != key:
            low, high = self.limits
            axis = torch.linspace(low, high, _GRID, dtype=torch.float64)
            rows = [self.nll(torch.stack([first.expand(_GRID), axis], 1)) for first in axis]
            heights = torch.stack(rows)
            lowest = axis[list(divmod(int(heights.argmin()), _GRID))]
            for _ in range(500):
                lowest = self.em_step(lowest)
            self._kept = (key, (axis, heights, lowest))
        return self._kept[1]

    def compute(self) -> dict[str, Any]:
        velocity = torch.zeros(2, dtype=torch.float64)

        def descend(means: Tensor) -> Tensor:
            nonlocal velocity
            velocity = self.momentum * velocity + self.gradient(means)
            return means - self.rate * velocity

        return {
            "em": self._walk(self.em_step),
            "descent": self._walk(descend),
            "gradient": self.gradient(_tensor(self.start)).tolist(),
            "lowest": float(self.nll(self._surface()[2])),
        }

    def _answer(self) -> None:
        super()._answer()
        axis, heights, lowest = self._surface()
        first = self.values["em"]["nll"][0]
        ends = "; ".join(
            f"{name} {_ending(self.values[key])}"
            for name, key in (("EM", "em"), ("gradient descent", "descent"))
        )
        self.alt = (
            "Contours of the mean NLL over two means, each "
            f"from {self.limits[0]:g} to {self.limits[1]:g}, lowest at "
            f"({lowest[0]:.4g}, {lowest[1]:.4g}), and two roads from "
            f"({self.start[0]:.4g}, {self.start[1]:.4g}), where it is "
            f"{first - self.values['lowest']:.3g} nats higher: {ends}. Below, "
            "the NLL above the lowest against steps, on a logarithmic axis."
        )

    def draw(self, figure: Figure) -> None:
        axis, heights, lowest = self._surface()
        figure.set_size_inches(5.4, 7.2)
        ax, below = figure.subplots(2, height_ratios=(2.6, 1))
        bottom = self.values["lowest"]
        span = max(float(heights.max()) - bottom, 1e-9)
        # Round numbers of nats above the lowest.
        decades = 10.0 ** np.arange(math.floor(math.log10(span)) - 2, math.log10(span))
        levels = np.outer(decades, (1, 2, 5)).flatten()
        lines = ax.contour(
            axis.numpy(),
            axis.numpy(),
            heights.T.numpy() - bottom,
            levels=levels,
            colors=[plot.GRAY],
            linewidths=0.7,
            alpha=0.7,
        )
        ax.clabel(lines, fmt="%g")
        ax.plot(*lowest.tolist(), "+", color=plot.GRAY, markersize=11)
        floor = 10.0 ** (math.ceil(math.log10(span)) - 8)
        for key, hue, style, marker in (("em", 0, "-", "o"), ("descent", 1, "--", "s")):
            road = self.values[key]
            means = np.array(road["road"])
            way = means
            if road["exit"] is not None:
                way = np.vstack([means, road["exit"]])
            color = plot.component_color(hue)
            excess = down_to(floor, [nll - bottom for nll in road["nll"]])
            name = "EM" if key == "em" else "gradient descent"
            ax.plot(*way.T, style, color=color)
            ax.plot(*means.T, marker, color=color, markersize=3.6)
            below.plot(excess, style, color=color, marker=marker, markersize=3.6, label=name)
        ax.plot(*self.start, "o", color=plot.GRAY, markersize=9)
        unit = f" ({self.unit})" if self.unit else ""
        ax.set(
            xlim=self.limits,
            ylim=self.limits,
            xlabel=rf"mean $\mu_1${unit}",
            ylabel=rf"mean $\mu_2${unit}",
            aspect="equal",
        )
        below.set(
            xlim=(0, self.num_steps),
            ylim=(floor, floor * 1e8),
            yscale="log",
            xlabel="step",
            ylabel="NLL above\nthe lowest (nats)",
        )
        figure.legend(loc="outside upper center", ncols=2)


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _ending(road: dict[str, Any]) -> str:
    if road["exit"] is not None:
        return f"leaves the plane at step {len(road['road'])}"
    first, second = road["road"][-1]
    steps = len(road["road"]) - 1
    return f"is at ({first:.4g}, {second:.4g}) after {steps} steps"


def _numbers(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise traitlets.TraitError(f"{name} must hold numbers, got {values!r}") from error


def _pair(values: Any, name: str) -> list[float]:
    pair = _numbers(values, name)
    if pair.shape != (2,):
        raise traitlets.TraitError(
            f"{name} must have shape (2,), one for each mean, got {tuple(pair.shape)}"
        )
    return pair.tolist()


def _points(x: Any) -> list[float]:
    points = _numbers(x, "x")
    if points.ndim not in (1, 2) or points.ndim == 2 and points.shape[1] != 1:
        raise traitlets.TraitError(
            f"x must have shape (N,) or (N, 1), got {tuple(points.shape)}; "
            "choose one column, for example x[:, 1]"
        )
    return points.flatten().tolist()

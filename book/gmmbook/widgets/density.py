"""A mixture density network on Bishop's inverse problem: one mixture for each input."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor, nn

from gmmbook.widgets.base import Interactive
from gmmedu import MixtureDensityHead, MixtureDistribution, plot

#: The range of the input and how many points are shown: as in the front end.
_RANGE, _SHOWN = (-0.1, 1.1), 300
_MEAN, _MODE = plot.PALETTE[6], plot.PALETTE[7]


class MDNExplorer(Interactive):
    """Slide the input x of a network that gives a mixture, and see p(t | x) (eq-mdn-density).

    The network is stored: two layers of twelve tanh units and a head of five components, trained
    on 100,000 points of Bishop's inverse problem, x = t + 0.3 sin(2 pi t) and uniform noise.
    Left, points of the problem and, as far as a reader has been, mean and mode of p(t | x) against
    x; right, p(t | x) at this x with its components.

    at: the input, target: a target t, -0.1 to 1.1 both. values, by torch: weights, means and sds
    of the components; mean, mode and sd of the mixture; height, the density at the mode; and of
    the target its loss, nll, and the responsibilities of the components (eq-mdn-slopes).

    Raises ``traitlets.TraitError`` for an input or a target out of range.
    """

    at = traitlets.CFloat().tag(sync=True)
    target = traitlets.CFloat().tag(sync=True)
    network = traitlets.Dict().tag(sync=True)
    points: traitlets.List[Any] = traitlets.List().tag(sync=True)
    state = ("at", "target")

    def __init__(self, at: float = 0.2, target: float = 0.5, *, name: str = "density") -> None:
        network = json.loads(files("gmmbook").joinpath("data/inverse.json").read_text("utf-8"))
        # Low-discrepancy numbers: no generator is used up, and the points fill the band evenly.
        first, second = (
            [(0.5 + i * step) % 1 for i in range(_SHOWN)] for step in (0.7548776662, 0.5698402910)
        )
        points = [
            [round(t + 0.3 * math.sin(2 * math.pi * t) + 0.2 * v - 0.1, 3), round(t, 3)]
            for t, v in zip(first, second, strict=True)
        ]
        super().__init__(
            kind="density",
            name=name,
            label="A network that gives a mixture for each input",
            at=at,
            target=target,
            network=network,
            points=points,
        )

    @traitlets.validate("at", "target")
    def _within(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        if not _RANGE[0] <= value <= _RANGE[1]:
            raise traitlets.TraitError(f"{name} must lie from -0.1 to 1.1, got {value!r}")
        return value

    @torch.no_grad()
    def distribution(self, x: Tensor) -> MixtureDistribution:
        """p(t | x) of inputs x (N, 1): batch shape (N,), float64."""
        layers = [
            tuple(torch.tensor(part, dtype=torch.float64) for part in layer)
            for layer in self.network["layers"]
        ]
        h = x.double()
        for weight, bias in layers[:-1]:
            h = nn.functional.linear(h, weight, bias).tanh()
        weight, bias = layers[-1]
        head = MixtureDensityHead(len(weight[0]), len(weight) // 3, 1, dtype=torch.float64)
        head.load_state_dict(
            {
                "linear.weight": weight,
                "linear.bias": bias,
                "center": weight.new_tensor([self.network["center"]]),
                "scale": weight.new_tensor([self.network["scale"]]),
                "floor": weight.new_tensor(self.network["floor"]),
                "log_deviation": weight.new_zeros(1, 1),
            }
        )
        return head(h)

    def compute(self) -> dict[str, Any]:
        given = self.distribution(torch.tensor([[self.at]], dtype=torch.float64))
        mode, target = given.mode, given.mean.new_tensor([[self.target]])
        return {
            "weights": given.weights[0].tolist(),
            "means": given.component_means[0, :, 0].tolist(),
            "sds": given.component_covariances[0, :, 0, 0].sqrt().tolist(),
            "mean": float(given.mean),
            "sd": float(given.stddev),
            "mode": float(mode),
            "height": float(given.log_prob(mode).exp()),
            "nll": -float(given.log_prob(target)),
            "responsibilities": given.responsibilities(target)[0].tolist(),
        }

    def _answer(self) -> None:
        super()._answer()
        values = self.values
        self.alt = (
            "Left: points of the inverse problem, an S on its side, and a line at the input "
            f"{self.at:.3g}. Right: the density of the target at that input, of five components, "
            f"with its mean at {values['mean']:.3f} and its highest peak at {values['mode']:.3f}."
        )

    @torch.no_grad()
    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 7.0)
        top, bottom = figure.subplots(2, 1)
        top.plot(*zip(*self.points, strict=True), ".", color=plot.GRAY, markersize=3)
        top.axvline(self.at, color=plot.PALETTE[1])
        top.plot(self.at, self.values["mean"], "s", color=_MEAN)
        top.plot(self.at, self.values["mode"], "D", color=_MODE)
        top.set(xlabel="input x", ylabel="target t", xlim=_RANGE, ylim=(-0.1, 1.1))
        t = torch.linspace(-0.1, 1.1, 400, dtype=torch.float64)
        whole = torch.zeros_like(t)
        for k, (weight, mean, sd) in enumerate(
            zip(self.values["weights"], self.values["means"], self.values["sds"], strict=True)
        ):
            part = weight * torch.distributions.Normal(mean, sd).log_prob(t).exp()
            bottom.plot(t.numpy(), part.numpy(), color=plot.PALETTE[k])
            whole = whole + part
        bottom.plot(t.numpy(), whole.numpy(), color="black", linewidth=2.5)
        bottom.axvline(self.values["mean"], color=_MEAN, linestyle="--", label="mean")
        bottom.axvline(self.values["mode"], color=_MODE, linestyle=":", label="mode")
        bottom.set(xlabel="target t", ylabel="p(t | x)")
        bottom.legend()

"""Two components that come closer, and how slow EM becomes."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook.widgets.base import Interactive
from gmmedu import plot
from gmmedu.models import GmmFull

#: The ranges of the state, the points of the integral and how far it goes: as in the front end.
_RANGES = {"apart": (1.0, 8.0), "share": (0.01, 0.99)}
_POINTS, _REACH = 1200, 9.0
#: From 1e-3 to 1e-6 nats above the lowest NLL.
_FALL = math.log(1000)


class SeparationExplorer(Interactive):
    """Move two Gaussians of standard deviation 1 apart, and read how fast EM is near the optimum.

    The rate of EM is the largest share of information that is missing (eq-em-rate), for endless
    data from the mixture itself, all five numbers unknown: the weight, two means, two standard
    deviations. Below the density: how many iterations the last stretch takes, in which the excess
    of the NLL falls from 1e-3 to 1e-6 nats (eq-iterations-per-digit), against the separation.

    apart: distance of the means in standard deviations, 1 to 8; share: weight of the second
    component, 0.01 to 0.99. values, by torch: rate; iterations (of the last stretch); doubt, the
    mean over points of the smaller responsibility.

    Raises ``traitlets.TraitError`` for a state out of range.
    """

    apart = traitlets.CFloat().tag(sync=True)
    share = traitlets.CFloat().tag(sync=True)
    state = ("apart", "share")

    def __init__(self, apart: float = 4.0, share: float = 0.5, *, name: str = "separation") -> None:
        super().__init__(
            kind="separation",
            name=name,
            label="Two Gaussians, and how fast EM is near the optimum",
            apart=apart,
            share=share,
        )

    @traitlets.validate("apart", "share")
    def _within(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise traitlets.TraitError(f"{name} must lie from {low:g} to {high:g}, got {value!r}")
        return value

    def model(self) -> GmmFull:
        """The mixture as it stands: one dimension, float64."""
        # Given means, so that torch's own random numbers are not used up.
        means = torch.tensor([[0.0], [self.apart]], dtype=torch.float64)
        model = GmmFull(2, 1, init_means=means, dtype=torch.float64)
        weights = torch.tensor([1 - self.share, self.share], dtype=torch.float64)
        covariances = torch.ones(2, 1, 1, dtype=torch.float64)
        return model.set_parameters(weights=weights, covariances=covariances)

    @torch.no_grad()
    def _shares(self) -> tuple[Tensor, Tensor]:
        """Shares of the information that is missing, ascending, and the doubt."""
        model = self.model()
        x = torch.linspace(-_REACH, self.apart + _REACH, _POINTS + 1, dtype=torch.float64)
        mass = model.log_prob(x[:, None]).exp() * (x[1] - x[0])
        r = model.responsibilities(x[:, None])
        z, both = x[:, None] - model.means[:, 0], mass * r.prod(1)
        # Gradients of a_n1 - a_n2 in the logit, the means and the log standard deviations.
        ways = torch.tensor([1.0, -1.0], dtype=torch.float64)
        slopes = torch.cat([torch.ones_like(x[:, None]), ways * z, ways * (z**2 - 1)], dim=1)
        missing = slopes.mT @ (both[:, None] * slopes)
        weights = model.weights
        # Diagonal: the M-step finds each of the five by itself.
        complete = torch.cat([weights.prod()[None], weights, 2 * weights])
        shares = missing / torch.outer(complete, complete).sqrt()
        return torch.linalg.eigvalsh(shares), (mass * r.amin(1)).sum()

    def compute(self) -> dict[str, Any]:
        shares, doubt = self._shares()
        rate = float(shares[-1])
        iterations = _FALL / (-2 * math.log(rate))
        return {"rate": rate, "iterations": iterations, "doubt": float(doubt)}

    def _answer(self) -> None:
        super()._answer()
        rate, iterations = self.values["rate"], self.values["iterations"]
        self.alt = (
            f"Above: the densities of two Gaussians {self.apart:.3g} standard deviations apart, "
            f"the second with weight {self.share:.2g}, and their sum. Below: against the "
            "separation, on a logarithmic axis, how many iterations EM takes from 1e-3 to 1e-6 "
            f"nats above the lowest NLL; here {iterations:.3g}, at a rate of {rate:.3g}."
        )

    @torch.no_grad()
    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 6.2)
        top, bottom = figure.subplots(2, 1)
        plot.density_1d(self.model(), ax=top)
        top.set(xlabel="x (standard deviations)", ylabel="density", xlim=(-4, 12))
        grid = torch.linspace(*_RANGES["apart"], 57).tolist()
        equal, own = (
            [SeparationExplorer(apart, share).values["iterations"] for apart in grid]
            for share in (0.5, self.share)
        )
        bottom.plot(grid, equal, color=plot.GRAY, linestyle="--", label="equal weights")
        bottom.plot(grid, own, label=f"weight {self.share:.2g}")
        bottom.plot(self.apart, self.values["iterations"], "o", color=plot.PALETTE[1])
        bottom.set_yscale("log")
        bottom.set(xlabel="separation (standard deviations)", ylabel="iterations")
        bottom.legend()

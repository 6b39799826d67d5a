"""How many components: a slider of K, and what each criterion says of the fits."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gmmbook import lab
from gmmbook.widgets.base import Interactive
from gmmedu import plot
from gmmedu.datasets import load_galaxies
from gmmedu.models import MODELS, GaussianMixture

_MOST = 9
_FITS = ("floor", "one start", "no floor")
_FAMILIES = ("full", "tied")
_NAMES = {"aic": "AIC", "bic": "BIC", "icl": "ICL", "held_out": "held-out NLL"}
_WAYS = {
    "floor": "a floor of 200 km/s, many starts",
    "one start": "a floor of 200 km/s, one start",
    "no floor": "no floor in effect",
}


class SelectionExplorer(Interactive):
    """Slide the number of components, and read what each criterion says of the fit.

    The speeds of 82 galaxies, in 1000 km/s, with mixtures of 1 to 9 components that were fitted
    beforehand (the study "galaxies" of ``lab``). Beside the density, one criterion against K: AIC
    (eq-aic), BIC (eq-bic), ICL (eq-icl) or the held-out mean NLL (eq-cross-validation). A fit with
    a component on the floor is set aside where there is a floor.

    num_components: K, 1 to 9; criterion: "aic", "bic", "icl" or "held_out"; fits: "floor", no
    standard deviation below 0.2 and the best of many starts, "one start" under the same floor, or
    "no floor", whose lowest NLL is that of a singular fit; family: "full", each component its own
    variance, or "tied", one for all.

    Fixed traits: x, sorted; table, the fits by way and family, one for each K. values, by torch,
    for the present way and family: log_likelihood, aic, bic, icl and held_out, a list over K each;
    lowest, for each criterion the K that it takes.

    Raises ``traitlets.TraitError`` for a state that there is not.
    """

    x = traitlets.List(traitlets.Float(), read_only=True).tag(sync=True)
    table = traitlets.Dict(read_only=True).tag(sync=True)
    num_components = traitlets.Int(min=1, max=_MOST).tag(sync=True)
    criterion = traitlets.Enum(tuple(_NAMES)).tag(sync=True)
    fits = traitlets.Enum(_FITS).tag(sync=True)
    family = traitlets.Enum(_FAMILIES).tag(sync=True)
    state = ("num_components", "criterion", "fits", "family")

    def __init__(
        self,
        num_components: int = 2,
        *,
        criterion: str = "bic",
        fits: str = "floor",
        family: str = "full",
        name: str = "selection",
    ) -> None:
        self.set_trait("x", load_galaxies().double().flatten().sort().values.tolist())
        self.set_trait("table", _table())
        super().__init__(
            kind="selection",
            name=name,
            label="How many components: the fits of galaxies, and what the criteria say of them",
            num_components=num_components,
            criterion=criterion,
            fits=fits,
            family=family,
        )

    def model(self, num_components: int | None = None) -> GaussianMixture:
        """The fit of K components, float64; of the present K unless another is named."""
        count = self.num_components if num_components is None else num_components
        fit = self.table[self.fits][self.family][count - 1]
        weights, means, sds = (
            torch.tensor(fit[part], dtype=torch.float64) for part in ("weights", "means", "sds")
        )
        # Given means, so that torch's own random numbers are not used up.
        model = MODELS[self.family](count, 1, init_means=means[:, None], dtype=torch.float64)
        return model.set_parameters(weights, covariances=sds.square()[:, None, None])

    @torch.no_grad()
    def compute(self) -> dict[str, Any]:
        x = torch.tensor(self.x, dtype=torch.float64)[:, None]
        fits = self.table[self.fits][self.family]
        models = [self.model(count) for count in range(1, _MOST + 1)]
        curves: dict[str, list[Any]] = {
            "log_likelihood": [float(model.log_prob(x).sum()) for model in models],
            "aic": [float(model.aic(x)) for model in models],
            "bic": [float(model.bic(x)) for model in models],
            "icl": [float(model.icl(x)) for model in models],
            "held_out": [fit["held_out"] for fit in fits],
        }
        lowest = {}
        for name in _NAMES:
            curve = curves[name]
            able = [i for i in range(_MOST) if fits[i]["regular"]]
            lowest[name] = 1 + min(able, key=lambda i: curve[i])
        return {**curves, "lowest": lowest}

    def _answer(self) -> None:
        super()._answer()
        count, lowest = self.num_components, self.values["lowest"]
        self.alt = (
            f"Above: a histogram of the speeds of 82 galaxies and a mixture of {count} components "
            f"fitted to them, {_WAYS[self.fits]}. Below: {_NAMES[self.criterion]} against the "
            f"number of components, lowest at {lowest[self.criterion]}."
        )

    @torch.no_grad()
    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 6.2)
        top, bottom = figure.subplots(2, 1)
        self._draw_density(top)
        curve, fits = self.values[self.criterion], self.table[self.fits][self.family]
        bottom.plot(range(1, _MOST + 1), curve, color=plot.GRAY, linewidth=1.2)
        for k, (v, fit) in enumerate(zip(curve, fits, strict=True), 1):
            fill = plot.GRAY if fit["regular"] else "none"
            bottom.plot(k, v, "o", color=plot.GRAY, markerfacecolor=fill)
        best = self.values["lowest"][self.criterion]
        bottom.annotate("lowest", (best, curve[best - 1]), (0, -16), textcoords="offset points",
                        ha="center")  # fmt: skip
        at = self.num_components
        bottom.plot(at, curve[at - 1], "o", color=plot.PALETTE[1])
        bottom.margins(y=0.2)
        bottom.set(xlabel="components K", ylabel=_NAMES[self.criterion])

    def _draw_density(self, ax: Axes) -> None:
        low, high = int(self.x[0]) - 1, int(self.x[-1]) + 2
        heights, *_ = ax.hist(
            self.x, range(low, high + 1), density=True, color=plot.GRAY, alpha=0.3
        )
        model = self.model()
        sds = model.covariances.flatten().sqrt()
        near = model.means + sds[:, None] * torch.linspace(-5, 5, 61).to(sds)
        even = torch.linspace(low, high, 301, dtype=torch.float64)
        grid = torch.cat([even, near.flatten()]).sort().values
        whole = model.log_prob(grid[:, None]).exp()
        ax.plot(grid.numpy(), whole.numpy(), color=plot.GRAY, linewidth=3)
        for k, (weight, mean, sd) in enumerate(zip(model.weights, model.means, sds, strict=True)):
            own = torch.distributions.Normal(mean, sd).log_prob(near[k]).exp() * weight
            color = plot.PALETTE[k % len(plot.PALETTE)]
            ax.plot(near[k].numpy(), own.numpy(), color=color, linewidth=1.6)
        ax.set(
            xlim=(low, high),
            ylim=(0, 1.4 * max(heights)),
            xlabel="speed (1000 km/s)",
            ylabel="density",
        )


def _table() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The stored fits by way and family, in the order of K."""
    parts = ("weights", "means", "sds", "held_out", "regular")
    table: dict[str, dict[str, list[dict[str, Any]]]] = {
        fits: {family: [] for family in _FAMILIES} for fits in _FITS
    }
    for record in lab.study("galaxies"):
        own = table[record["fits"]][record["family"]]
        own.append({part: record[part] for part in parts})
    return table

"""One Gaussian in the plane, to be dragged by its mean and its axes."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure

from gmmbook.widgets.base import Interactive
from gmmedu import plot
from gmmedu.models import GmmFull


def _numbers(values: Any) -> Any:
    return torch.as_tensor(values, dtype=torch.float64).tolist()


class GaussianExplorer(Interactive):
    """Drag the mean and the principal axes of a Gaussian in the plane.

    Shows the 50 % and 95 % ellipse, covariance and correlation, the log density at a point
    (eq-mvn-log-density), both marginals, and the second coordinate given the first
    (eq-gaussian-conditional).

    mean: (2,), inside the square from -limit to limit; covariance: (2, 2), positive definite;
    point: (2,), where the density is read; slice: the x1 of the conditional; limit: half the side
    of the square. values: correlation, sds (the longer axis first), log_density, mahalanobis,
    conditional_mean, conditional_sd, by torch.

    Raises ``traitlets.TraitError`` for a value that is no Gaussian inside the square.
    """

    mean = traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2).tag(sync=True)
    covariance = traitlets.List(
        traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2), minlen=2, maxlen=2
    ).tag(sync=True)
    point = traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2).tag(sync=True)
    slice = traitlets.CFloat(1.0).tag(sync=True)
    limit = traitlets.CFloat(4.0).tag(sync=True)
    state = ("mean", "covariance", "point", "slice")

    def __init__(
        self,
        mean: Any = (0.0, 0.0),
        covariance: Any = ((2.0, 0.9), (0.9, 1.0)),
        *,
        point: Any = (1.0, 1.0),
        slice: float = 1.0,
        limit: float = 4.0,
        name: str = "gaussian",
    ) -> None:
        super().__init__(
            kind="gaussian",
            name=name,
            label="A Gaussian in the plane, to be dragged by its mean and axes",
            alt="The 50 % and 95 % ellipse of a Gaussian in the plane.",
            limit=limit,
            mean=_numbers(mean),
            covariance=_numbers(covariance),
            point=_numbers(point),
            slice=slice,
        )

    @traitlets.validate("covariance")
    def _definite(self, proposal: Any) -> Any:
        given = torch.tensor(proposal["value"], dtype=torch.float64)
        # A product of matrices is symmetric to rounding.
        matrix = (given + given.mT) / 2
        # A NaN is not even.
        even = (given - matrix).abs() <= 1e-9 * given.abs().max()
        if not bool(even.all()) or bool(torch.linalg.cholesky_ex(matrix).info):
            raise traitlets.TraitError(
                f"covariance must be symmetric and positive definite, got {proposal['value']}"
            )
        return matrix.tolist()

    @traitlets.validate("mean", "point", "slice")
    def _inside(self, proposal: Any) -> Any:
        value = proposal["value"]
        if not all(abs(v) <= self.limit for v in (value if isinstance(value, list) else [value])):
            raise traitlets.TraitError(
                f"{proposal['trait'].name} must lie within limit={self.limit}, "
                f"got {proposal['value']}"
            )
        return proposal["value"]

    def model(self) -> GmmFull:
        """The Gaussian as a mixture of one component, float64."""
        means = torch.tensor([self.mean], dtype=torch.float64)
        # Given means, so that torch's own random numbers are not used up.
        model = GmmFull(1, 2, init_means=means, dtype=torch.float64)
        return model.set_parameters(
            covariances=torch.tensor([self.covariance], dtype=torch.float64)
        )

    @torch.no_grad()
    def compute(self) -> dict[str, Any]:
        model = self.model()
        covariance = model.covariances[0]
        point = torch.tensor([self.point], dtype=torch.float64)
        residual = point[0] - model.means[0]
        sds = covariance.diagonal().sqrt()
        # It initializes a mixture at random before it sets it.
        with torch.random.fork_rng(devices=[]):
            given = model.condition({0: self.slice})
        return {
            "correlation": float(covariance[0, 1] / sds.prod()),
            "sds": torch.linalg.eigvalsh(covariance).flip(0).sqrt().tolist(),
            "log_density": float(model.log_prob(point)),
            "mahalanobis": float((residual @ torch.linalg.solve(covariance, residual)).sqrt()),
            "conditional_mean": float(given.means[0, 0]),
            "conditional_sd": float(given.covariances[0, 0, 0].sqrt()),
        }

    def draw(self, figure: Figure) -> None:
        ax = figure.add_subplot()
        plot.ellipses(self.model(), ax)
        ax.set(
            xlim=(-self.limit, self.limit),
            ylim=(-self.limit, self.limit),
            xlabel="$x_1$",
            ylabel="$x_2$",
            aspect="equal",
        )

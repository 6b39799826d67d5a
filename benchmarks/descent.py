"""Time of one iteration of ``fit_model``, beside what a torch user would write by hand.

The baseline is the method of the GMMPytorch README: the mean negative log likelihood of a
``torch.distributions`` mixture, autograd, one Adam optimizer for the mixing weights and one for the
components, each under a cosine schedule. The data are standardized beforehand, since gmmedu takes
its steps in units of the data's spread: then both walk the same path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    MixtureSameFamily,
    MultivariateNormal,
    constraints,
    transform_to,
)

import gmmedu
from benchmarks.problems import DTYPES, Parameters, load, make_start, standardized
from benchmarks.timing import Comparison, Schedule, compare

MIXTURE_LR = 1e-2
COMPONENT_LR = 1e-2

#: (N, D, K) -> iterations timed, and the least ratio wanted.
SIZES = {(10_000, 8, 10): (40, 4.0), (1_000, 2, 5): (300, 3.0)}
QUICK_SIZES = {(2_000, 8, 10): (20, 4.0), (1_000, 2, 5): (60, 3.0)}


def fit_gmmedu(x: Tensor, start: Parameters, iterations: int) -> Parameters:
    """``fit_model`` as a user calls it: default mitigation, history and checks included."""
    model = gmmedu.GmmFull(*start.means.shape, dtype=x.dtype)
    model.set_parameters(
        weights=torch.from_numpy(start.weights).to(x.dtype),
        means=torch.from_numpy(start.means).to(x.dtype),
        covariances=torch.from_numpy(start.covariances).to(x.dtype),
    )
    gmmedu.fit_model(
        model, x, num_iterations=iterations, mixture_lr=MIXTURE_LR, component_lr=COMPONENT_LR
    )
    return _parameters(model.weights, model.means, model.covariances)


@dataclass(frozen=True)
class Baseline:
    """A mixture of ``torch.distributions`` under two Adam optimizers with cosine schedules.

    validate: whether torch checks arguments, as it does unless told otherwise. transformed: whether
    the factor of a covariance is kept positive by torch's own transform (a logarithm on its
    diagonal, as in gmmedu, so that both walk the same path), or is a bare parameter as in
    GMMPytorch.
    """

    validate: bool | None = None
    transformed: bool = True

    def fit(self, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        to_factor = transform_to(constraints.lower_cholesky)
        logits = torch.from_numpy(start.weights).to(x.dtype).log().requires_grad_()
        means = torch.from_numpy(start.means).to(x.dtype).clone().requires_grad_()
        factors = torch.linalg.cholesky(torch.from_numpy(start.covariances)).to(x.dtype)
        free = (to_factor.inv(factors) if self.transformed else factors).clone().requires_grad_()

        def loss() -> Tensor:
            scale_tril = to_factor(free) if self.transformed else free
            mixture = MixtureSameFamily(
                Categorical(logits=logits, validate_args=self.validate),
                MultivariateNormal(means, scale_tril=scale_tril, validate_args=self.validate),
                validate_args=self.validate,
            )
            return -mixture.log_prob(x).mean()

        optimizers = [
            torch.optim.Adam([logits], lr=MIXTURE_LR),
            torch.optim.Adam([means, free], lr=COMPONENT_LR),
        ]
        schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
            for optimizer in optimizers
        ]
        for _ in range(iterations):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss().backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
        fitted = to_factor(free) if self.transformed else free
        return _parameters(logits.softmax(0), means, fitted @ fitted.mT)


BASELINES = {
    "torch.distributions": Baseline(),
    "torch.distributions, not validated": Baseline(validate=False),
    "torch.distributions, bare factor": Baseline(transformed=False),
}
#: Those who walk the same path as gmmedu, so that their answers can be compared.
JUDGED = ("torch.distributions", "torch.distributions, not validated")
#: Those who run as a user has them by default.
BARRED = ("torch.distributions", "torch.distributions, bare factor")


def run(quick: bool = False) -> Iterator[Comparison]:
    """Both sizes in float32 and float64, full covariances."""
    for size, (iterations, bar) in (QUICK_SIZES if quick else SIZES).items():
        points = standardized(load(size))
        for dtype, torch_dtype in DTYPES.items():
            x = points.to(torch_dtype)
            start = make_start(x, num_components=size[2])
            fits = {name: partial(baseline.fit, x, start) for name, baseline in BASELINES.items()}
            yield compare(
                {"gmmedu": partial(fit_gmmedu, x, start), **fits},
                x,
                Schedule(short=10, extra=iterations, repeats=3 if quick else 7),
                family="full",
                size=size,
                dtype=dtype,
                bars=dict.fromkeys(BARRED, bar),
                judged=JUDGED,
            )


def _parameters(weights: Tensor, means: Tensor, covariances: Tensor) -> Parameters:
    return Parameters(
        weights.detach().double().numpy(),
        means.detach().double().numpy(),
        covariances.detach().double().numpy(),
    )

"""Gaussian mixtures as torch modules. The density is derived in chapter 02, its NLL in 03.

``model(x)`` is the mean negative log likelihood, an ordinary differentiable loss: gradients reach
the parameters and ``x``, so a mixture can stand on top of a network. The fitters do not need it;
they use the statistics of one pass instead, which the tests prove equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gmmedu import checks, families, gaussian
from gmmedu.families import Factors, Family

#: Numbers in the largest intermediate array of one block of points.
_BLOCK_NUMBERS = 2**22


class State(NamedTuple):
    """The numbers of a mixture: log weights (K,), means (K, D), factors as its family has them."""

    log_weights: Tensor
    means: Tensor
    factors: Factors


class GaussianMixture(nn.Module):
    """A mixture of K Gaussians in D dimensions, sum_k pi_k N(x | mu_k, Sigma_k) (eq-gmm-density).

    Use one of the named models; each is this class with a family of covariances.

    Args:
        num_components: K, at least 1.
        num_dims: D, at least 1.
        init_radius: the means start uniform in the box [-init_radius, init_radius]^D.
        init_means: means to start from, (K, D), instead of the box.
        device, dtype: of the parameters; torch's defaults when not given.
        generator: a CPU generator for the box.

    Weights start equal and covariances at the identity. ``initialize`` takes all three from data.

    Parameters (as ``state_dict`` names them): ``logits`` (K,), the weights' logarithms up to a
    common constant; ``means`` (K, D); ``theta``, the family's unconstrained covariance numbers.
    Points handed in are converted to the model's dtype; another device is an error.
    """

    family: Family
    logits: Tensor
    means: Tensor
    theta: Tensor

    def __init__(
        self,
        num_components: int,
        num_dims: int,
        init_radius: float = 1.0,
        init_means: Tensor | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if type(self) is GaussianMixture:
            names = ", ".join(model.__name__ for model in MODELS)
            raise TypeError(
                f"GaussianMixture has no covariance family; use one of {names}"
            )
        super().__init__()
        self.num_components = checks.check_count(
            num_components, "num_components"
        )
        self.num_dims = checks.check_count(num_dims, "num_dims")
        radius = checks.check_number(
            init_radius, "init_radius", inclusive=True
        )
        checks.check_generator(generator)
        dtype = checks.check_dtype(dtype)
        shape = (num_components, num_dims)
        if init_means is None:
            uniform = torch.rand(
                shape, generator=generator, dtype=torch.float64
            )
            means = radius * (2 * uniform - 1)
        else:
            means = checks.check_points(
                init_means, num_dims, dtype=dtype, name="init_means"
            )
            if tuple(means.shape) != shape:
                raise ValueError(
                    f"init_means must have shape {shape}, got {tuple(means.shape)}"
                )
        means = means.detach().to(device=device, dtype=dtype, copy=True)
        self.means = nn.Parameter(means)
        self.logits = nn.Parameter(torch.zeros_like(means[:, 0]))
        theta = self.family.from_covariances(
            torch.eye(num_dims, dtype=dtype, device=means.device).repeat(
                num_components, 1, 1
            ),
            torch.full_like(means[:, 0], 1 / num_components),
        )
        if self.family.trainable:
            self.theta = nn.Parameter(theta)
        else:
            self.register_buffer("theta", theta)

    # What it is

    @property
    def weights(self) -> Tensor:
        """Mixing weights pi, (K,), positive, summing to one (eq-softmax-weights)."""
        return self.logits.softmax(0)

    @property
    def covariances(self) -> Tensor:
        """Covariances Sigma, (K, D, D); never standard deviations."""
        triangular = self._triangular()
        return triangular @ triangular.mT

    @property
    def num_free_parameters(self) -> int:
        """K - 1 weights, K D means, and what the family's covariances have (eq-free-parameters)."""
        covariances = self.family.count(self.num_components, self.num_dims)
        return (
            self.num_components
            - 1
            + self.num_components * self.num_dims
            + covariances
        )

    def extra_repr(self) -> str:
        return f"num_components={self.num_components}, num_dims={self.num_dims}"

    @torch.no_grad()
    def set_parameters(
        self,
        weights: Tensor | None = None,
        means: Tensor | None = None,
        covariances: Tensor | None = None,
    ) -> Self:
        """Set any of weights (K,), means (K, D) and covariances (K, D, D); returns the model.

        Weights are normalized. Covariances that the family cannot hold are averaged to the
        nearest that it can; those of the constant family become its given variance. Nothing
        changes unless everything is valid.

        Raises: ValueError or TypeError that names the argument (and component) at fault.
        """
        k, d = self.num_components, self.num_dims
        if weights is not None:
            weights = checks.check_weights(
                weights, (k,), self.means.device, "weights"
            ).double()
            weights = weights / weights.sum()
        if means is not None:
            means = self._check_points(means, "means")
            if means.shape[0] != k:
                raise ValueError(
                    f"means must have shape {(k, d)}, got {tuple(means.shape)}"
                )
        if covariances is not None:
            covariances = checks.check_covariances(
                covariances, k, d, self.means
            )
            shares = self.weights.double() if weights is None else weights
            self.theta.copy_(
                self.family.from_covariances(covariances, shares)
            )
        if weights is not None:
            tiny = torch.finfo(self.logits.dtype).tiny
            self.logits.copy_(weights.clamp_min(tiny).log())
        if means is not None:
            self.means.copy_(means)
        return self

    def state(self) -> State:
        """Log weights, means and factors as they stand, detached: what one pass needs."""
        factors = Factors(*(part.detach() for part in self._factors()))
        return State(
            self.logits.detach().log_softmax(0),
            self.means.detach(),
            factors,
        )

    # What it says of points

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log likelihood of x (N, D), a scalar in nats (eq-gmm-nll)."""
        return -self.log_prob(x).mean()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x_n) for x (N, D): (N,), in nats (eq-gmm-log-density)."""
        return torch.cat(
            [joint.logsumexp(0) for joint in self._log_joint(x)]
        )

    def responsibilities(self, x: Tensor) -> Tensor:
        """r_nk = p(component k | x_n) for x (N, D): (N, K), rows sum to 1 (eq-responsibilities)."""
        return torch.cat(
            [joint.softmax(0).mT for joint in self._log_joint(x)]
        )

    def predict(self, x: Tensor) -> Tensor:
        """The most responsible component of each point of x (N, D): (N,), int64."""
        return torch.cat([joint.argmax(0) for joint in self._log_joint(x)])

    def _log_joint(self, x: Tensor) -> list[Tensor]:
        """log pi_k + log N(x_n | mu_k, Sigma_k) of x (N, D), in blocks (K, B)."""
        x = self._check_points(x, "x")
        log_weights = self.logits.log_softmax(0).unsqueeze(-1)
        factor, whitening = self._factors()
        log_det = self.family.log_det(factor, self.num_dims)
        width = max(
            1, _BLOCK_NUMBERS // (self.num_components * self.num_dims)
        )
        return [
            log_weights
            + gaussian.log_density(
                self.family.whiten(
                    whitening, gaussian.residuals(block, self.means)
                ),
                log_det,
            )
            for block in x.split(width)
        ]

    def _check_points(self, x: Tensor, name: str) -> Tensor:
        like = self.means
        return checks.check_points(
            x,
            self.num_dims,
            device=like.device,
            dtype=like.dtype,
            name=name,
        )

    def aic(self, x: Tensor) -> float:
        """Akaike's criterion of x (N, D), 2 p - 2 log L: lower is better."""
        return 2 * self.num_free_parameters - 2 * self._log_likelihood(x)

    def bic(self, x: Tensor) -> float:
        """Schwarz's criterion of x (N, D), p log N - 2 log L: lower is better."""
        log_likelihood = self._log_likelihood(x)
        return (
            self.num_free_parameters * math.log(len(x)) - 2 * log_likelihood
        )

    @torch.no_grad()
    def _log_likelihood(self, x: Tensor) -> float:
        return float(self.log_prob(x).sum(dtype=torch.float64))

    # What can be made of it

    @torch.no_grad()
    def sample(
        self, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw points from the mixture: (num_samples, D)."""
        return self.sample_with_labels(num_samples, generator=generator)[0]

    @torch.no_grad()
    def sample_with_labels(
        self, num_samples: int, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw points (num_samples, D) and the components that made them (num_samples,).

        First the component by its weight, then the point from it (eq-generative).
        """
        checks.check_count(num_samples, "num_samples", minimum=0)
        checks.check_generator(generator)
        k, d = self.num_components, self.num_dims
        weights = self.weights.double().cpu()
        uniform = torch.rand(
            num_samples, generator=generator, dtype=torch.float64
        )
        labels = torch.searchsorted(weights.cumsum(0), uniform).clamp_max(
            k - 1
        )
        normal = torch.randn(
            num_samples, d, generator=generator, dtype=torch.float64
        )
        labels, normal = labels.to(self.means.device), normal.to(self.means)
        factors = self._triangular()
        x = torch.empty_like(normal)
        for component in range(k):
            mine = labels == component
            x[mine] = (
                self.means[component] + normal[mine] @ factors[component].mT
            )
        return x, labels

    @torch.no_grad()
    def marginal(self, dims: Sequence[int]) -> Self:
        """The mixture of the given dimensions alone, in that order (eq-marginal)."""
        dims = self._check_dims(dims, "dims")
        smaller = self._like(len(dims))
        covariances = self.covariances[:, dims][:, :, dims]
        return smaller.set_parameters(
            self.weights, self.means[:, dims], covariances
        )

    @torch.no_grad()
    def condition(self, given: Mapping[int, float]) -> Self:
        """The mixture of the other dimensions, given values of some (eq-conditional).

        given: dimension -> value, for example ``{0: 3.5}``. Each component is conditioned for
        itself (eq-gaussian-conditional), and the weights become the responsibilities of the
        components for the given values.
        """
        if not isinstance(given, Mapping):
            raise TypeError(
                f"given must map dimensions to values, as in {{0: 3.5}}; got {given!r}"
            )
        dims = self._check_dims(list(given), "given")
        rest = [d for d in range(self.num_dims) if d not in dims]
        if not rest:
            raise ValueError(
                f"given must leave at least one of the {self.num_dims} dimensions free"
            )
        values = [
            checks.check_number(value, f"given[{d}]", minimum=-math.inf)
            for d, value in given.items()
        ]
        value = torch.tensor(
            values, dtype=self.means.dtype, device=self.means.device
        )
        known = self.marginal(dims)
        sigma = self.covariances
        across = sigma[:, rest][:, :, dims]
        factor = torch.linalg.cholesky(sigma[:, dims][:, :, dims])
        gain = torch.cholesky_solve(across.mT, factor).mT
        offset = (value - self.means[:, dims]).unsqueeze(-1)
        means = self.means[:, rest] + (gain @ offset).squeeze(-1)
        covariances = sigma[:, rest][:, :, rest] - gain @ across.mT
        weights = known.responsibilities(value.unsqueeze(0))[0]
        if not bool(torch.isfinite(weights).all()):
            raise ValueError(
                f"given is so far from every component that its density leaves the range of "
                f"{self.means.dtype}, got {dict(given)}"
            )
        return self._like(len(rest)).set_parameters(
            weights, means, (covariances + covariances.mT) / 2
        )

    def _factors(self) -> Factors:
        checks.check_dtype(self.means.dtype, "the model's dtype")
        return self.family.unpack(self.theta)

    def _triangular(self) -> Tensor:
        """L of each component, lower triangular: (K, D, D)."""
        triangular = self.family.triangular(
            self._factors().factor, self.num_dims
        )
        return triangular.expand(
            self.num_components, self.num_dims, self.num_dims
        )

    def _check_dims(self, dims: Any, name: str) -> list[int]:
        known = range(self.num_dims)
        if (
            not isinstance(dims, Sequence)
            or not dims
            or any(type(d) is not int or d not in known for d in dims)
            or len(set(dims)) < len(dims)
        ):
            raise ValueError(
                f"{name} must name distinct dimensions from 0 to {self.num_dims - 1}, got {dims}"
            )
        return list(dims)

    def _like(self, num_dims: int) -> Self:
        """A model of the same class, device and dtype in another number of dimensions."""
        return type(self)(
            self.num_components,
            num_dims,
            device=self.means.device,
            dtype=self.means.dtype,
        )

    def to_distribution(self) -> torch.distributions.MixtureSameFamily:
        """The same mixture as a torch distribution; gradients reach this model's parameters."""
        return torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=self.logits),
            torch.distributions.MultivariateNormal(
                self.means, scale_tril=self._triangular()
            ),
        )


class GmmFull(GaussianMixture):
    """A mixture whose components have any covariance: K D (D + 1) / 2 free numbers."""

    family = families.FULL


class GmmTied(GaussianMixture):
    """A mixture whose components share one covariance of any shape: D (D + 1) / 2 free numbers."""

    family = families.TIED


class GmmDiagonal(GaussianMixture):
    """A mixture with diagonal covariances, axes along the dimensions: K D free numbers."""

    family = families.DIAGONAL


class GmmIsotropic(GaussianMixture):
    """A mixture of round components, each with its own variance: K free numbers."""

    family = families.ISOTROPIC


class GmmSharedIsotropic(GaussianMixture):
    """A mixture of round components of one common variance: 1 free number."""

    family = families.SHARED_ISOTROPIC


class GmmConstant(GaussianMixture):
    """A mixture of round components whose variance is given and stays: no free numbers.

    variance: sigma^2 of every component in every dimension, in squared units of the data.
    """

    family = families.CONSTANT

    def __init__(
        self,
        num_components: int,
        num_dims: int,
        init_radius: float = 1.0,
        init_means: Tensor | None = None,
        *,
        variance: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        log_scale = 0.5 * math.log(
            checks.check_number(variance, "variance")
        )
        super().__init__(
            num_components,
            num_dims,
            init_radius,
            init_means,
            device=device,
            dtype=dtype,
            generator=generator,
        )
        self.theta.fill_(log_scale)


def check_mixture(model: Any) -> GaussianMixture:
    """Return ``model`` if it is a mixture of this package, in float32 or float64."""
    if not isinstance(model, GaussianMixture):
        kind = (
            model.__name__
            if isinstance(model, type)
            else type(model).__name__
        )
        raise TypeError(
            f"model must be a gmmedu mixture such as GmmFull(2, 2), got {kind}"
        )
    checks.check_dtype(model.means.dtype, "the model's dtype")
    return model


MODELS = (
    GmmFull,
    GmmTied,
    GmmDiagonal,
    GmmIsotropic,
    GmmSharedIsotropic,
    GmmConstant,
)

#: The named models by the name of their family.
FAMILIES: dict[str, type[GaussianMixture]] = {
    model.family.name: model for model in MODELS
}

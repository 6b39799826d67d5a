"""Gaussian mixtures as torch modules: parameters, and the density of ``mixture`` at them.

``model(x)`` is the mean negative log likelihood, an ordinary differentiable loss: gradients reach
the parameters and ``x``, so a mixture can stand on top of a network. The fitters do not need it;
they use the statistics of one pass instead, which the tests prove equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gmmedu import checks, covariance, mixture
from gmmedu.covariance import Family
from gmmedu.device import current_device
from gmmedu.mixture import MixtureDistribution
from gmmedu.values import State, each, take

if TYPE_CHECKING:
    from typing_extensions import Self


class GaussianMixture(nn.Module):
    """A mixture of K Gaussians in D dimensions, sum_k pi_k N(x | mu_k, Sigma_k) (eq-gmm-density).

    Use one of the named models; each is this class with a family of covariances.

    Args:
        num_components: K, at least 1.
        num_dims: D, at least 1.
        init_radius: the means start uniform in the box [-init_radius, init_radius]^D.
        init_means: means to start from, (*batch_shape, K, D), instead of the box.
        batch_shape: of many mixtures side by side; (), one mixture, unless given. ``model[i]``
            is one of them.
        validate_args: whether to look at the values of points that come in, which waits for a
            GPU; shapes and dtypes are always looked at, and with ``missing=True`` values too.
        device, dtype: of the parameters; torch's defaults when not given.
        generator: a CPU generator for the box.

    Weights start equal and covariances at the identity. ``initialize`` takes all three from data.

    Parameters (as ``state_dict`` names them): ``logits`` (K,), the weights' logarithms up to a
    common constant; ``means`` (K, D); ``raw_scale``, the family's unconstrained covariance
    numbers. One with ``requires_grad=False`` is held fixed by every fitter. Points handed in are
    converted to the model's dtype; another device is an error. Below, (..., K) stands for
    (*batch_shape, K).
    """

    #: The family of covariances, which functions of values ask for.
    family: Family
    logits: Tensor
    means: Tensor
    raw_scale: Tensor

    def __init__(
        self,
        num_components: int,
        num_dims: int,
        init_radius: float = 1.0,
        init_means: Tensor | None = None,
        *,
        batch_shape: Sequence[int] | int = (),
        validate_args: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if type(self) is GaussianMixture:
            names = ", ".join(model.__name__ for model in MODELS.values())
            raise TypeError(f"GaussianMixture has no covariance family; use one of {names}")
        super().__init__()
        # An attribute of its own: torch 2.4 compiles none that only the class has.
        self.family = type(self).family
        self.num_components = checks.check_count(num_components, "num_components")
        self.num_dims = checks.check_count(num_dims, "num_dims")
        self.batch_shape = checks.check_batch_shape(batch_shape)
        self.validate_args = checks.check_flag(validate_args, "validate_args")
        radius = checks.check_number(init_radius, "init_radius", inclusive=True)
        checks.check_generator(generator)
        dtype = checks.check_dtype(dtype)
        device = current_device() if device is None else torch.device(device)
        shape = (*self.batch_shape, self.num_components, self.num_dims)
        if init_means is not None:
            means = checks.check_means(init_means, shape, "init_means", dtype=dtype)
        elif radius:
            means = radius * (2 * checks.uniform(*shape, generator=generator) - 1)
        else:
            means = torch.zeros(shape, device="cpu")  # draws nothing
        with torch.inference_mode(False):
            self._make(means.detach().to(device=device, dtype=dtype, copy=True))

    def _make(self, means: Tensor) -> None:
        """Make the parameters: those means, equal weights, covariances at the identity."""
        self.means = nn.Parameter(means)
        self.logits = nn.Parameter(torch.zeros_like(means[..., 0]))
        # Of the identity it is zero (eq-scale-maps, eq-log-cholesky).
        shape = self.family.shape(self.num_components, self.num_dims)
        raw_scale = means.new_zeros(*self.batch_shape, *shape)
        if self.family.trainable:
            self.raw_scale = nn.Parameter(raw_scale)
        else:
            self.register_buffer("raw_scale", raw_scale)

    # What it is

    @property
    def weights(self) -> Tensor:
        """Mixing weights pi, (..., K), positive, summing to one (eq-softmax-weights)."""
        return self.logits.softmax(-1)

    @property
    def covariances(self) -> Tensor:
        """Covariances Sigma, (..., K, D, D); never standard deviations."""
        return mixture.covariances(self.family, self.state())

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (..., D)."""
        return mixture.moments(self.family, self.state())[0]

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, (..., D, D)."""
        return mixture.moments(self.family, self.state())[1]

    @property
    def num_free_parameters(self) -> int:
        """K - 1 weights, K D means, and what the family's covariances have (eq-free-parameters)."""
        covariances = self.family.count(self.num_components, self.num_dims)
        return self.num_components - 1 + self.num_components * self.num_dims + covariances

    def state(self) -> State:
        """Log weights, means and scales: values with a gradient to the parameters, which later
        changes of the model leave as they are."""
        checks.check_dtype(self.means.dtype, "the model's dtype")
        with torch.autocast(self.means.device.type, enabled=False):
            scales = self.family.operator.from_raw(self.raw_scale)
            return State(self.logits.log_softmax(-1), self.means.clone(), scales)

    def extra_repr(self) -> str:
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        return f"num_components={self.num_components}, num_dims={self.num_dims}{batch}"

    def __getitem__(self, index: Any) -> Self:
        """Some of a batch of mixtures, as a model of its own: ``many[3]``, ``many[2:5]``."""
        if not self.batch_shape:
            raise TypeError("this model is one mixture, with batch_shape=(); there is no other")
        if isinstance(index, Tensor) and index.ndim == 0:
            index = int(index)
        place = torch.arange(math.prod(self.batch_shape), device=self.means.device)
        # An index of more dimensions than the batch has ends here.
        place = place.reshape(self.batch_shape)[index]
        new = self._like(self.num_dims, place.shape)
        with torch.no_grad():
            for mine, its in zip(self._numbers(), new._numbers(), strict=True):
                its.copy_(mine.flatten(0, len(self.batch_shape) - 1)[place])
                its.requires_grad_(mine.requires_grad)
        return new

    @torch.no_grad()
    def set_parameters(
        self,
        weights: Tensor | None = None,
        means: Tensor | None = None,
        covariances: Tensor | None = None,
    ) -> Self:
        """Set any of weights (..., K), means (..., K, D), covariances (..., K, D, D); returns the
        model.

        Weights are normalized. Covariances that the family cannot hold are averaged to the
        nearest that it can; those of the constant family become its given variance. Nothing
        changes unless everything is valid.

        Raises: ValueError or TypeError that names the argument (and component) at fault.
        """
        shape = (*self.batch_shape, self.num_components, self.num_dims)
        device, raw_scale = self.means.device, None
        if weights is not None:
            weights = checks.check_weights(weights, shape[:-1], device, "weights")
            weights = weights / weights.sum(-1, keepdim=True)
        if means is not None:
            dtype = self.means.dtype
            means = checks.check_means(means, shape, "means", device=device, dtype=dtype)
        if covariances is not None:
            covariances = checks.check_covariances(covariances, (*shape, self.num_dims), self.means)
            shares = self.weights.double() if weights is None else weights
            factor = self.family.from_covariances(covariances, shares)
            raw_scale = self.family.operator.to_raw(factor)
        if weights is not None:
            tiny = torch.finfo(self.logits.dtype).tiny
            self.logits.copy_(weights.clamp_min(tiny).log())
        if means is not None:
            self.means.copy_(means)
        if raw_scale is not None:
            self.raw_scale.copy_(raw_scale)
        return self

    @torch.no_grad()
    def set_state(self, state: State) -> Self:
        """Set all parameters from values, (*batch_shape, K) of them; a given (constant) variance
        and what is held fixed stay. Returns the model.

        Raises ``TypeError`` or ``ValueError`` for a state of another family or shape, or one that
        is not finite; the model is then unchanged."""
        mixture.check_state(state, self.family)
        if state.means.shape != self.means.shape:
            wanted, found = tuple(self.means.shape), tuple(state.means.shape)
            raise ValueError(f"state must have means of shape {wanted}, got {found}")
        names = ("log weights", "means", "scales")
        for name, value, number in zip(names, self._values(state), self._numbers(), strict=True):
            if not bool(torch.isfinite(value.to(number.dtype)).all()):
                raise ValueError(
                    f"state must be finite in {number.dtype}, but its {name} hold NaN or infinity"
                )
        return self._take(state)

    @torch.no_grad()
    def _take(self, state: State) -> Self:
        """``set_state`` of a state of this very model, whatever its values."""
        for number, value in zip(self._numbers(), self._values(state), strict=True):
            if number.requires_grad:
                number.copy_(value)
        return self

    def _values(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """The parameters that say what a state says."""
        return state.log_weights, state.means, self.family.operator.to_raw(state.scales.factor)

    def _numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.logits, self.means, self.raw_scale

    # What it says of points

    def forward(self, x: Tensor) -> Tensor:
        """Mean negative log likelihood of x (N, D), in nats: a scalar, (...) in a batch
        (eq-gmm-nll)."""
        log_prob = self.log_prob(x)
        return -log_prob if x.ndim == 1 else -log_prob.mean(-1)

    def log_prob(self, x: Tensor, *, missing: bool = False) -> Tensor:
        """log p(x_n) for x (N, D): (N,), in nats (eq-gmm-log-density).

        One point (D,) gives (), points (..., N, D) give (..., N); a batch of models gives
        (*batch_shape, N) for points that all share. missing: whether NaN is a value that was not
        observed; the density is then that of the observed ones, without a gradient.

        Raises ``TypeError`` for what is no floating-point tensor, ``ValueError`` for a wrong shape
        or device, and, where arguments are validated, for a value that is not finite; so do
        ``responsibilities`` and ``predict``.
        """
        if missing:
            return self._missing(x)[0]
        x = self._check(x)
        density = mixture.log_density(self.family, self.state(), _rows(x))
        return density.squeeze(-1) if x.ndim == 1 else density

    def responsibilities(self, x: Tensor, *, missing: bool = False) -> Tensor:
        """r_nk = p(component k | x_n) for x (N, D): (N, K), rows sum to 1 (eq-responsibilities).

        Other shapes, and missing values, as in ``log_prob``.
        """
        if missing:
            return self._missing(x)[1]
        x = self._check(x)
        r = mixture.responsibilities(self.family, self.state(), _rows(x))
        return r.squeeze(-2) if x.ndim == 1 else r

    def predict(self, x: Tensor, *, missing: bool = False) -> Tensor:
        """The most responsible component of each point of x (N, D): (N,), int64."""
        return self.responsibilities(x, missing=missing).argmax(-1)

    def aic(
        self, x: Tensor, *, sample_weight: Tensor | None = None, missing: bool = False
    ) -> float | Tensor:
        """Akaike's criterion of x (N, D), 2 p - 2 log L (eq-aic): lower is better; (...) in a
        batch. sample_weight and missing: as in ``bic``."""
        log_likelihood, _ = self._log_likelihood(x, sample_weight, missing)
        return _number(2 * self.num_free_parameters - 2 * log_likelihood)

    def bic(
        self, x: Tensor, *, sample_weight: Tensor | None = None, missing: bool = False
    ) -> float | Tensor:
        """Schwarz's criterion of x (N, D), p log N - 2 log L (eq-bic): lower is better; (...) in a
        batch.

        sample_weight: (N,), or (*batch_shape, N); a point of weight 2 counts as two, in N too.
        missing: as in ``log_prob``. Raises ``ValueError`` or ``TypeError`` for bad input.
        """
        log_likelihood, total = self._log_likelihood(x, sample_weight, missing)
        return _number(self.num_free_parameters * total.log() - 2 * log_likelihood)

    @torch.no_grad()
    def icl(
        self, x: Tensor, *, sample_weight: Tensor | None = None, missing: bool = False
    ) -> float | Tensor:
        """The integrated completed likelihood of x (N, D): lower is better; (...) in a batch.

        The BIC less 2 sum_n log max_k r_nk (eq-icl), so points that may be of two components
        count against the mixture (Biernacki, Celeux and Govaert 2000). sample_weight and missing:
        as in ``bic``.
        """
        bic = self.bic(x, sample_weight=sample_weight, missing=missing)
        largest = self.responsibilities(_rows(x), missing=missing).double().amax(-1).log()
        weights = torch.ones_like(largest) if sample_weight is None else sample_weight
        sharpness = (torch.where(weights > 0, largest, 0.0) * weights).sum(-1)
        return bic - 2 * _number(sharpness)

    @torch.no_grad()
    def _log_likelihood(
        self, x: Tensor, weights: Tensor | None, missing: bool
    ) -> tuple[Tensor, Tensor]:
        """Log likelihood (...) and number of points, by weight, in float64."""
        log_prob = self.log_prob(x, missing=missing).double()
        if x.ndim == 1:
            x, log_prob = _rows(x), log_prob.unsqueeze(-1)
        if weights is None:
            total = torch.full((), log_prob.shape[-1], dtype=torch.float64, device=x.device)
            return log_prob.sum(-1), total
        # For all, or for each of a batch.
        shape = log_prob.shape if getattr(weights, "ndim", 1) > 1 else log_prob.shape[-1:]
        weights = checks.check_weights(weights, shape, x.device, "sample_weight")
        counted = torch.where(weights > 0, log_prob, 0.0)
        return (counted * weights).sum(-1), weights.sum(-1)

    @torch.no_grad()
    def _missing(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities and responsibilities of points that may lack values, of any shape."""
        x = checks.check_event(
            x, self.num_dims, batch_shape=self.batch_shape, like=self.means, missing=True
        )
        state = self.state()
        rows = _rows(x)
        lead = np.broadcast_shapes(rows.shape[:-2], self.batch_shape)
        rows = rows.expand(*lead, *rows.shape[-2:])
        members = torch.arange(math.prod(self.batch_shape), device="cpu")
        members = members.reshape(self.batch_shape).expand(lead).flatten()
        size = len(self.batch_shape)
        states = each(lambda p: p.detach().reshape(-1, *p.shape[size:]), state)
        parts = [
            mixture.missing_log_joint(self.family, take(states, member.reshape(1)), own)
            for member, own in zip(members, rows.reshape(-1, *rows.shape[-2:]), strict=True)
        ]
        joint = (
            torch.stack(parts)
            if parts
            else state.means.new_empty(0, self.num_components, rows.shape[-2])
        )
        shape = rows.shape[:-1] if x.ndim > 1 else (*rows.shape[:-2],)
        density = joint.logsumexp(-2).reshape(shape)
        return density, joint.softmax(-2).mT.reshape(*shape, self.num_components)

    def _check(self, x: Any) -> Tensor:
        return checks.check_event(
            x,
            self.num_dims,
            batch_shape=self.batch_shape,
            like=self.means,
            validate=self.validate_args,
        )

    # What can be made of it

    @torch.no_grad()
    def sample(
        self, num_samples: int | Sequence[int], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw points from the mixture: (num_samples, D), or of any shape, ``sample((5, 3))`` is
        (5, 3, D); a batch of models gives (num_samples, *batch_shape, D), as torch does.

        generator: a CPU generator, torch's own unless given. Raises ``ValueError`` or ``TypeError``
        for a number below 0 or another generator."""
        return self.sample_with_labels(num_samples, generator=generator)[0]

    @torch.no_grad()
    def sample_with_labels(
        self, num_samples: int | Sequence[int], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw points (num_samples, D) and the components that made them (num_samples,).

        First the component by its weight, then the point from it (eq-generative). Arguments and
        errors as in ``sample``.
        """
        checks.check_generator(generator)
        sizes = list(num_samples) if isinstance(num_samples, Sequence) else [num_samples]
        sizes = [checks.check_count(size, "num_samples", minimum=0) for size in sizes]
        shape = (*self.batch_shape, math.prod(sizes))
        uniform = checks.uniform(*shape, generator=generator).to(self.means.device)
        normal = checks.normal(*shape, self.num_dims, generator=generator)
        normal = normal.to(self.means)
        points, labels = mixture.draw(self.family, self.state(), uniform, normal)
        points, labels = points.movedim(-2, 0), labels.movedim(-1, 0)
        return (
            points.reshape(*sizes, *points.shape[1:]),
            labels.reshape((*sizes, *labels.shape[1:])),
        )

    @torch.no_grad()
    def marginal(self, dims: Sequence[int]) -> Self:
        """The mixture of the given dimensions alone, in that order (eq-marginal). Raises
        ``ValueError`` unless they are distinct dimensions of the mixture."""
        dims = checks.check_dims(dims, self.num_dims, "dims")
        return self._of(mixture.marginal(self.family, self.state(), dims))

    @torch.no_grad()
    def condition(self, given: Mapping[int, float]) -> Self:
        """The mixture of the other dimensions, given values of some (eq-conditional).

        given: dimension -> value, for example ``{0: 3.5}``. Each component is conditioned for
        itself (eq-gaussian-conditional), and the weights become the responsibilities of the
        components for the given values. Raises ``TypeError`` or ``ValueError`` for another kind of
        ``given``, and where it names no dimension or leaves none free.
        """
        if not isinstance(given, Mapping):
            raise TypeError(f"given must map dimensions to values, as in {{0: 3.5}}; got {given!r}")
        known = checks.check_dims(list(given), self.num_dims, "given")
        rest = [d for d in range(self.num_dims) if d not in known]
        if not rest:
            raise ValueError(
                f"given must leave at least one of the {self.num_dims} dimensions free"
            )
        values = [
            checks.check_number(value, f"given[{d}]", minimum=-math.inf)
            for d, value in given.items()
        ]
        value = torch.tensor(values, dtype=torch.float64, device="cpu").to(self.means)
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"given leaves the range of {self.means.dtype}, got {dict(given)}")
        return self._of(mixture.condition(self.family, self.state(), known, value, rest))

    def _of(self, state: State) -> Self:
        """A model of the same class with the numbers of a state, in as many dimensions."""
        new = self._like(state.means.shape[-1], self.batch_shape)
        new.raw_scale.copy_(self.family.operator.to_raw(state.scales.factor))
        return new.set_state(state)

    def _like(self, num_dims: int, batch_shape: Sequence[int]) -> Self:
        """A model of the same class, device and dtype in another number of dimensions."""
        return type(self)(
            self.num_components,
            num_dims,
            init_radius=0.0,
            batch_shape=tuple(batch_shape),
            validate_args=self.validate_args,
            device=self.means.device,
            dtype=self.means.dtype,
        )

    def to_distribution(self, validate_args: bool | None = None) -> MixtureDistribution:
        """The same mixture as a torch distribution; gradients reach this model's parameters."""
        return MixtureDistribution(self.state(), self.family, validate_args)

    @classmethod
    @torch.no_grad()
    def from_distribution(cls, distribution: Any) -> Self:
        """A model of a ``MixtureDistribution``, or of torch's MixtureSameFamily of normals.

        Raises ``TypeError`` for another kind, ``ValueError`` where this class cannot hold its
        covariances.
        """
        return cls._from_parameters(*mixture.parameters_of(distribution))

    def to_sklearn(self) -> Any:
        """The same mixture as a fitted ``sklearn.mixture.GaussianMixture``, in float64.

        Raises ``ImportError`` without scikit-learn, ``TypeError`` for a batch of models.
        """
        from sklearn.mixture import GaussianMixture as Peer

        if self.batch_shape:
            raise TypeError("scikit-learn has no batches; write model[i].to_sklearn()")
        peer = Peer(self.num_components, covariance_type=_SKLEARN[self.family.name])
        wide = mixture.wide_covariances(self.family, self.state())
        numbers = (self.weights, self.means, wide)
        weights, means, covariances = (n.detach().double().cpu().numpy() for n in numbers)
        variances = covariances.diagonal(axis1=1, axis2=2).copy()
        held = {
            "full": covariances,
            "tied": covariances[0],
            "diag": variances,
            "spherical": variances[:, 0],
        }[peer.covariance_type]
        peer._set_parameters(
            (weights, means, held, _precisions_cholesky(held, peer.covariance_type))
        )
        peer.converged_, peer.n_iter_, peer.n_features_in_ = True, 0, self.num_dims
        return peer

    @classmethod
    @torch.no_grad()
    def from_sklearn(cls, peer: Any) -> Self:
        """A float64 model of a fitted ``sklearn.mixture.GaussianMixture``.

        Raises ``ValueError`` where it was not fitted, or where this class cannot hold its
        covariances.
        """
        if not hasattr(peer, "covariances_"):
            raise ValueError(
                f"peer must be a fitted sklearn GaussianMixture, got {type(peer).__name__} "
                "without covariances_"
            )
        weights, means, held = (
            torch.as_tensor(numbers, dtype=torch.float64, device="cpu")
            for numbers in (peer.weights_, peer.means_, peer.covariances_)
        )
        num_components, num_dims = means.shape
        if peer.covariance_type == "spherical":
            held = held[:, None].expand(num_components, num_dims)
        if peer.covariance_type in ("diag", "spherical"):
            held = torch.diag_embed(held)
        covariances = held.expand(num_components, num_dims, num_dims)
        return cls._from_parameters(weights, means, covariances)

    @classmethod
    def _from_parameters(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> Self:
        *batch_shape, num_components, num_dims = means.shape
        variance = {"variance": float(covariances[..., 0, 0].flatten()[0])}
        options: dict[str, Any] = {} if cls.family.trainable else variance
        new = cls(
            num_components,
            num_dims,
            init_radius=0.0,
            batch_shape=batch_shape,
            device=means.device,
            dtype=means.dtype,
            **options,
        )
        new.set_parameters(weights, means, covariances)
        deviations = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
        size = deviations.unsqueeze(-1) * deviations.unsqueeze(-2)
        if not bool(((new.covariances - covariances).abs() <= 1e-4 * size).all()):
            raise ValueError(
                f"{cls.__name__} cannot hold these covariances exactly; use GmmFull, or fit anew"
            )
        return new


class GmmFull(GaussianMixture):
    """A mixture whose components have any covariance: K D (D + 1) / 2 free numbers."""

    family = covariance.FULL


class GmmTied(GaussianMixture):
    """A mixture whose components share one covariance of any shape: D (D + 1) / 2 free numbers."""

    family = covariance.TIED


class GmmDiagonal(GaussianMixture):
    """A mixture with diagonal covariances, axes along the dimensions: K D free numbers."""

    family = covariance.DIAGONAL


class GmmIsotropic(GaussianMixture):
    """A mixture of round components, each with its own variance: K free numbers."""

    family = covariance.ISOTROPIC


class GmmSharedIsotropic(GaussianMixture):
    """A mixture of round components of one common variance: 1 free number."""

    family = covariance.SHARED_ISOTROPIC


class GmmConstant(GaussianMixture):
    """A mixture of round components whose variance is given and stays: no free numbers.

    variance: sigma^2 of every component in every dimension, in squared units of the data; the
    other arguments are those of ``GaussianMixture``.
    """

    family = covariance.CONSTANT

    def __init__(
        self, num_components: int, num_dims: int, *args: Any, variance: float = 1.0, **options: Any
    ) -> None:
        log_scale = 0.5 * math.log(checks.check_number(variance, "variance"))
        super().__init__(num_components, num_dims, *args, **options)
        checks.check_range(variance, "variance", self.means.dtype)
        self.raw_scale.fill_(log_scale)


def check_mixture(model: Any) -> GaussianMixture:
    """Return ``model`` if it is a mixture of this package, in float32 or float64."""
    if not isinstance(model, GaussianMixture):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise TypeError(f"model must be a gmmedu mixture such as GmmFull(2, 2), got {kind}")
    checks.check_dtype(model.means.dtype, "the model's dtype")
    return model


#: The named models by the name of their family.
MODELS: dict[str, type[GaussianMixture]] = {
    model.family.name: model
    for model in (GmmFull, GmmTied, GmmDiagonal, GmmIsotropic, GmmSharedIsotropic, GmmConstant)
}

_SKLEARN = {
    "full": "full",
    "tied": "tied",
    "diagonal": "diag",
    "isotropic": "spherical",
    "shared_isotropic": "spherical",
    "constant": "spherical",
}


def _rows(x: Tensor) -> Tensor:
    return x.unsqueeze(0) if x.ndim == 1 else x


def _number(value: Tensor) -> float | Tensor:
    return float(value) if value.ndim == 0 else value


def _precisions_cholesky(held: Any, kind: str) -> Any:
    """Upper triangular roots of the precisions, as scikit-learn keeps them."""
    if kind in ("diag", "spherical"):
        return 1 / np.sqrt(held)
    identity = np.eye(held.shape[-1])
    return np.swapaxes(np.linalg.solve(np.linalg.cholesky(held), identity), -2, -1)

"""The density of a mixture, as functions of values and as a torch distribution.

Derived in chapter 02, its negative log likelihood in chapter 03. Values may have leading batch
dimensions and gradients; ``models`` has the same as modules with parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributions
from torch.distributions import constraints

from gmmedu import checks, gaussian
from gmmedu.covariance import FULL, Family
from gmmedu.passes import expect, pieces_of
from gmmedu.values import Pattern, Points, State, each

#: Numbers in the largest intermediate array of one block of points.
_BLOCK_NUMBERS = 2**22


Function = TypeVar("Function", bound=Callable[..., Any])


def exact(function: Function) -> Function:
    """A function of a family and a state, in the dtype of the state whatever autocast is on."""

    @wraps(function)
    def computed(family: Family, state: State, *rest: Any) -> Any:
        with torch.autocast(state.means.device.type, enabled=False):
            return function(family, state, *rest)

    return cast(Function, computed)


@exact
def log_joint(family: Family, state: State, x: Tensor) -> Tensor:
    """log pi_k + log N(x_n | mu_k, Sigma_k) for x (..., N, D): (..., K, N), in nats.

    Finite at any finite point: where a square would leave the range of the dtype, the value is
    that of a point nearer by, and the order of the components stays.
    """
    operator, num_dims = family.operator, x.shape[-1]
    residuals = gaussian.residuals(gaussian.within_reach(x), state.means)
    whitened = gaussian.within_range(operator.whiten(state.scales.whitening, residuals))
    log_det = operator.log_det(state.scales.factor, num_dims)
    return state.log_weights.unsqueeze(-1) + gaussian.log_density(whitened, log_det)


def log_density(family: Family, state: State, x: Tensor) -> Tensor:
    """log p(x_n) for x (..., N, D): (..., N) (eq-gmm-log-density); in blocks of points."""
    blocks = _blocks(state, x)
    return torch.cat([log_joint(family, state, block).logsumexp(-2) for block in blocks], -1)


def responsibilities(family: Family, state: State, x: Tensor) -> Tensor:
    """r_nk = p(component k | x_n) for x (..., N, D): (..., N, K) (eq-responsibilities)."""
    blocks = _blocks(state, x)
    return torch.cat([log_joint(family, state, block).softmax(-2).mT for block in blocks], -2)


def _blocks(state: State, x: Tensor) -> Sequence[Tensor]:
    """Points (..., N, D) in parts that memory holds with all components, for each of the batch of
    the points or of the state, whichever has more; a batch may be empty."""
    lead = max(x.shape[:-2].numel(), state.means.shape[:-2].numel())
    return x.split(max(1, _BLOCK_NUMBERS // max(1, lead * state.means.shape[-2:].numel())), -2)


@exact
def covariances(family: Family, state: State) -> Tensor:
    """Sigma, (..., K, D, D)."""
    triangular = triangular_factor(family, state)
    return triangular @ triangular.mT


def wide_covariances(family: Family, state: State) -> Tensor:
    """Sigma in float64, (..., K, D, D), to make another mixture of: a float32 factor may be more
    slender than a float32 covariance can say."""
    return covariances(family, each(torch.Tensor.double, state))


def triangular_factor(family: Family, state: State) -> Tensor:
    """L of each component, lower triangular: (..., K, D, D)."""
    num_dims = state.means.shape[-1]
    factor = family.operator.triangular(state.scales.factor, num_dims)
    return factor.expand(*state.means.shape, num_dims)


@exact
def marginal(family: Family, state: State, dims: list[int]) -> State:
    """The mixture of some dimensions alone, in that order (eq-marginal)."""
    scales, _, _ = family.operator.split(state.scales, dims, [])
    return State(state.log_weights, state.means[..., dims], scales)


@exact
def condition(
    family: Family, state: State, known: list[int], values: Tensor, rest: list[int]
) -> State:
    """The mixture of ``rest``, given values (..., O) of the dimensions ``known``.

    Each component is conditioned for itself (eq-gaussian-conditional), and the weights become
    the responsibilities of the components for the given values (eq-conditional).
    """
    scales, remaining, regression = family.operator.split(state.scales, known, rest)
    seen = State(state.log_weights, state.means[..., known], scales)
    log_weights = log_joint(family, seen, values.unsqueeze(-2)).squeeze(-1).log_softmax(-1)
    means = state.means[..., rest]
    if regression is not None:
        offset = values.unsqueeze(-2) - seen.means
        whitened = family.operator.apply(scales.whitening, offset)
        means = means + family.operator.apply(regression, whitened)
    return State(log_weights, means, remaining)


@exact
def moments(family: Family, state: State) -> tuple[Tensor, Tensor]:
    """Mean (..., D) and covariance (..., D, D) of the mixture (eq-mixture-mean,
    eq-mixture-covariance)."""
    weights = state.log_weights.exp().unsqueeze(-1)
    mean = (weights * state.means).sum(-2)
    offset = state.means - mean.unsqueeze(-2)
    within = (weights.unsqueeze(-1) * covariances(family, state)).sum(-3)
    return mean, within + (weights * offset).mT @ offset


@exact
def draw(family: Family, state: State, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Points (..., Q, D) and the components (..., Q) that made them (eq-generative).

    uniform: (..., Q), picks the component by its weight; normal: (..., Q, D), the point from it.
    """
    cumulative = state.log_weights.double().exp().cumsum(-1)
    # Weights may add up to a little less than 1: what is left goes to the last that adds anything.
    last = torch.searchsorted(cumulative, cumulative[..., -1:].contiguous())
    uniform = uniform.to(cumulative).contiguous()
    labels = torch.searchsorted(cumulative, uniform, right=True).minimum(last)
    num_dims = state.means.shape[-1]
    means = state.means.gather(-2, labels.unsqueeze(-1).expand(*labels.shape, num_dims))
    points, normal = torch.zeros_like(means), normal.to(means)
    factor = triangular_factor(family, state)
    for component in range(cumulative.shape[-1]):
        mine = (labels == component).unsqueeze(-1)
        moved = normal @ factor[..., component, :, :].mT
        points = torch.where(mine, means + moved, points)
    return points, labels


@exact
def rosenblatt(family: Family, state: State, x: Tensor) -> Tensor:
    """u_d = P(X_d < x_d | x_1 ... x_(d-1)) for x (..., N, D): uniform where x is from the mixture.

    As L is triangular, Phi(y_kd) is that probability in component k, and the components weigh as
    much as they explain the dimensions before (Rosenblatt 1952).
    """
    residuals = gaussian.residuals(x, state.means)
    whitened = family.operator.whiten(state.scales.whitening, residuals)
    deviations = triangular_factor(family, state).diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    explained = (-0.5 * whitened.square() - deviations.log()).cumsum(-2)
    before = torch.cat([torch.zeros_like(explained[..., :1, :]), explained[..., :-1, :]], -2)
    shares = (state.log_weights[..., None, None] + before).softmax(-3)
    return (shares * torch.special.ndtr(whitened)).sum(-3).mT


@exact
def cdf(family: Family, state: State, x: Tensor) -> Tensor:
    """P(X <= x_n) for x (..., N, 1): (..., N) (eq-mixture-cdf)."""
    return rosenblatt(family, state, x).squeeze(-1)


@exact
def icdf(family: Family, state: State, u: Tensor) -> Tensor:
    """x (..., N, 1) with cdf(x) = u, for u (..., N); NaN unless 0 <= u <= 1.

    It lies between the least and the largest of the components' own quantiles, and that bracket
    is halved until it has the width of rounding (inside torch.compile or vmap, so many times as
    reach it from one standard deviation). A last step of Newton carries the gradient, of first
    order.
    """
    deviations = covariances(family, state)[..., 0].sqrt()
    own = state.means + deviations * torch.special.ndtri(u).unsqueeze(-2)
    low, high = own.amin(-2), own.amax(-2)
    with torch.no_grad():
        enough = 8 - int(math.log2(torch.finfo(u.dtype).eps))
        # A quantile beside a far component needs more halvings than are enough elsewhere.
        for halved in range(10 * enough if checks.visible(low) else enough):
            middle = 0.5 * (low + high)
            if halved >= enough and not bool(((low < middle) & (middle < high)).any()):
                break
            below = cdf(family, state, middle.unsqueeze(-1)) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    x = (0.5 * (low + high)).detach()
    inside = x.isfinite()
    near = torch.where(inside, x, 0.0).unsqueeze(-1)
    density = log_density(family, state, near).detach().exp()
    fine = inside & (density > 0)
    # What is not taken may not divide by zero either: its gradient would reach all.
    step = (u - cdf(family, state, near)) / torch.where(fine, density, 1.0)
    return torch.where(fine, x + step, x).unsqueeze(-1)


@exact
def mode(family: Family, state: State, num_iterations: int = 200) -> tuple[Tensor, Tensor]:
    """Where ascent from each component's mean ends, (..., K, D), and log p there, (..., K).

    The step goes to where the precisions, weighted by the responsibilities, balance
    (eq-critical-points), and never leads down; where Newton's leads higher, it is taken instead.
    """
    whitening = family.operator.triangular(state.scales.whitening, state.means.shape[-1])
    precisions = (whitening.mT @ whitening).expand(*state.means.shape, -1)
    x, height = state.means, log_density(family, state, state.means)
    for _ in range(num_iterations):
        r = responsibilities(family, state, x)
        gaps = state.means.unsqueeze(-3) - x.unsqueeze(-2)
        pulls = torch.einsum("...kij,...skj->...ski", precisions, gaps)
        slope = torch.einsum("...sk,...ski->...si", r, pulls)
        balance = torch.einsum("...sk,...kij->...sij", r, precisions)
        spread = torch.einsum("...sk,...ski,...skj->...sij", r, pulls, pulls)
        newton = balance - spread + slope.unsqueeze(-1) * slope.unsqueeze(-2)
        matrices = torch.stack([balance, newton])
        tried = x + torch.linalg.solve_ex(matrices, slope.unsqueeze(-1))[0].squeeze(-1)
        heights = log_density(family, state, tried)
        higher = heights[1] > heights[0]
        moved = torch.where(higher.unsqueeze(-1), tried[1], tried[0])
        gain = torch.where(higher, heights[1], heights[0]) - height
        x = torch.where((gain > 0).unsqueeze(-1), moved, x)
        height = height + gain.clamp_min(0)
        if not bool((gain > 0).any()):
            break
    return x, height


def check_state(state: Any, family: Any, name: str = "state") -> None:
    """Raise ``TypeError`` unless these are a state and a family, ``ValueError`` unless the state
    has the shapes that the family gives it."""
    for value, kind, called in ((state, State, name), (family, Family, "family")):
        if not isinstance(value, kind):
            raise TypeError(
                f"{called} must be a {kind.__name__}, as a model has it, got a "
                f"{type(value).__name__}"
            )
    *batch, num_components, num_dims = state.means.shape
    wanted = (*batch, num_components), (*batch, *family.shape(num_components, num_dims))
    found = tuple(state.log_weights.shape), tuple(state.scales.factor.shape)
    if found != wanted:
        raise ValueError(
            f"{name} must have log weights and scales of shapes {wanted[0]} and {wanted[1]}, as "
            f"the family {family.name!r} has them, got {found[0]} and {found[1]}; give the family "
            "that it is of"
        )


class MixtureDistribution(distributions.Distribution):
    """A Gaussian mixture as a torch distribution: event (D,), any batch shape.

    Args:
        state: log weights (*batch, K), means (*batch, K, D) and scales, as ``model.state()`` or
            ``MixtureDistribution.of`` gives them; gradients reach them.
        family: of the covariances, as ``model.family``; the scales must be of it.
        validate_args: torch's; None means its default.

    Raises ``TypeError`` or ``ValueError`` for a state that is not of the family, or not finite.

    ``rsample`` has gradients in all parameters, the weights included: it differentiates the map
    from uniform numbers to points implicitly (Figurnov, Mohamed and Mnih 2018).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, state: State, family: Family = FULL, validate_args: bool | None = None
    ) -> None:
        check_state(state, family)
        self.state, self.family = state, family
        batch_shape, event_shape = state.means.shape[:-2], state.means.shape[-1:]
        super().__init__(batch_shape, event_shape, validate_args=validate_args)
        if self._validate_args:
            parts = {**state._asdict(), "scales": state.scales.factor}
            for name, part in parts.items():
                if not bool(torch.isfinite(part).all()):
                    raise ValueError(f"{name} must be finite, but holds NaN or infinity")

    @classmethod
    def of(
        cls,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        family: Family = FULL,
        validate_args: bool | None = None,
    ) -> MixtureDistribution:
        """Of weights (*batch, K), means (*batch, K, D) and covariances (*batch, K, D, D), which are
        averaged to the nearest that ``family`` can hold; weights are normalized.

        Raises ``ValueError`` or ``TypeError`` for bad input, where arguments are validated."""
        asked = cls._validate_args if validate_args is None else validate_args
        if asked and checks.visible(means):
            shape = tuple(checks.check_floats(means, "means", shape="(..., K, D)").shape)
            checks.check_weights(weights, shape[:-1], means.device, "weights")
            sound = checks.check_covariances(covariances, (*shape, shape[-1]), means)
            # What rounding had made indefinite is mended; the gradient passes as it is.
            covariances = covariances + (sound - covariances).detach()
        # A float32 factor may be more slender than a float32 covariance can say.
        factor = family.from_covariances(covariances.double(), weights.double())
        scales = family.operator.from_raw(family.operator.to_raw(factor).to(means.dtype))
        shares = (weights / weights.sum(-1, keepdim=True)).to(means.dtype)
        log_weights = shares.clamp_min(torch.finfo(shares.dtype).tiny).log()
        return cls(State(log_weights, means, scales), family, validate_args)

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        number = self.state.log_weights.shape[-1]
        return f"MixtureDistribution({self.family.name}, num_components={number}, {shapes})"

    @property
    def weights(self) -> Tensor:
        """Mixing weights, (*batch, K)."""
        return self.state.log_weights.exp()

    @property
    def component_means(self) -> Tensor:
        """Means of the components, (*batch, K, D)."""
        return self.state.means

    @property
    def component_covariances(self) -> Tensor:
        """Covariances of the components, (*batch, K, D, D)."""
        return covariances(self.family, self.state)

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (*batch, D)."""
        return moments(self.family, self.state)[0]

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, (*batch, D, D)."""
        return moments(self.family, self.state)[1]

    @property
    def variance(self) -> Tensor:
        """Variance of each dimension, (*batch, D)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    def mode(self) -> Tensor:
        """The highest of the maxima to which ascent from each component's mean leads, (*batch, D);
        without a gradient."""
        with torch.no_grad():
            x, height = mode(self.family, self.state)
            best = height.argmax(-1)[..., None, None].expand(*x.shape[:-2], 1, x.shape[-1])
            return x.gather(-2, best).squeeze(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of value (*sample, *batch, D): (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        points, sample_shape = self._points(value)
        density = log_density(self.family, self.state, points)
        return density.movedim(-1, 0).reshape((*sample_shape, *density.shape[:-1]))

    def _points(self, value: Tensor) -> tuple[Tensor, torch.Size]:
        """value (*sample, *batch, D) as points of each mixture, (*batch, S, D), which a density
        takes in blocks; and the sample shape."""
        sample_shape = value.shape[: max(0, value.ndim - 1 - len(self.batch_shape))]
        value = value.to(self.state.means.dtype)
        points = value.reshape(sample_shape.numel(), *value.shape[len(sample_shape) :])
        return points.movedim(0, -2), sample_shape

    def _validate_sample(self, value: Tensor) -> None:
        # Of no values at all torch cannot tell the shape of an event.
        if not isinstance(value, Tensor) or value.numel():
            super()._validate_sample(value)

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= value) in one dimension, for value (*sample, *batch, 1): (*sample, *batch)
        (eq-mixture-cdf). Raises ``NotImplementedError`` in more."""
        self._check_line("cdf")
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.state.means.dtype)
        return cdf(self.family, self.state, value.unsqueeze(-2)).squeeze(-1)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of each share ``value`` (*sample, *batch), in one dimension:
        (*sample, *batch, 1), with a gradient of first order; NaN where value is not in [0, 1]."""
        self._check_line("icdf")
        value = torch.as_tensor(value).to(self.state.means)
        return icdf(self.family, self.state, value.unsqueeze(-1)).squeeze(-2)

    def _check_line(self, name: str) -> None:
        if self.event_shape != (1,):
            raise NotImplementedError(
                f"{name} is that of one dimension, and this mixture has {self.event_shape[0]}; "
                "take a marginal first"
            )

    def responsibilities(self, value: Tensor) -> Tensor:
        """p(component | value) for value (*sample, *batch, D): (*sample, *batch, K)."""
        if self._validate_args:
            self._validate_sample(value)
        points, sample_shape = self._points(value)
        r = responsibilities(self.family, self.state, points)
        return r.movedim(-2, 0).reshape((*sample_shape, *r.shape[:-2], r.shape[-1]))

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Points (*sample, *batch, D), without a gradient; drawn on the CPU and moved."""
        shape = self._extended_shape(torch.Size(sample_shape))
        batch = self.batch_shape
        count = torch.Size(sample_shape).numel()
        uniform = checks.uniform(count, *batch, generator=generator)
        normal = checks.normal(count, *batch, *self.event_shape, generator=generator)
        with torch.no_grad():
            points, _ = draw(
                self.family,
                self.state,
                uniform.movedim(0, -1).to(self.state.means.device),
                normal.movedim(0, -2).to(self.state.means.device),
            )
        return points.movedim(-2, 0).reshape(shape)

    def rsample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Points (*sample, *batch, D) with a gradient of first order in the parameters, but in
        inference mode."""
        points = self.sample(sample_shape, generator)
        if torch.is_inference_mode_enabled():
            return points
        x, _ = self._points(points)
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            fixed = each(lambda part: part.detach(), self.state)
            u = rosenblatt(self.family, fixed, x)
            rows = [
                torch.autograd.grad(u[..., d].sum(), x, retain_graph=True)[0]
                for d in range(u.shape[-1])
            ]
        slopes = torch.stack(rows, -2)
        moved = rosenblatt(self.family, self.state, x.detach()) - u.detach()
        step = torch.linalg.solve_triangular(slopes, moved.unsqueeze(-1), upper=False)
        return points - step.squeeze(-1).movedim(-2, 0).reshape(points.shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MixtureDistribution:
        new = self._get_checked_instance(MixtureDistribution, _instance)
        batch_shape, old = torch.Size(batch_shape), len(self.batch_shape)
        new.state = each(lambda part: part.expand(*batch_shape, *part.shape[old:]), self.state)
        new.family = self.family
        super(MixtureDistribution, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def to_torch(self) -> distributions.MixtureSameFamily:
        """The same as torch's own mixture of multivariate normals; gradients pass through."""
        factor = triangular_factor(self.family, self.state)
        return distributions.MixtureSameFamily(
            distributions.Categorical(logits=self.state.log_weights),
            distributions.MultivariateNormal(self.state.means, scale_tril=factor),
        )


def parameters_of(distribution: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (*batch, K), means (*batch, K, D) and covariances (*batch, K, D, D) of a mixture:
    of this package's or of torch's MixtureSameFamily of normals. Raises ``TypeError`` for others.
    """
    if isinstance(distribution, MixtureDistribution):
        return (
            distribution.weights,
            distribution.component_means,
            wide_covariances(distribution.family, distribution.state),
        )
    kind = type(distribution).__name__
    if isinstance(distribution, distributions.MixtureSameFamily):
        parts, weights = (
            distribution.component_distribution,
            distribution.mixture_distribution.probs,
        )
        if isinstance(parts, distributions.MultivariateNormal):
            return weights, parts.mean, parts.covariance_matrix
        inner = getattr(parts, "base_dist", parts)
        if isinstance(inner, distributions.Normal):
            mean, variance = parts.mean, parts.variance
            if not parts.event_shape:
                mean, variance = mean.unsqueeze(-1), variance.unsqueeze(-1)
            return weights, mean, torch.diag_embed(variance)
        kind += f" of {type(parts).__name__}"
    raise TypeError(
        "distribution must be a MixtureDistribution, or torch's MixtureSameFamily of "
        f"MultivariateNormal or Normal components, got {kind}"
    )


def _expected(
    points: Points, pattern: Pattern, family: Family, state: State, whitening: Tensor
) -> tuple[Tensor, Tensor]:
    """Whitened residuals as ``expect`` has them, and log joint densities, finite far out too."""
    whitened, constant, _ = expect(points, pattern, family, state, whitening)
    squares = gaussian.within_range(whitened).square().sum(-2)
    return whitened, constant - 0.5 * squares


@exact
def missing_log_joint(family: Family, state: State, x: Tensor) -> Tensor:
    """log pi_k + log of the density of what was observed, for x (N, D), in which NaN is missing;
    state of one member, (1, ...). Returns (K, N); a row without any value has log pi_k."""
    points = Points.of(gaussian.within_reach(x))
    num_components, num_dims = state.means.shape[-2:]
    if not points.patterns:
        blocks = _blocks(state, points.columns[0, :-1].mT)
        return torch.cat([log_joint(family, state, block)[0] for block in blocks], -1)
    # The patterns have every row.
    joint = state.means.new_empty(num_components, points.num_points)
    whitening = family.operator.triangular(state.scales.whitening, num_dims)
    whitening = whitening.expand(1, num_components, -1, -1)
    for pattern in pieces_of(points, num_components):
        _, part = _expected(points, pattern, family, state, whitening)
        joint = joint.index_copy(1, pattern.rows, part[0])
    return joint


@exact
def impute(family: Family, state: State, x: Tensor) -> Tensor:
    """x (N, D) with its expectation in the place of each NaN (eq-imputation); state (1, ...)."""
    points = Points.of(gaussian.within_reach(x))
    filled = x.clone()
    num_components, num_dims = state.means.shape[-2:]
    whitening = family.operator.triangular(state.scales.whitening, num_dims)
    whitening = whitening.expand(1, num_components, -1, -1)
    factor = triangular_factor(family, state)
    for pattern in pieces_of(points, num_components):
        whitened, part = _expected(points, pattern, family, state, whitening)
        expected = state.means.unsqueeze(-1) + factor @ whitened
        average = (part.softmax(1).unsqueeze(2) * expected).sum(1)[0].mT.to(x)
        hidden = x[pattern.rows].isnan()
        filled[pattern.rows] = torch.where(hidden, average, x[pattern.rows])
    return filled

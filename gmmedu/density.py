"""A mixture on top of a network: one mixture of the targets for each input, and its score.

Derived in chapter 10. The head maps the features that a network computes to the numbers of a
mixture; density, samples and gradients are those of ``mixture``, with the inputs as batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gmmedu import checks
from gmmedu.covariance import Layout
from gmmedu.mixture import MixtureDistribution
from gmmedu.models import MODELS
from gmmedu.singularities import Prior, resolution
from gmmedu.starts import fit_best
from gmmedu.units import Units, moments
from gmmedu.values import Scales, State, each

if TYPE_CHECKING:
    from typing_extensions import Self


class MixtureDensityHead(nn.Module):
    """The last layer of a mixture density network (eq-mdn-density): features to a mixture.

    Args:
        in_features: length of the features that the network in front computes.
        num_components: K, at least 1.
        num_dims: D, the dimensions of a target.
        family: of the covariances: "full", "tied", "diagonal", "isotropic", "shared_isotropic" or
            "constant". What a family shares, components share at each input.
        variance: sigma^2 of the constant family, in squared units of the targets; 1 unless given.
        min_scale: the smallest standard deviation, in units of the targets (once ``initialize``
            has seen them, of their clumps, and never below what the dtype resolves, 1.1e-3 in
            float32): of each dimension, or of the full and tied families of each dimension given
            those before. No density is above (2 pi)^(-D/2) divided by their product.
        validate_args: whether to look at the values of what comes in, which waits for a GPU.
        device, dtype: of the parameters; torch's defaults when not given.

    ``head(h)`` is a ``MixtureDistribution`` of batch shape (...) for features h (..., in_features),
    and ``-head(h).log_prob(t).mean()`` the loss of targets t (..., D) (eq-mdn-nll).

    The linear layer's outputs are K logits, K D means and the covariances' unconstrained numbers,
    in units of the targets: ``initialize`` sets these, and until then they are 1. A standard
    deviation is that smallest one plus ``softplus(output)`` (eq-smooth-floor).

    Raises ``ValueError`` or ``TypeError`` that names the argument for bad input, here and when it
    is called.
    """

    center: Tensor
    scale: Tensor
    floor: Tensor
    log_deviation: Tensor
    place: Tensor
    pivots: Tensor

    def __init__(
        self,
        in_features: int,
        num_components: int,
        num_dims: int,
        family: str = "full",
        *,
        variance: float | None = None,
        min_scale: float = 1e-3,
        validate_args: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = checks.check_count(in_features, "in_features")
        self.num_components = checks.check_count(num_components, "num_components")
        self.num_dims = checks.check_count(num_dims, "num_dims")
        self.family = MODELS[checks.check_choice(family, "family", MODELS)].family
        if variance is not None and self.family.trainable:
            raise ValueError(f"variance is given to the constant family only, not to {family!r}")
        variance = checks.check_number(1.0 if variance is None else variance, "variance")
        self.min_scale = checks.check_number(min_scale, "min_scale")
        self.validate_args = checks.check_flag(validate_args, "validate_args")
        dtype = checks.check_dtype(dtype)
        checks.check_range(variance, "variance", dtype)
        with torch.inference_mode(False):
            self._make(0.5 * math.log(variance), device, dtype)

    def _make(
        self, log_deviation: float, device: torch.device | str | None, dtype: torch.dtype
    ) -> None:
        """Make the layer, the units of the targets, and where each number of a covariance goes."""
        k, d = self.num_components, self.num_dims
        size, shared = self.family.count(1, d), self.family.shared
        self._sizes = [k, k * d, size if shared else k * size]
        self.linear = nn.Linear(self.in_features, sum(self._sizes), device=device, dtype=dtype)
        like = self.linear.weight.detach()
        self.register_buffer("center", like.new_zeros(d))
        self.register_buffer("scale", like.new_ones(d))
        self.register_buffer("floor", like.new_full((), max(self.min_scale, resolution(dtype))))
        self.register_buffer("log_deviation", like.new_full((1, 1), log_deviation))
        place = torch.arange(size, device=like.device)
        pivots = torch.ones_like(place, dtype=torch.bool)
        if self.family.operator.event_dims == 2:
            place = Layout.of(d, like.device).place
            pivots = torch.eye(d, dtype=torch.bool, device=like.device)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("pivots", pivots, persistent=False)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, num_components={self.num_components}, "
            f"num_dims={self.num_dims}, family={self.family.name!r}"
        )

    def forward(self, h: Tensor) -> MixtureDistribution:
        """The mixture of each row of features h (..., in_features): a distribution of batch
        shape (...) and event shape (D,). Gradients reach h and the parameters."""
        checks.check_dtype(self.linear.weight.dtype, "the head's dtype")
        validate = self.validate_args
        h = checks.check_features(h, self.in_features, self.linear.weight, validate=validate)
        state = self.state(h)
        validate = validate and checks.visible(state.means)
        return MixtureDistribution(state, self.family, validate_args=validate)

    def state(self, h: Tensor) -> State:
        """Log weights, means and scales at features h, in the targets' own units."""
        with torch.autocast(h.device.type, enabled=False):
            logits, means, numbers = self.linear(h).split(self._sizes, -1)
            means = means.unflatten(-1, (self.num_components, self.num_dims))
            means = self.center + self.scale * means
            return State(logits.log_softmax(-1), means, self._scales(numbers))

    def _scales(self, numbers: Tensor) -> Scales:
        """Scales of the linear layer's last outputs (eq-smooth-floor)."""
        operator = self.family.operator
        if not self.family.trainable:
            return operator.from_raw(self.log_deviation.expand(*numbers.shape[:-1], 1, 1))
        count = 1 if self.family.shared else self.num_components
        raw = numbers.unflatten(-1, (count, -1))[..., self.place]
        floored = (self.floor + softplus(raw)).log()
        scales = operator.from_raw(torch.where(self.pivots, floored, raw))
        return operator.rescale(scales, self.scale)

    @torch.no_grad()
    def initialize(
        self,
        targets: Tensor,
        num_starts: int = 10,
        *,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Start at the mixture of the targets (N, D) alone, whatever the features; returns the
        head.

        The bias is a mixture fitted to the targets by 50 steps of EM from each start, the best
        kept, under a prior that no component escapes (``Prior``); the weights are 0. Units
        become those of the targets. A given (constant) variance stays. generator: a CPU generator
        for the starts.

        Raises ``ValueError`` or ``TypeError`` for bad input; the head is then unchanged.
        """
        checks.check_generator(generator)
        weight, bias = self.linear.weight, self.linear.bias
        targets = checks.check_points(
            targets,
            self.num_dims,
            device=weight.device,
            minimum=self.num_components,
            name="targets",
        ).detach()
        targets = targets.to(torch.promote_types(targets.dtype, weight.dtype))
        units = Units.of([moments([(targets, None)])], self.family.per_dimension)
        fitted = self._marginal(targets, num_starts, generator)
        self.center.copy_(units.center[0])
        self.scale.copy_(units.scale[0])
        floor = max(self.min_scale, resolution(weight.dtype)) * units.clump[0]
        self.floor.copy_(floor.clamp_min(10 * torch.finfo(weight.dtype).eps))
        state = units.standardize(each(lambda part: part[None], fitted), self.family)
        weight.zero_()
        bias.copy_(self._outputs(each(lambda part: part[0], state)))
        return self

    def _marginal(
        self, targets: Tensor, num_starts: int, generator: torch.Generator | None
    ) -> State:
        """A mixture fitted to the targets alone, in their own units."""
        given: dict[str, Any] = {
            "dtype": targets.dtype,
            "device": targets.device,
            "init_radius": 0.0,
        }
        if not self.family.trainable:
            given["variance"] = float((2 * self.log_deviation).exp())
        model = MODELS[self.family.name](self.num_components, self.num_dims, **given)
        options: dict[str, Any] = {"mitigation": Prior(), "num_iterations": 50, "tolerance": 0}
        fit_best(model, targets, num_starts, generator=generator, **options)
        return model.state()

    def _outputs(self, state: State) -> Tensor:
        """What the linear layer must give for a state in units of the targets: the inverse of
        ``state``, but for scales that are on the floor or below."""
        parts = [state.log_weights, state.means.flatten()]
        if self.family.trainable:
            raw = factor = state.scales.factor
            excess = (factor - self.floor).clamp_min(self.floor)
            raw = torch.where(self.pivots, excess + (-torch.expm1(-excess)).log(), raw)
            if self.family.operator.event_dims == 2:
                layout = Layout.of(self.num_dims, raw.device)
                raw = raw[:, layout.column, layout.row]
            parts.append(raw.flatten())
        return torch.cat(parts)


def crps(distribution: MixtureDistribution, value: Tensor) -> Tensor:
    """Continuous ranked probability score of value (*sample, *batch, 1) in one dimension:
    (*sample, *batch), in units of the data; lower is better (eq-mixture-crps).

    Of a mixture of normals it is a sum over pairs of components (Grimit, Gneiting, Berrocal and
    Johnson 2006). Raises ``NotImplementedError`` in more dimensions, ``ValueError`` for a value of
    the wrong shape, and where the distribution validates its arguments for NaN.
    """
    if distribution.event_shape != (1,):
        raise NotImplementedError(
            f"crps is that of one dimension, and this mixture has {distribution.event_shape[0]}; "
            "take a marginal first"
        )
    if distribution._validate_args:
        distribution._validate_sample(value)
    elif value.shape[-1:] != (1,):
        raise ValueError(
            f"value must have the event shape (1,) as its last, got {tuple(value.shape)}; "
            "add it by value.unsqueeze(-1)"
        )
    weights, means = distribution.weights, distribution.component_means[..., 0]
    variances = distribution.component_covariances[..., 0, 0]
    to_value = (weights * _distance(value - means, variances)).sum(-1)
    gaps = means.unsqueeze(-1) - means.unsqueeze(-2)
    both = variances.unsqueeze(-1) + variances.unsqueeze(-2)
    pairs = weights.unsqueeze(-1) * weights.unsqueeze(-2) * _distance(gaps, both)
    return to_value - 0.5 * pairs.sum((-2, -1))


def _distance(mean: Tensor, variance: Tensor) -> Tensor:
    """E|Z| of a normal number Z."""
    deviation = variance.sqrt()
    z = mean / deviation
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    return 2 * deviation * density + mean * (2 * torch.special.ndtr(z) - 1)

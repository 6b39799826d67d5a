"""A mixture on top of a network: least squares, EM's optimum, and a known conditional found again;
what the distribution it returns gained; data on which it might fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

import gmmedu
from engine.test_degenerate import DATA
from gmmedu import MODELS, MixtureDensityHead, MixtureDistribution, mixture

FAMILIES = list(MODELS)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _head(family: str, num_dims: int = 2, num_components: int = 3, **options: Any) -> Any:
    """A head on four features, with numbers of its own in every output."""
    options = {"dtype": torch.float64, **options}
    head = MixtureDensityHead(4, num_components, num_dims, family, **options)
    with torch.no_grad():
        head.linear.weight.copy_(0.5 * _normal(*head.linear.weight.shape, seed=1))
        head.linear.bias.copy_(_normal(*head.linear.bias.shape, seed=2))
    return head


def _descend(loss: Callable[[], Tensor], parameters: Any, num_steps: int = 300) -> float:
    """L-BFGS to the bottom."""
    optimizer = torch.optim.LBFGS(
        list(parameters),
        max_iter=num_steps,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return float(loss().detach())


# What it is


@pytest.mark.parametrize("shape", [(), (5,), (2, 5)])
@pytest.mark.parametrize("num_dims", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_for_each_row_of_features(
    family: str, num_dims: int, shape: tuple[int, ...]
) -> None:
    head, h = _head(family, num_dims), _normal(*shape, 4)
    mixtures = head(h)
    assert isinstance(mixtures, MixtureDistribution)
    assert mixtures.batch_shape == shape and mixtures.event_shape == (num_dims,)
    assert mixtures.weights.shape == (*shape, 3)
    t = mixtures.rsample((2,), generator=_generator())
    assert t.shape == (2, *shape, num_dims)
    assert mixtures.mean.shape == mixtures.mode.shape == (*shape, num_dims)
    # One row after the other, by torch's own mixture.
    rows, values = h.reshape(-1, 4), t.reshape(2, -1, num_dims)
    for n, row in enumerate(rows):
        own = head(row).to_torch().log_prob(values[:, n])
        found = mixtures.log_prob(t).reshape(2, -1)[:, n]
        torch.testing.assert_close(found, own)
    size = head.family.count(3, num_dims)
    assert head.linear.out_features == 3 + 3 * num_dims + size


@pytest.mark.parametrize("family", FAMILIES)
def test_no_standard_deviation_is_below_the_floor(family: str) -> None:
    head = _head(family, min_scale=0.1).initialize(_normal(50, 2) * 3, generator=_generator())
    with torch.no_grad():
        head.linear.bias.fill_(-1e4)
    state = head.state(_normal(7, 4))
    factor = mixture.triangular_factor(head.family, state).diagonal(dim1=-2, dim2=-1)
    lowest = torch.ones(2) if family == "constant" else 0.1 * head.scale
    torch.testing.assert_close(factor, lowest.to(factor).expand_as(factor))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_finite_differences(family: str) -> None:
    head, h, t = _head(family), _normal(6, 4).requires_grad_(), _normal(6, 2, seed=3)

    def loss(weight: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        values = {"linear.weight": weight, "linear.bias": bias}
        return -functional_call(head, values, (h,)).log_prob(t).mean()

    assert torch.autograd.gradcheck(loss, (head.linear.weight, head.linear.bias, h))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_one_by_one_by_vmap(family: str) -> None:
    head, h, t = _head(family), _normal(6, 4), _normal(6, 2, seed=3)
    found = vmap(lambda row, value: head(row).log_prob(value))(h, t)
    torch.testing.assert_close(found, head(h).log_prob(t))
    # Many heads side by side: a batch of parameters.
    numbers = {name: torch.stack([p, 2 * p]) for name, p in head.named_parameters()}
    many = vmap(lambda values: functional_call(head, values, (h,)).log_prob(t))(numbers)
    torch.testing.assert_close(many[0], head(h).log_prob(t))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["full", "shared_isotropic"])
def test_compiles_whole(family: str) -> None:
    head, h, t = _head(family), _normal(6, 4), _normal(6, 2, seed=3)
    loss = torch.compile(lambda h, t: -head(h).log_prob(t).mean(), fullgraph=True, backend="eager")
    torch.testing.assert_close(loss(h, t), -head(h).log_prob(t).mean())


def test_features_of_another_dtype_and_autocast() -> None:
    head, h, t = _head("full", dtype=torch.float32), _normal(6, 4), _normal(6, 2).float()
    plain = head(h).log_prob(t)
    assert plain.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(h).log_prob(t), plain)


def test_state_dict_carries_the_units() -> None:
    head = _head("full").initialize(_normal(50, 2) * 1e4 + 7, generator=_generator())
    other = MixtureDensityHead(4, 3, 2, dtype=torch.float64)
    other.load_state_dict(head.state_dict())
    h = _normal(5, 4)
    assert torch.equal(other(h).mean, head(h).mean)
    assert "family='full'" in repr(head)


# What it must find


@pytest.mark.parametrize("num_dims", [1, 2])
def test_one_component_of_constant_scale_is_least_squares(num_dims: int) -> None:
    h = _normal(40, 4)
    t = h @ _normal(4, num_dims, seed=1) + 5 + _normal(40, num_dims, seed=2)
    head = MixtureDensityHead(4, 1, num_dims, "constant", variance=0.25, dtype=torch.float64)
    head.initialize(t, generator=_generator())
    _descend(lambda: -head(h).log_prob(t).mean(), head.parameters())
    design = np.column_stack([h.numpy(), np.ones(40)])
    solution, squares, _, _ = np.linalg.lstsq(design, t.numpy(), rcond=None)
    fitted = torch.as_tensor(design @ solution)
    torch.testing.assert_close(head(h).mean.detach(), fitted, rtol=0, atol=1e-6)
    # The NLL is the squared error in units of 2 sigma^2, and a constant.
    known = squares.sum() / 40 / (2 * 0.25) + 0.5 * num_dims * math.log(2 * math.pi * 0.25)
    assert float(-head(h).log_prob(t).mean().detach()) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_constant_features_lead_to_the_optimum_of_em(family: str) -> None:
    t = gmmedu.load_old_faithful() * torch.tensor([1.0, 0.1])
    model = MODELS[family](2, 2, dtype=torch.float64)
    fit = gmmedu.fit_best(model, t, generator=_generator(), num_iterations=2000, tolerance=1e-13)
    head = MixtureDensityHead(1, 2, 2, family, dtype=torch.float64)
    head.initialize(t, generator=_generator())
    h = torch.ones(len(t), 1, dtype=torch.float64)
    nll = _descend(lambda: -head(h).log_prob(t).mean(), head.parameters())
    assert nll == pytest.approx(fit.nll, abs=1e-7)
    found = head(h[0])
    order, known = found.component_means[:, 0].argsort(), model.means[:, 0].argsort()
    torch.testing.assert_close(found.weights[order], model.weights[known], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.component_means[order], model.means[known], rtol=0, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_starts_at_the_mixture_of_the_targets(family: str) -> None:
    t = gmmedu.load_old_faithful()
    options: Any = {} if family != "constant" else {"variance": 9.0}
    model = MODELS[family](2, 2, dtype=torch.float64, **options)
    rules: Any = {"num_iterations": 50, "tolerance": 0, "mitigation": gmmedu.Prior()}
    gmmedu.fit_best(model, t, generator=_generator(), **rules)
    head = MixtureDensityHead(4, 2, 2, family, dtype=torch.float64, **options)
    assert head.initialize(t, generator=_generator()) is head
    for h in (_normal(len(t), 4), torch.zeros(len(t), 4)):
        torch.testing.assert_close(head(h).log_prob(t), model.log_prob(t), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_known_conditional_is_found_from_samples() -> None:
    # Of a joint mixture of three, a quadratic function of x gives the logits, a linear one the
    # means, and the scales are constant: a head on x and x^2 can be the conditional.
    joint = gmmedu.GmmFull(3, 2, dtype=torch.float64).set_parameters(
        torch.tensor([0.3, 0.3, 0.4]),
        torch.tensor([[-1.0, -2.0], [0.0, 2.0], [1.5, 0.0]]),
        torch.tensor([[[1.0, 0.5], [0.5, 0.6]], [[0.8, -0.4], [-0.4, 0.5]], [[0.5, 0], [0, 0.3]]]),
    )
    joint.requires_grad_(False)
    x = joint.sample(5_000, generator=_generator())
    h = torch.cat([x[:, :1], x[:, :1] ** 2], 1)
    head = MixtureDensityHead(2, 3, 1, dtype=torch.float64)
    head.initialize(x[:, 1:], generator=_generator())
    nll = _descend(lambda: -head(h).log_prob(x[:, 1:]).mean(), head.parameters(), 200)
    with torch.no_grad():
        true = joint.marginal([0]).log_prob(x[:, :1]) - joint.log_prob(x)
    # The maximum of the likelihood lies above the truth, by half a nat a parameter or so.
    gain = (float(true.mean()) - nll) * len(x)
    assert 0 < gain < head.linear.weight.numel() + head.linear.bias.numel()
    for value in (-1.0, 0.0, 1.0):
        given = joint.condition({0: value}).requires_grad_(False).to_distribution()
        found = head.requires_grad_(False)(torch.tensor([value, value**2], dtype=torch.float64))
        # The standard errors of so many points are about 0.03 of a deviation, and of a variance.
        assert float((found.mean - given.mean).abs() / given.stddev) < 0.1
        assert float((found.variance / given.variance - 1).abs()) < 0.1
        u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
        shares = given.cdf(found.icdf(u))
        assert float((shares - u).abs().max()) < 0.03


# Data on which it might fail


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, torch.float32) for family in FAMILIES), ("full", torch.float64)],
)
@pytest.mark.parametrize("name", DATA)
def test_no_number_is_nan_on_hostile_targets(family: str, name: str, dtype: torch.dtype) -> None:
    t = DATA[name]().to(dtype)
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(2, 8), nn.Tanh()).to(dtype)
    head = MixtureDensityHead(8, min(3, len(t)), 2, family, dtype=dtype)
    head.initialize(t, generator=_generator())
    x = _normal(len(t), 2).to(dtype)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -head(trunk(x)).log_prob(t).mean()
        loss.backward()
        optimizer.step()
    for number in [*trunk.parameters(), *head.parameters()]:
        assert bool(torch.isfinite(number).all())
    found = head(trunk(x))
    assert bool(torch.isfinite(found.log_prob(t)).all())
    assert bool(torch.isfinite(found.mean).all()) and bool(torch.isfinite(found.mode).all())
    assert bool(torch.isfinite(found.sample(generator=_generator())).all())


@pytest.mark.parametrize(
    ("message", "arguments", "options"),
    [
        ("in_features must be at least 1", (0, 2, 1), {}),
        ("num_components must be at least 1", (4, 0, 1), {}),
        ("family must be one of", (4, 2, 1, "round"), {}),
        ("variance is given to the constant family only", (4, 2, 1), {"variance": 1.0}),
        ("variance must be finite", (4, 2, 1, "constant"), {"variance": -1.0}),
        ("min_scale must be finite", (4, 2, 1), {"min_scale": 0.0}),
    ],
)
def test_what_a_head_cannot_be(message: str, arguments: Any, options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureDensityHead(*arguments, **options)


def test_bad_features_and_targets_are_refused() -> None:
    head = _head("full", 1)
    with pytest.raises(ValueError, match=r"h must have shape \(..., 4\), got \(5, 3\)"):
        head(_normal(5, 3))
    with pytest.raises(ValueError, match="network in front of the head diverged"):
        head(_normal(5, 4) * torch.nan)
    with pytest.raises(TypeError, match="h must be a torch.Tensor"):
        head([[0.0] * 4])
    # The usual mistake: targets without their last dimension.
    with pytest.raises(ValueError, match="right-most size"):
        head(_normal(5, 4)).log_prob(_normal(5))
    before = head.linear.bias.clone()
    with pytest.raises(ValueError, match=r"one-dimensional data go in as targets\[:, None\]"):
        head.initialize(_normal(5))
    with pytest.raises(ValueError, match="targets has 2 points and at least 3 are needed"):
        head.initialize(_normal(2, 1))
    assert torch.equal(head.linear.bias, before)


# Mode, distribution function and quantiles of a mixture


def _mixtures(num_dims: int, family: str = "full") -> MixtureDistribution:
    """Forty mixtures of three components."""
    return _head(family, num_dims).requires_grad_(False)(_normal(40, 4, seed=5))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mode_in_one_dimension_is_the_highest_point_of_a_grid(family: str) -> None:
    mixtures = _mixtures(1, family)
    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64)[:, None, None].expand(-1, 40, 1)
    heights = mixtures.log_prob(grid)
    found = mixtures.log_prob(mixtures.mode)
    assert bool((found >= heights.amax(0) - 1e-12).all())
    assert float((found - heights.amax(0)).abs().max()) < 1e-3


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_the_density_is_level_at_the_mode(num_dims: int) -> None:
    mixtures = _mixtures(num_dims)
    x = mixtures.mode.requires_grad_()
    (slope,) = torch.autograd.grad(mixtures.log_prob(x).sum(), x)
    assert float(slope.abs().max()) < 1e-6
    near = x.detach() + 1e-2 * _normal(100, 40, num_dims)
    assert bool((mixtures.log_prob(near) < mixtures.log_prob(x.detach())).all())


def test_the_mode_of_one_normal_is_its_mean() -> None:
    one = _head("full", num_components=1)(_normal(4, 4))
    assert one.mean.requires_grad and not one.mode.requires_grad
    torch.testing.assert_close(one.mode, one.mean.detach())


@pytest.mark.parametrize("sample_shape", [(), (5,), (2, 5)])
@pytest.mark.parametrize("family", FAMILIES)
def test_cdf_is_torch_s_and_icdf_its_inverse(family: str, sample_shape: tuple[int, ...]) -> None:
    mixtures = _mixtures(1, family)
    x = mixtures.sample(sample_shape, generator=_generator())
    u = mixtures.cdf(x)
    assert u.shape == (*sample_shape, 40)
    parts = torch.distributions.Normal(
        mixtures.component_means[..., 0], mixtures.component_covariances[..., 0, 0].sqrt()
    )
    mixing = torch.distributions.Categorical(mixtures.weights)
    theirs = torch.distributions.MixtureSameFamily(mixing, parts)
    torch.testing.assert_close(u, theirs.cdf(x[..., 0]))
    again = mixtures.icdf(u)
    assert again.shape == x.shape
    torch.testing.assert_close(mixtures.cdf(again), u, rtol=0, atol=1e-14)


def test_quantiles_at_and_beyond_the_ends() -> None:
    mixtures = _mixtures(1)
    shares = torch.tensor([0.0, 1.0, -0.1, 1.1], dtype=torch.float64)[:, None].expand(4, 40)
    low, high, below, above = mixtures.icdf(shares)
    assert bool((low == -torch.inf).all() & (high == torch.inf).all())
    assert bool(below.isnan().all() & above.isnan().all())
    assert float(mixtures.cdf(mixtures.icdf(torch.tensor(0.5))).std()) < 1e-14
    for name in ("cdf", "icdf"):
        with pytest.raises(NotImplementedError, match="take a marginal first"):
            getattr(_mixtures(2), name)(torch.zeros(40, 2))


def test_gradients_of_quantiles() -> None:
    head, h = _head("full", 1), _normal(3, 4)
    u = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64, requires_grad=True)

    def quantiles(bias: Tensor, u: Tensor) -> Tensor:
        return functional_call(head, {"linear.bias": bias}, (h,)).icdf(u)

    assert torch.autograd.gradcheck(quantiles, (head.linear.bias, u))


def test_the_score_is_the_integral_that_it_stands_for() -> None:
    mixtures = _mixtures(1)
    x = mixtures.sample((5,), generator=_generator())
    found = gmmedu.crps(mixtures, x)
    assert found.shape == (5, 40)
    # On both sides of the value, where the integrand jumps.
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(400))
    known = torch.zeros_like(found)
    for low, high, above in ((-15 * torch.ones_like(x), x, 0.0), (x, 15 * torch.ones_like(x), 1.0)):
        half = 0.5 * (high - low)
        at = 0.5 * (high + low) + half * nodes.reshape(-1, 1, 1, 1)
        squares = (mixtures.cdf(at) - above).square()
        known = known + half[..., 0] * torch.einsum("q,qsb->sb", weights, squares)
    torch.testing.assert_close(found, known, rtol=0, atol=1e-6)
    with pytest.raises(NotImplementedError, match="take a marginal first"):
        gmmedu.crps(_mixtures(2), torch.zeros(40, 2))

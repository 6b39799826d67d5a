"""The mixture as a torch distribution: torch's shapes, closed forms, gradients of its samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributions
from torch.distributions import MixtureSameFamily

import gmmedu
from gmmedu import MixtureDistribution, mixture
from gmmedu.models import GaussianMixture

FAMILIES = list(gmmedu.MODELS)
SHAPES = [(), (3,), (2, 3)]
Parts = tuple[Tensor, Tensor, Tensor]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _model(
    family: str,
    batch_shape: tuple[int, ...] = (),
    num_dims: int = 2,
    dtype: torch.dtype = torch.float64,
) -> GaussianMixture:
    """Three random components."""
    g, shape = _generator(len(batch_shape)), (*batch_shape, 3, num_dims)
    root = torch.randn(*shape, num_dims, generator=g, dtype=torch.float64)
    spread = 0.3 * torch.eye(num_dims, dtype=torch.float64)
    model = gmmedu.MODELS[family](3, num_dims, batch_shape=batch_shape, dtype=dtype)
    return model.set_parameters(
        torch.rand(shape[:-1], generator=g, dtype=torch.float64) + 0.1,
        2 * torch.randn(shape, generator=g, dtype=torch.float64),
        root @ root.mT / num_dims + spread,
    )


def _of(family: str, batch_shape: tuple[int, ...] = (), num_dims: int = 2) -> MixtureDistribution:
    return _model(family, batch_shape, num_dims).to_distribution()


# Torch's contract of shapes


@pytest.mark.parametrize("sample_shape", [(), (5,), (4, 5)])
@pytest.mark.parametrize("batch_shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_torch(
    family: str, batch_shape: tuple[int, ...], sample_shape: tuple[int, ...]
) -> None:
    ours = _of(family, batch_shape)
    theirs = ours.to_torch()
    assert isinstance(ours, distributions.Distribution)
    assert ours.batch_shape == theirs.batch_shape == torch.Size(batch_shape)
    assert ours.event_shape == theirs.event_shape == torch.Size((2,))
    x = ours.sample(sample_shape, generator=_generator())
    assert x.shape == theirs.sample(torch.Size(sample_shape)).shape
    assert ours.rsample(torch.Size(sample_shape)).shape == x.shape
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    for name in ("mean", "variance", "stddev"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert ours.covariance.shape == (*batch_shape, 2, 2)
    shares = ours.responsibilities(x)
    assert shares.shape == (*sample_shape, *batch_shape, 3)
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]))


@pytest.mark.parametrize("batch_shape", [(), (3,)])
def test_values_broadcast_as_torch_s_do(batch_shape: tuple[int, ...]) -> None:
    ours = _of("full", batch_shape)
    for shape in [(2,), (3, 2), (4, 3, 2), (4, 1, 2), (5, 4, 3, 2)]:
        x = torch.randn(shape, generator=_generator(), dtype=torch.float64)
        expected = ours.to_torch().log_prob(x)
        torch.testing.assert_close(ours.log_prob(x), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_expand(family: str) -> None:
    ours = _of(family, (3,))
    wide = ours.expand((4, 3))
    assert type(wide) is MixtureDistribution and wide.family is ours.family
    assert wide.batch_shape == (4, 3) and wide.event_shape == (2,)
    x = torch.randn(4, 3, 2, generator=_generator(), dtype=torch.float64)
    torch.testing.assert_close(wide.log_prob(x), ours.log_prob(x))
    assert wide.mean.shape == (4, 3, 2) and wide.rsample((6,)).shape == (6, 4, 3, 2)
    assert _of(family).expand((2, 5)).sample((7,)).shape == (7, 2, 5, 2)
    assert distributions.Independent(wide, 1).log_prob(x).shape == (4,)


def test_validate_args() -> None:
    state, bad = _model("full").state(), torch.tensor([torch.nan, 0.0]).double()
    strict = MixtureDistribution(state, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        strict.log_prob(bad)
    with pytest.raises(ValueError, match="broadcastable|shape"):
        strict.log_prob(torch.zeros(3, dtype=torch.float64))
    assert MixtureDistribution(state, validate_args=False).log_prob(bad).isnan()
    broken = state._replace(means=state.means * torch.nan)
    with pytest.raises(ValueError, match="means must be finite"):
        MixtureDistribution(broken, validate_args=True)
    MixtureDistribution(broken, validate_args=False)
    assert strict.expand((2,))._validate_args
    assert not MixtureDistribution(state, validate_args=False).expand((2,))._validate_args


@pytest.mark.parametrize("default", [True, False])
def test_without_validate_args_torch_s_default_counts(
    monkeypatch: pytest.MonkeyPatch, default: bool
) -> None:
    """torch's default is of the process: torch.compile turns it off for good, for one."""
    monkeypatch.setattr(distributions.Distribution, "_validate_args", default)
    assert MixtureDistribution(_model("full").state())._validate_args == default


def test_repr_is_short_and_names_the_shapes() -> None:
    text = repr(_of("full", (3,)))
    assert "MixtureDistribution" in text and len(text) < 120
    assert "3" in text and "full" in text


# Moments and samples


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_many_samples(family: str) -> None:
    model = _model(family, (2,)).requires_grad_(False)
    ours = model.to_distribution()
    x = ours.sample((40_000,), generator=_generator())
    deviation = ours.variance.sqrt()
    # Standard errors: sd / 200 of a mean, about twice that of a variance.
    gap = (x.mean(0) - ours.mean).abs() / deviation
    assert float(gap.max()) < 0.02
    centered = (x - x.mean(0)) / deviation
    scale = deviation.unsqueeze(-1) * deviation.unsqueeze(-2)
    found = torch.einsum("nbi,nbj->bij", centered, centered) / len(x)
    assert float((found - ours.covariance / scale).abs().max()) < 0.05


def test_samples_are_drawn_by_the_generator_and_without_a_gradient() -> None:
    ours = _of("full", (3,))
    one, two = (ours.sample((5,), generator=_generator(7)) for _ in range(2))
    assert torch.equal(one, two) and not one.requires_grad
    torch.manual_seed(0)
    first = ours.sample((5,))
    torch.manual_seed(0)
    assert torch.equal(first, ours.sample((5,)))


def test_samples_of_a_model() -> None:
    model = _model("full")
    assert model.sample(5).shape == model.sample((5,)).shape == (5, 2)
    assert model.sample((4, 5)).shape == (4, 5, 2) and model.sample(0).shape == (0, 2)
    assert model.sample(torch.Size((4,))).shape == (4, 2)
    points, labels = model.sample_with_labels((4, 5))
    assert points.shape == (4, 5, 2) and labels.shape == (4, 5)
    size: Any = np.int64(3)
    assert model.sample(size).shape == (3, 2)


@pytest.mark.parametrize("share", [0.0, 1e-300])
def test_no_point_is_drawn_of_a_component_without_weight(share: float) -> None:
    shares = torch.tensor([0.1] * 10 + [share] * 2, dtype=torch.float64)
    model = gmmedu.GmmFull(12, 2, batch_shape=(2,), dtype=torch.float64)
    model.set_parameters(weights=torch.stack([shares, shares.flip(0)]))
    state = model.state()
    largest = 1 - 2**-53  # of all numbers that are drawn
    assert bool((state.log_weights.exp().cumsum(-1)[:, -1] <= largest).all())
    uniform = torch.tensor([[0.0, largest]], dtype=torch.float64).expand(2, -1)
    _, labels = mixture.draw(model.family, state, uniform, torch.zeros(2, 2, 2).double())
    assert labels[0].tolist() == [0, 9] and int(labels[1, 1]) == 11


# Gradients of samples


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_in_one_dimension_moves_as_its_quantile_does(family: str) -> None:
    model = _model(family, num_dims=1)
    numbers = [p for p in model.parameters() if p.requires_grad]
    x = model.to_distribution().rsample((20,), generator=_generator())
    # Where F(x; p) = u is held, dx/dp = -(dF/dp) / (dF/dx).
    deviations = model.covariances[:, 0, 0].sqrt()
    at = x.detach()
    z = (at - model.means[:, 0]) / deviations
    cdf = (model.weights * torch.special.ndtr(z)).sum(-1)
    density = model.log_prob(at).detach().exp()
    for n in range(len(x)):
        found = torch.autograd.grad(x[n, 0], numbers, retain_graph=True)
        slopes = torch.autograd.grad(cdf[n], numbers, retain_graph=True)
        for mine, slope in zip(found, slopes, strict=True):
            torch.testing.assert_close(mine, -slope / density[n], rtol=1e-8, atol=1e-9)


def _moments(x: Tensor) -> list[Tensor]:
    """E[x_i], and E[x_i x_j] with each pair, of points (N, D)."""
    return [*x.mean(0), *(x.mT @ x / len(x)).flatten()]


@pytest.mark.parametrize("family", ["full", "shared_isotropic"])
def test_samples_have_the_gradient_of_their_moments(family: str) -> None:
    model, generator = _model(family), _generator()
    numbers = [p for p in model.parameters() if p.requires_grad]
    own = model.to_distribution()
    slopes = [
        [
            torch.autograd.grad(moment, numbers, retain_graph=True)
            for moment in _moments(own.rsample((750,), generator=generator))
        ]
        for _ in range(20)
    ]
    second = own.covariance + own.mean[:, None] * own.mean
    for index, exact in enumerate([*own.mean, *second.flatten()]):
        known = torch.autograd.grad(exact, numbers, retain_graph=True, materialize_grads=True)
        for place, right in enumerate(known):
            found = torch.stack([one[index][place] for one in slopes])
            error = found.std(0) / len(found) ** 0.5
            assert bool(((found.mean(0) - right).abs() < 5 * error + 1e-3).all())


def test_samples_of_a_batch_have_gradients_of_their_own_member() -> None:
    model = _model("full", (3,))
    x = model.to_distribution().rsample((4,), generator=_generator())
    for number in model.parameters():
        (gradient,) = torch.autograd.grad(x[:, 1].sum(), number, retain_graph=True)
        assert bool(gradient[1].any()) and not bool(gradient[[0, 2]].any())


def test_a_sample_that_can_move_is_the_one_that_cannot() -> None:
    own = _of("full", (3,))
    fixed = own.sample((4,), generator=_generator(1))
    moving = own.rsample((4,), generator=_generator(1))
    assert moving.requires_grad and not fixed.requires_grad
    torch.testing.assert_close(moving.detach(), fixed, rtol=0, atol=1e-12)


def test_gradients_of_samples_stay_finite_where_a_component_is_far_away() -> None:
    means = torch.tensor([[0.0, 0.0], [1e4, -1e4]], dtype=torch.float64)
    model = gmmedu.GmmFull(2, 2, init_means=means, dtype=torch.float64)
    x = model.to_distribution().rsample((50,), generator=_generator())
    gradients = torch.autograd.grad(x.square().sum(), list(model.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert bool(gradients[1].any())


# There and back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_to_and_from_torch(family: str, batch_shape: tuple[int, ...], dtype: torch.dtype) -> None:
    model = _model(family, batch_shape, dtype=dtype)
    x = model.sample(6, generator=_generator())
    theirs = model.to_distribution().to_torch()
    assert isinstance(theirs, MixtureSameFamily)
    for given in (theirs, model.to_distribution()):
        again = type(model).from_distribution(given)
        assert again.batch_shape == batch_shape and again.means.dtype == dtype
        old, new = (m.to_distribution().log_prob(x) for m in (model, again))
        torch.testing.assert_close(new, old)


@pytest.mark.parametrize("batch_shape", [(), (3,)])
def test_gradients_pass_to_torch(batch_shape: tuple[int, ...]) -> None:
    model = _model("tied", batch_shape)
    x = model.sample(6, generator=_generator())
    numbers = list(model.parameters())
    both = [model.to_distribution(), model.to_distribution().to_torch()]
    ours, theirs = (torch.autograd.grad(d.log_prob(x).sum(), numbers) for d in both)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("num_dims", [1, 2])
def test_from_torch_s_normals(num_dims: int) -> None:
    mixing = distributions.Categorical(torch.tensor([0.3, 0.7]).double())
    means = torch.tensor([[0.0, 1.0], [2.0, -3.0]]).double()[:, :num_dims]
    deviations = torch.tensor([[1.0, 2.0], [0.5, 3.0]]).double()[:, :num_dims]
    normal = distributions.Normal(means, deviations)
    theirs = MixtureSameFamily(mixing, distributions.Independent(normal, 1))
    model = gmmedu.GmmDiagonal.from_distribution(theirs)
    x = torch.randn(5, num_dims, generator=_generator(), dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x), theirs.log_prob(x))
    if num_dims == 1:
        scalar = MixtureSameFamily(mixing, distributions.Normal(means[:, 0], deviations[:, 0]))
        round_one = gmmedu.GmmIsotropic.from_distribution(scalar)
        torch.testing.assert_close(round_one.log_prob(x), scalar.log_prob(x[:, 0]))


def test_what_cannot_be_taken_over_is_refused() -> None:
    full = _of("full")
    for kind in ("tied", "diagonal", "isotropic", "shared_isotropic", "constant"):
        with pytest.raises(ValueError, match="cannot hold these covariances"):
            gmmedu.MODELS[kind].from_distribution(full)
    with pytest.raises(TypeError, match="got Normal"):
        gmmedu.GmmFull.from_distribution(distributions.Normal(0.0, 1.0))
    gammas = MixtureSameFamily(
        distributions.Categorical(torch.ones(2)),
        distributions.Gamma(torch.ones(2), torch.ones(2)),
    )
    with pytest.raises(TypeError, match="MixtureSameFamily of Gamma"):
        gmmedu.GmmFull.from_distribution(gammas)


@pytest.mark.parametrize("num_dims", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_to_and_from_scikit_learn(family: str, num_dims: int) -> None:
    model = _model(family, num_dims=num_dims)
    x = model.sample(9, generator=_generator())
    peer = model.to_sklearn()
    ours, theirs = model.log_prob(x), peer.score_samples(x.numpy())
    np.testing.assert_allclose(theirs, ours.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(peer.predict(x.numpy()), model.predict(x))
    assert peer.sample(3)[0].shape == (3, num_dims)
    again = type(model).from_sklearn(peer)
    torch.testing.assert_close(again.log_prob(x), ours, rtol=1e-12, atol=1e-12)
    with pytest.raises(TypeError, match=r"model\[i\]\.to_sklearn"):
        _model(family, (2,)).to_sklearn()


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("full", "full"),
        ("tied", "tied"),
        ("diag", "diagonal"),
        ("spherical", "isotropic"),
    ],
)
def test_of_what_scikit_learn_fitted(kind: str, family: str) -> None:
    from sklearn.mixture import GaussianMixture as Peer

    x = _model("full").sample(60, generator=_generator())
    peer = Peer(2, covariance_type=kind, random_state=0)
    with pytest.raises(ValueError, match="fitted"):
        gmmedu.MODELS[family].from_sklearn(peer)
    peer.fit(x.numpy())
    model = gmmedu.MODELS[family].from_sklearn(peer)
    np.testing.assert_allclose(model.log_prob(x).detach(), peer.score_samples(x))
    full = gmmedu.GmmFull.from_sklearn(peer)
    torch.testing.assert_close(full.log_prob(x), model.log_prob(x))


# Points of any shape


@pytest.mark.parametrize("batch_shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_points_of_any_shape(family: str, batch_shape: tuple[int, ...]) -> None:
    model = _model(family, batch_shape)
    x = torch.randn(5, *batch_shape, 4, 2, generator=_generator(), dtype=torch.float64)
    lead = torch.randn(4, 2, generator=_generator(1), dtype=torch.float64)
    shapes = {x: (5, *batch_shape, 4), lead: (*batch_shape, 4), lead[0]: batch_shape}
    own = model.to_distribution().to_torch()
    for points, shape in shapes.items():
        density = model.log_prob(points)
        assert density.shape == shape
        # torch has the batch last.
        rows = points.movedim(-2, 0) if points.ndim > 1 else points
        if points is lead:
            rows = lead.reshape(4, *[1] * len(batch_shape), 2)
        expected = own.log_prob(rows)
        expected = expected.movedim(0, -1) if points.ndim > 1 else expected
        torch.testing.assert_close(density, expected)
        assert model.responsibilities(points).shape == (*shape, 3)
        assert model.predict(points).shape == shape
        assert torch.equal(model.predict(points), model.responsibilities(points).argmax(-1))


def test_weights_of_another_dtype_take_that_of_the_means() -> None:
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    means = torch.tensor([[0.0, 0.0], [3.0, 0.0]], requires_grad=True)
    mixture = MixtureDistribution.of(shares, means, torch.eye(2).expand(2, 2, 2))
    assert {part.dtype for part in (mixture.state.log_weights, mixture.mean)} == {torch.float32}
    assert mixture.log_prob(torch.zeros(2)).dtype == torch.float32
    assert mixture.mode.shape == (2,)
    mixture.rsample((5,)).sum().backward()
    assert means.grad is not None

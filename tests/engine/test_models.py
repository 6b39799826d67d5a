"""The mixture as a torch module: its density, what can be made of it, and how torch sees it."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator

import numpy as np
import pytest
import reference
import torch
from reference import Mixture
from scipy.integrate import quad
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor, nn

import gmmedu
from gmmedu import GaussianMixture
from gmmedu import mixture as mixture_module

FAMILIES = pytest.mark.parametrize("name", reference.ALL)
NUM_DIMS = pytest.mark.parametrize("num_dims", [1, 2, 3, 16, 64], ids="D={}".format)
NUM_COMPONENTS = pytest.mark.parametrize("num_components", [1, 2, 8, 64], ids="K={}".format)


def model_of(name: str, mixture: Mixture, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    num_components, num_dims = mixture.means.shape
    model = gmmedu.MODELS[name](num_components, num_dims, dtype=dtype)
    return model.set_parameters(**mixture.tensors())


def example(
    name: str, num_components: int = 3, num_dims: int = 2
) -> tuple[GaussianMixture, Tensor]:
    """A model of the family and 100 points of it, both float64."""
    mixture = reference.random_mixture(name, num_components, num_dims)
    return model_of(name, mixture), torch.tensor(reference.draw(mixture, 100))


def mixture_of(model: GaussianMixture) -> Mixture:
    parts = (model.weights, model.means, model.covariances)
    return Mixture(*(part.detach().double().numpy() for part in parts))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# Accuracy


@FAMILIES
@NUM_DIMS
@NUM_COMPONENTS
def test_densities_and_responsibilities_agree_with_scipy(
    name: str, num_components: int, num_dims: int
) -> None:
    mixture = reference.random_mixture(name, num_components, num_dims)
    x = reference.draw(mixture, 60)
    model = model_of(name, mixture)
    log_density = reference.log_density(mixture, x)
    found = model.log_prob(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, log_density, rtol=1e-10, atol=1e-10)
    assert model(torch.tensor(x)).item() == pytest.approx(-log_density.mean(), rel=1e-10)
    shares = model.responsibilities(torch.tensor(x)).detach().numpy()
    expected = reference.responsibilities(mixture, x)
    np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=0, atol=1e-14)
    labels = model.predict(torch.tensor(x))
    assert labels.dtype == torch.int64
    joint = reference.log_joint(mixture, x)
    chosen = joint[np.arange(60), labels.numpy()]
    np.testing.assert_allclose(chosen, joint.max(1), rtol=0, atol=1e-10)


@FAMILIES
@NUM_DIMS
@NUM_COMPONENTS
def test_autograd_agrees_with_autograd_of_an_independent_loop(
    name: str, num_components: int, num_dims: int
) -> None:
    mixture = reference.random_mixture(name, num_components, num_dims)
    x = torch.tensor(reference.draw(mixture, 25) + 0.3, requires_grad=True)
    model = model_of(name, mixture)
    learned = [model.logits, model.means] + ([model.raw_scale] if name != "constant" else [])
    found = torch.autograd.grad(model(x), [*learned, x])
    theta = torch.tensor(reference.theta_of(name, mixture.covariances), requires_grad=True)
    logits = torch.tensor(mixture.weights).log().requires_grad_()
    means = torch.tensor(mixture.means, requires_grad=True)
    leaves = [logits, means] + ([theta] if name != "constant" else [])
    nll = reference.mean_nll(name, logits, means, theta, x)
    for a, b in zip(found, torch.autograd.grad(nll, [*leaves, x]), strict=True):
        assert float((a - b).abs().max()) < 1e-10 * max(1.0, float(b.abs().max()))


@FAMILIES
@pytest.mark.parametrize("num_dims", [1, 3])
def test_gradcheck_of_the_log_density(name: str, num_dims: int) -> None:
    """Against finite differences, in everything the density depends on."""
    mixture = reference.random_mixture(name, 2, num_dims)
    model = model_of(name, mixture)
    x = torch.tensor(reference.draw(mixture, 4))
    names = ["logits", "means", "raw_scale"]

    def log_prob(logits: Tensor, means: Tensor, raw_scale: Tensor, x: Tensor) -> Tensor:
        given = dict(zip(names, (logits, means, raw_scale), strict=True))
        # functional_call reaches forward; of one point it is that point's log density.
        each = [torch.func.functional_call(model, given, (point[None],)) for point in x]
        return -torch.stack(each)

    inputs = (model.logits, model.means, model.raw_scale, x)
    assert torch.autograd.gradcheck(
        log_prob, tuple(value.detach().clone().requires_grad_() for value in inputs)
    )


@FAMILIES
def test_the_blocks_of_the_density_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = example(name)
    whole = [model.log_prob(x), model.responsibilities(x), model.predict(x), model(x)]
    monkeypatch.setattr(mixture_module, "_BLOCK_NUMBERS", 7 * 3 * 2)  # 7 points at a time
    parts = [model.log_prob(x), model.responsibilities(x), model.predict(x), model(x)]
    for a, b in zip(whole, parts, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


def test_a_point_too_far_for_any_density_still_has_a_log_density() -> None:
    model, _ = example("full")
    far = torch.full((1, 2), 1e5, dtype=torch.float64)
    assert math.isfinite(model.log_prob(far).item()) and model.log_prob(far).item() < -1e8
    assert model.responsibilities(far).sum().item() == pytest.approx(1)


# What it is


@FAMILIES
def test_set_parameters_are_read_back(name: str) -> None:
    mixture = reference.random_mixture(name, 3, 2)
    model = model_of(name, mixture)
    for found, expected in zip(mixture_of(model), mixture, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert (model.num_components, model.num_dims, model.family.name) == (3, 2, name)


def test_set_parameters_changes_only_what_is_given() -> None:
    model, _ = example("full")
    before = copy.deepcopy(model.state_dict())
    assert model.set_parameters(weights=torch.tensor([2.0, 1.0, 1.0]).double()) is model
    torch.testing.assert_close(model.weights, torch.tensor([0.5, 0.25, 0.25]).double())
    assert torch.equal(model.means, before["means"]) and torch.equal(
        model.raw_scale, before["raw_scale"]
    )
    model.set_parameters(means=torch.ones(3, 2).double())
    assert torch.equal(model.means, torch.ones(3, 2).double())
    assert torch.equal(model.raw_scale, before["raw_scale"])


@FAMILIES
def test_a_new_model_has_equal_weights_unit_variances_and_means_in_the_box(name: str) -> None:
    radius = 3.0
    model = gmmedu.MODELS[name](400, 2, init_radius=radius, generator=generator())
    torch.testing.assert_close(model.weights, torch.full((400,), 1 / 400))
    torch.testing.assert_close(model.covariances, torch.eye(2).expand(400, 2, 2))
    assert model.means.abs().max().item() <= radius
    # The standard error of 800 uniform numbers is radius / sqrt(3 * 800), a fiftieth of it.
    assert abs(model.means.mean().item()) < 4 * radius / math.sqrt(3 * 800)
    # None of 400 in the outer tenth of a side would happen once in 1e9.
    assert (model.means.amax(0) > 0.9 * radius).all() and (
        model.means.amin(0) < -0.9 * radius
    ).all()
    again = gmmedu.MODELS[name](400, 2, init_radius=radius, generator=generator())
    assert torch.equal(model.means, again.means)
    other = gmmedu.MODELS[name](400, 2, init_radius=radius, generator=generator(1))
    assert not torch.equal(model.means, other.means)


def test_init_means_are_taken_and_copied() -> None:
    means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    model = gmmedu.GmmFull(2, 2, init_means=means)
    assert torch.equal(model.means, means)
    means[0, 0] = 99.0
    assert model.means[0, 0].item() == 1.0


def test_a_given_variance_is_a_variance() -> None:
    model = gmmedu.GmmConstant(2, 3, variance=0.25, dtype=torch.float64)
    torch.testing.assert_close(model.covariances, 0.25 * torch.eye(3).double().expand(2, 3, 3))
    assert "raw_scale" not in dict(model.named_parameters()) and "raw_scale" in model.state_dict()


# It feels like torch


@FAMILIES
def test_saving_and_loading(name: str) -> None:
    model, x = example(name)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = gmmedu.MODELS[name](3, 2, dtype=torch.float64)
    assert not torch.equal(fresh(x), model(x))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x), model(x))
    assert set(model.state_dict()) == {"logits", "means", "raw_scale"}


@FAMILIES
def test_a_whole_module_is_saved_and_copied(name: str) -> None:
    model, x = example(name)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded) is type(model) and torch.equal(loaded(x), model(x))
    twin = copy.deepcopy(model)
    before = model(x).item()
    gmmedu.fit_em(twin, x, 2, tolerance=0)
    assert model(x).item() == before and twin(x).item() < before


@FAMILIES
def test_moving_between_dtypes(name: str) -> None:
    model, x = example(name)
    exact = model.log_prob(x)
    model.float()
    assert model.covariances.dtype == model.weights.dtype == torch.float32
    rough = model.log_prob(x)  # double points are converted to the model's dtype
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, rtol=1e-5, atol=1e-5)
    model.to(torch.float64)
    assert model.log_prob(x.float()).dtype == torch.float64
    torch.testing.assert_close(model.log_prob(x), exact, rtol=1e-5, atol=1e-5)


@FAMILIES
def test_the_default_dtype_is_torch_s(name: str, double_by_default: None) -> None:
    build = gmmedu.MODELS[name]
    assert build(2, 2).means.dtype == build(2, 2).raw_scale.dtype == torch.float64
    assert build(2, 2, dtype=torch.float32).raw_scale.dtype == torch.float32


def test_both_dtypes_start_from_the_same_numbers() -> None:
    rough = gmmedu.GmmFull(5, 3, generator=generator())
    exact = gmmedu.GmmFull(5, 3, generator=generator(), dtype=torch.float64)
    assert torch.equal(exact.means.float(), rough.means)


@FAMILIES
def test_a_mixture_on_top_of_a_network_trains_end_to_end(name: str) -> None:
    model, _ = example(name)
    torch.manual_seed(0)
    net = nn.Linear(4, 2, dtype=torch.float64)
    stack = nn.Sequential(net, model)
    x = torch.randn(50, 4, generator=generator(), dtype=torch.float64)
    stack(x).backward()
    assert net.weight.grad is not None
    slope, step = net.weight.grad[1, 2].item(), 1e-5
    losses = []
    with torch.no_grad():
        for change in (step, -2 * step, step):
            net.weight[1, 2] += change
            losses.append(stack(x).item())
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6, abs=1e-8)
    before = [parameter.detach().clone() for parameter in stack.parameters()]
    optimizer = torch.optim.SGD(stack.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        stack(x).backward()
        optimizer.step()
    assert stack(x).item() < losses[-1]
    assert all(not torch.equal(a, b) for a, b in zip(before, stack.parameters(), strict=True))


@FAMILIES
def test_the_torch_distribution_says_the_same(name: str) -> None:
    model, x = example(name, num_dims=3)
    distribution = model.to_distribution().to_torch()
    assert isinstance(distribution, torch.distributions.MixtureSameFamily)
    torch.testing.assert_close(distribution.log_prob(x), model.log_prob(x), rtol=1e-12, atol=1e-12)
    (by_torch,) = torch.autograd.grad(-distribution.log_prob(x).mean(), model.means)
    (by_model,) = torch.autograd.grad(model(x), model.means)
    torch.testing.assert_close(by_torch, by_model, rtol=0, atol=1e-12)


# Samples


@FAMILIES
def test_samples_have_the_moments_of_their_components(name: str) -> None:
    """Five standard errors of each figure: by chance once in a million, and the seed is fixed."""
    model, _ = example(name)
    num_samples = 40_000
    x, labels = model.sample_with_labels(num_samples, generator=generator(3))
    assert x.shape == (num_samples, 2) and labels.shape == (num_samples,)
    truth = mixture_of(model)
    for k in range(3):
        mine = x[labels == k].numpy()
        share, weight = len(mine) / num_samples, truth.weights[k]
        assert abs(share - weight) < 5 * math.sqrt(weight * (1 - weight) / num_samples)
        variances = np.diag(truth.covariances[k])
        error = 5 * np.sqrt(variances / len(mine))
        assert (np.abs(mine.mean(0) - truth.means[k]) < error).all()
        squares = np.outer(variances, variances) + truth.covariances[k] ** 2
        error = 5 * np.sqrt(squares / len(mine))
        assert (np.abs(np.cov(mine.T) - truth.covariances[k]) < error).all()


def test_samples_come_from_the_generator_alone() -> None:
    model, _ = example("full")
    torch.manual_seed(1)
    first = model.sample(20, generator=generator(5))
    torch.manual_seed(2)
    assert torch.equal(model.sample(20, generator=generator(5)), first)
    assert not torch.equal(model.sample(20, generator=generator(6)), first)
    rough = copy.deepcopy(model).float().sample(20, generator=generator(5))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), first, rtol=1e-5, atol=1e-5)


def test_samples_without_a_generator_follow_the_global_seed() -> None:
    model, _ = example("full")
    torch.manual_seed(1)
    first = model.sample(20)
    assert not torch.equal(model.sample(20), first)
    torch.manual_seed(1)
    assert torch.equal(model.sample(20), first)


def test_a_sample_of_nothing_is_empty() -> None:
    model, _ = example("full")
    assert model.sample(0).shape == (0, 2)


# Marginals and conditionals


def density(model: GaussianMixture, *point: float) -> float:
    with torch.no_grad():
        return math.exp(model.log_prob(torch.tensor([point], dtype=torch.float64)).item())


@FAMILIES
@pytest.mark.parametrize("kept", [0, 1])
def test_a_marginal_is_the_integral_over_the_other_dimension(name: str, kept: int) -> None:
    model, x = example(name)
    smaller = model.marginal([kept])
    assert type(smaller) is type(model) and smaller.num_dims == 1
    for value in (-1.0, 0.4, 2.0):

        def along(other: float, value: float = value) -> float:
            return density(model, *((value, other) if kept == 0 else (other, value)))

        integral, _ = quad(along, -15, 15, points=(-3, 0, 3), epsabs=1e-11, epsrel=1e-9)
        assert density(smaller, value) == pytest.approx(integral, rel=1e-7)


@FAMILIES
def test_a_marginal_keeps_the_order_asked_for(name: str) -> None:
    model, x = example(name, num_dims=4)
    smaller = model.marginal([3, 0])
    truth = mixture_of(model)
    np.testing.assert_allclose(smaller.means.detach(), truth.means[:, [3, 0]], atol=1e-13)
    expected = truth.covariances[:, [3, 0]][:, :, [3, 0]]
    np.testing.assert_allclose(smaller.covariances.detach(), expected, atol=1e-13)
    whole = model.marginal([0, 1, 2, 3])
    torch.testing.assert_close(whole.log_prob(x), model.log_prob(x), rtol=1e-12, atol=1e-12)


@FAMILIES
@pytest.mark.parametrize("given", [{0: 0.4}, {1: -1.2}, {2: 0.3, 0: -0.7}], ids=str)
def test_a_conditional_is_the_ratio_of_densities(name: str, given: dict[int, float]) -> None:
    model, x = example(name, num_dims=3)
    conditional = model.condition(given)
    rest = [d for d in range(3) if d not in given]
    assert type(conditional) is type(model) and conditional.num_dims == len(rest)
    points = x[:10].clone()
    for d, value in given.items():
        points[:, d] = value
    known = model.marginal(sorted(given))
    ratio = model.log_prob(points) - known.log_prob(points[:, sorted(given)])
    found = conditional.log_prob(points[:, rest])
    torch.testing.assert_close(found, ratio, rtol=0, atol=1e-11)


# Criteria


@pytest.mark.parametrize(
    ("name", "known_as"),
    [("full", "full"), ("tied", "tied"), ("diagonal", "diag"), ("isotropic", "spherical")],
)
def test_aic_and_bic_are_scikit_learn_s(name: str, known_as: str) -> None:
    model, x = example(name)
    truth = mixture_of(model)
    peer = SklearnMixture(3, covariance_type=known_as)
    peer.weights_, peer.means_ = truth.weights, truth.means
    peer.covariances_ = {
        "full": truth.covariances,
        "tied": truth.covariances[0],
        "diag": np.stack([np.diag(c) for c in truth.covariances]),
        "spherical": truth.covariances[:, 0, 0],
    }[known_as]
    precisions = np.linalg.inv(truth.covariances)
    # scikit-learn's factor of the precision is the transposed whitening, W^T.
    factors = np.linalg.inv(np.linalg.cholesky(truth.covariances)).transpose(0, 2, 1)
    np.testing.assert_allclose(factors @ factors.transpose(0, 2, 1), precisions, atol=1e-12)
    peer.precisions_cholesky_ = {
        "full": factors,
        "tied": factors[0],
        "diag": np.stack([np.diag(f) for f in factors]),
        "spherical": factors[:, 0, 0],
    }[known_as]
    assert model.aic(x) == pytest.approx(peer.aic(x.numpy()), rel=1e-12)
    assert model.bic(x) == pytest.approx(peer.bic(x.numpy()), rel=1e-12)


@FAMILIES
def test_aic_and_bic_follow_their_formulas(name: str) -> None:
    model, x = example(name)
    log_likelihood = reference.log_density(mixture_of(model), x.numpy()).sum()
    count = model.num_free_parameters
    assert model.aic(x) == pytest.approx(2 * count - 2 * log_likelihood, rel=1e-12)
    assert model.bic(x) == pytest.approx(count * math.log(100) - 2 * log_likelihood, rel=1e-12)
    assert isinstance(model.aic(x), float) and isinstance(model.bic(x), float)


# Devices


def test_the_environment_names_the_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMMEDU_DEVICE", "cpu")
    assert gmmedu.default_device() == torch.device("cpu")
    monkeypatch.setenv("GMMEDU_DEVICE", "meta")  # a device of every machine, and never the default
    assert gmmedu.default_device() == torch.device("meta")
    monkeypatch.delenv("GMMEDU_DEVICE")
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    assert gmmedu.default_device() == torch.device(usual)
    monkeypatch.setenv("GMMEDU_DEVICE", "abacus")
    with pytest.raises(ValueError, match="GMMEDU_DEVICE='abacus' names no device"):
        gmmedu.default_device()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: CPU = CUDA unchecked")
@FAMILIES
def test_cuda_says_what_the_cpu_says(name: str) -> None:
    model, x = example(name)
    twin, there = copy.deepcopy(model).cuda(), x.cuda()
    torch.testing.assert_close(twin.log_prob(there).cpu(), model.log_prob(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(
        twin.responsibilities(there).cpu(), model.responsibilities(x), rtol=0, atol=1e-11
    )
    drawn = twin.sample(50, generator=generator()).cpu()
    torch.testing.assert_close(drawn, model.sample(50, generator=generator()), rtol=0, atol=1e-12)
    for fit in (gmmedu.fit_em, gmmedu.fit_model):
        ours, theirs = copy.deepcopy(model), copy.deepcopy(twin)
        a = fit(ours, x, 20, tolerance=0)
        b = fit(theirs, there, 20, tolerance=0)
        torch.testing.assert_close(b.history, a.history, rtol=0, atol=1e-9)
        torch.testing.assert_close(theirs.means.cpu(), ours.means, rtol=0, atol=1e-8)
        torch.testing.assert_close(theirs.covariances.cpu(), ours.covariances, rtol=0, atol=1e-8)


def test_a_state_stays_what_it_was_when_the_model_moves_on() -> None:
    model = gmmedu.GmmFull(2, 2, init_radius=3.0, dtype=torch.float64)
    x = model.sample(200, generator=torch.Generator().manual_seed(0)).detach()
    before, density = model.state(), model.to_distribution()
    means, at = model.means.detach().clone(), model.log_prob(x).detach()
    gmmedu.fit_em(model, x, 3, 0)
    assert not torch.equal(model.means, means)
    assert torch.equal(before.means, means)
    assert torch.allclose(density.log_prob(x), at)
    assert torch.allclose(model.set_state(before).log_prob(x), at)


def slender() -> gmmedu.GmmFull:
    """A float32 factor whose covariance float32 cannot tell from a singular one."""
    model = gmmedu.GmmFull(1, 2, init_radius=0.0)
    with torch.no_grad():
        model.raw_scale.copy_(torch.tensor([[[0.0, 0.0], [1.0, math.log(1e-4)]]]))
    return model


def test_a_slender_float32_factor_is_handed_on_whole() -> None:
    model = slender()
    x = torch.tensor([[0.5, 0.5001], [-1.0, -1.0002]])
    expected = model.log_prob(x).detach().double()
    peer = torch.from_numpy(model.to_sklearn().score_samples(x.double().numpy()))
    assert torch.allclose(peer, expected, atol=0.02)
    again = gmmedu.GmmFull.from_distribution(model.to_distribution())
    assert torch.allclose(again.state().scales.factor, model.state().scales.factor, rtol=1e-3)


def test_criteria_take_the_weights_that_a_fit_takes() -> None:
    many = gmmedu.GmmFull(2, 2, init_radius=2.0, batch_shape=3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 40, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(3, 40, generator=generator, dtype=torch.float64)
    for points, weight in ((x, weights), (x, weights[0]), (x[0], weights), (x[0], weights[0])):
        for criterion in ("aic", "bic", "icl"):
            found = getattr(many, criterion)(points, sample_weight=weight)
            alone = [
                getattr(many[m], criterion)(
                    points[m] if points.ndim == 3 else points,
                    sample_weight=weight[m] if weight.ndim == 2 else weight,
                )
                for m in range(3)
            ]
            assert found.tolist() == pytest.approx(alone, abs=1e-9)
    with pytest.raises(ValueError, match="sample_weight must"):
        many.bic(x, sample_weight=weights[:2])

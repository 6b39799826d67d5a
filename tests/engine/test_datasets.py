"""The classics are the files as distributed; synthetic clusters have the law they say they have."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
import torch

from gmmedu.datasets import (
    load_airquality,
    load_crabs,
    load_galaxies,
    load_old_faithful,
    load_penguins,
    sample_mixture,
)
from gmmedu.em import fit_em
from gmmedu.models import MODELS, GmmFull


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_old_faithful_is_the_published_sample() -> None:
    x = load_old_faithful()
    assert x.shape == (272, 2)
    assert x.dtype == torch.float64
    assert x[0].tolist() == [3.6, 79.0]
    assert x[-1].tolist() == [4.467, 74.0]
    # R prints these for `faithful`.
    assert x.mean(0).tolist() == pytest.approx([3.487783, 70.897059], abs=5e-7)
    assert x.std(0).tolist() == pytest.approx([1.141371, 13.594974], abs=5e-7)


def test_galaxies_are_in_thousands_of_km_per_second() -> None:
    x = load_galaxies()
    assert x.shape == (82, 1)
    assert x.dtype == torch.float64
    assert float(x.min()) == pytest.approx(9.172, abs=1e-12)
    assert float(x.max()) == pytest.approx(34.279, abs=1e-12)
    assert float(x[77, 0]) == pytest.approx(26.690, abs=1e-12)  # 26.960 in the paper
    assert bool((x[1:] >= x[:-1]).all())


def test_crabs_are_the_table_that_mixture_inf_fits() -> None:
    x = load_crabs()
    assert x.shape == (1000, 1)
    assert x.dtype == torch.float64
    values, counts = x[:, 0].unique(return_counts=True)
    assert len(values) == 28  # of 29 classes one is empty
    assert float(x.min()) == pytest.approx(0.5815, abs=1e-12)
    assert float(x.max()) == pytest.approx(0.6935, abs=1e-12)
    # What the manual of R's MixtureInf 1.1 prints for pmle.norm(pearson, 2, 1), which adds the log
    # of each weight to the log likelihood; it places each crab at the upper end of its class.
    upper = values + 0.002
    weights, means, variances = (torch.tensor(start).double() for start in (
        [0.4, 0.6], [0.63, 0.66], [3e-4, 2e-4]
    ))  # fmt: skip
    for _ in range(5000):
        squares = (upper[:, None] - means).square() / variances
        joint = weights * torch.exp(-0.5 * squares) / (2 * torch.pi * variances).sqrt()
        shares = counts[:, None] * joint / joint.sum(1, keepdim=True)
        means = (shares * upper[:, None]).sum(0) / shares.sum(0)
        variances = (shares * (upper[:, None] - means).square()).sum(0) / shares.sum(0)
        weights = (shares.sum(0) + 1) / 1002
    log_likelihood = float((counts * joint.sum(1).log()).sum())
    assert log_likelihood == pytest.approx(2567.577, abs=6e-4)
    assert float(log_likelihood + weights.log().sum()) == pytest.approx(2566.177, abs=6e-4)
    assert means.tolist() == pytest.approx([0.634, 0.657], abs=6e-4)
    assert variances.tolist() == pytest.approx([3.39e-4, 1.58e-4], abs=6e-7)


def test_airquality_has_the_maximum_that_lavaan_finds() -> None:
    x = load_airquality()
    assert x.shape == (153, 4)
    assert x.dtype == torch.float64
    assert x.isnan().sum(0).tolist() == [37, 7, 0, 0]
    assert x[0].tolist() == [41.0, 190.0, 7.4, 67.0]
    assert x[-1].tolist() == [20.0, 223.0, 11.5, 68.0]
    # One Gaussian to all that was measured: what R's lavaan 0.6-14 prints for the saturated model
    # with missing = "ml".
    model = GmmFull(1, 4, dtype=torch.float64)
    fit = fit_em(model, x, missing=True, num_iterations=2000, tolerance=1e-12)
    assert -153 * fit.nll == pytest.approx(-2326.697383, rel=1e-4)
    means = [41.87117, 184.84681, 9.957516, 77.88235]
    assert model.means[0].tolist() == pytest.approx(means, rel=1e-4)


def test_penguins_have_the_means_that_palmerpenguins_prints() -> None:
    x, species, names = load_penguins()
    assert x.shape == (342, 4)
    assert x.dtype == torch.float64
    assert species.shape == (342,)
    assert species.dtype == torch.int64
    assert names == ("Adelie", "Chinstrap", "Gentoo")
    assert species.bincount().tolist() == [151, 68, 123]
    assert bool(x.isfinite().all())
    # The table in the README of R's palmerpenguins.
    printed = [[38.8, 18.3, 190, 3701], [48.8, 18.4, 196, 3733], [47.5, 15.0, 217, 5076]]
    for k, means in enumerate(printed):
        errors = x[species == k].mean(0) - torch.tensor(means).double()
        assert bool((errors.abs() <= torch.tensor([0.05, 0.05, 0.5, 0.5])).all())
    single = load_penguins(dtype=torch.float32, device="cpu")
    assert (single.x.dtype, single.species.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("load", [load_old_faithful, load_galaxies, load_crabs, load_airquality])
def test_dtype_and_device_are_those_asked_for(load: Any) -> None:
    x = load(dtype=torch.float32, device="cpu")
    assert x.dtype == torch.float32
    assert x.device.type == "cpu"
    torch.testing.assert_close(x.double(), load(), rtol=1e-6, atol=0, equal_nan=True)


def test_the_data_say_where_they_come_from() -> None:
    readme = (resources.files("gmmedu") / "data" / "README.md").read_text(encoding="utf-8")
    for source in (
        "Azzalini",
        "Bowman",
        "Postman",
        "Huchra",
        "Geller",
        "Roeder",
        "Weldon",
        "Pearson",
        "26690",
        "26960",
        "Chambers",
        "Cleveland",
        "Kleiner",
        "Tukey",
        "Gorman",
        "Williams",
        "Fraser",
        "Horst",
        "Hill",
    ):
        assert source in readme


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("num_dims", [1, 3])
def test_the_truth_is_a_well_conditioned_member_of_its_family(family: str, num_dims: int) -> None:
    data = sample_mixture(
        50, 4, num_dims, family=family, radius=3.0, variance=0.7, generator=generator(1),
        dtype=torch.float64,
    )  # fmt: skip
    model = data.model
    assert type(model) is MODELS[family]
    assert model.means.abs().max() <= 3.0
    weights = model.weights.detach()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert weights.min() >= 0.5 / 4 - 1e-12

    covariances = model.covariances.detach()
    diagonals = covariances.diagonal(dim1=1, dim2=2)
    variances = torch.linalg.eigvalsh(covariances)
    if family == "constant":
        torch.testing.assert_close(diagonals, torch.full_like(diagonals, 0.7))
    else:
        assert variances.min() >= 0.25 - 1e-9
        assert variances.max() <= 2.25 + 1e-9
    off_diagonal = (covariances - torch.diag_embed(diagonals)).abs().max()
    assert (off_diagonal > 1e-3) == (family in ("full", "tied") and num_dims > 1)
    same = torch.allclose(covariances, covariances[:1].expand_as(covariances))
    assert same == (family in ("tied", "shared_isotropic", "constant"))
    if family in ("isotropic", "shared_isotropic", "constant"):
        torch.testing.assert_close(diagonals, diagonals[:, :1].expand_as(diagonals))


@pytest.mark.parametrize("family", MODELS)
def test_samples_have_the_moments_of_the_truth(family: str) -> None:
    num_samples, num_dims = 40_000, 2
    x, labels, model = sample_mixture(
        num_samples, 3, num_dims, family=family, generator=generator(2), dtype=torch.float64
    )
    assert x.shape == (num_samples, num_dims)
    assert labels.shape == (num_samples,)
    assert labels.dtype == torch.int64
    bound = 4.5  # standard errors; the seed is fixed, so the check is too
    for k in range(3):
        weight = float(model.weights[k].detach())
        share = float((labels == k).double().mean())
        assert abs(share - weight) < bound * (weight * (1 - weight) / num_samples) ** 0.5

        mine = x[labels == k]
        count = len(mine)
        sigma = model.covariances[k].detach()
        deviations = sigma.diagonal().sqrt()
        error = (mine.mean(0) - model.means[k].detach()).abs()
        assert bool((error < bound * deviations / count**0.5).all())
        # The variance of an entry of a Gaussian's sample covariance.
        squares = sigma.diagonal()[:, None] * sigma.diagonal()[None, :] + sigma.square()
        error = (torch.cov(mine.mT) - sigma).abs()
        assert bool((error < bound * (squares / count).sqrt()).all())


def test_a_generator_decides_everything() -> None:
    first = sample_mixture(100, 3, 2, generator=generator(7))
    torch.rand(5)  # the global generator must not matter
    again = sample_mixture(100, 3, 2, generator=generator(7))
    other = sample_mixture(100, 3, 2, generator=generator(8))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.model.means, again.model.means)
    assert not torch.equal(first.x, other.x)


def test_float32_and_float64_see_the_same_numbers() -> None:
    single = sample_mixture(100, 3, 2, generator=generator(3), dtype=torch.float32)
    double = sample_mixture(100, 3, 2, generator=generator(3), dtype=torch.float64)
    assert single.x.dtype == torch.float32
    assert torch.equal(single.labels, double.labels)
    torch.testing.assert_close(single.x.double(), double.x, rtol=1e-4, atol=1e-4)


def test_the_sample_is_data_and_not_a_graph() -> None:
    data = sample_mixture(10, 2, 2, generator=generator())
    assert not data.x.requires_grad


def test_min_weight_is_kept_up_to_an_equal_share() -> None:
    for seed in range(20):
        weights = sample_mixture(1, 5, 1, min_weight=0.15, generator=generator(seed)).model.weights
        assert weights.min() >= 0.15 - 1e-6
    weights = sample_mixture(1, 4, 1, min_weight=0.25, generator=generator()).model.weights
    torch.testing.assert_close(weights.detach(), torch.full((4,), 0.25))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 2, 2), {}, "num_samples must be at least 1, got 0"),
        ((10, 0, 2), {}, "num_components must be at least 1, got 0"),
        ((10, 2, 0), {}, "num_dims must be at least 1, got 0"),
        ((10.5, 2, 2), {}, "num_samples must be an integer, got 10.5"),
        ((10, 2, 2), {"family": "spherical"}, "family must be one of 'full'"),
        ((10, 2, 2), {"radius": -1.0}, "radius must be finite and at least 0, got -1.0"),
        ((10, 2, 2), {"radius": float("nan")}, "radius must be finite"),
        ((10, 2, 2), {"min_weight": 0.6}, "min_weight must be at most 1 / num_components = 0.5"),
        ((10, 2, 2), {"min_weight": -0.1}, "min_weight must be finite and at least 0"),
        ((10, 2, 2), {"variance": 0.0}, "variance must be finite and greater than 0"),
        ((10, 2, 2), {"generator": 42}, "generator must be a torch.Generator or None, got int"),
    ],
)
def test_bad_input_is_refused_by_name(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        sample_mixture(*arguments, **options)

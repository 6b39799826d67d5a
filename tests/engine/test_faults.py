"""Faults that people found, each as a kind: other families, fitters, dtypes and batch shapes.

The numbers stand for the faults as they were reported, on more inputs than those reported.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy
import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal
from torch.overrides import TorchFunctionMode

import gmmedu
from gmmedu import ConvergenceWarning, SingularityWarning, plot
from gmmedu import mixture as mixture_module
from gmmedu.device import Rounding
from gmmedu.mixture import MixtureDistribution
from gmmedu.models import GaussianMixture
from gmmedu.problem import Shared
from gmmedu.processes import Alone
from gmmedu.values import Points

FAMILIES = list(gmmedu.MODELS)
Fit = Callable[..., gmmedu.FitResult]
FITTERS: dict[str, Fit] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 200, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(model, x, 200, accelerate="squarem", **o),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 200, 0.02, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 200, **o),
}
#: A few iterations, to the same end by whatever road.
FEW: dict[str, Fit] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 5, 0.0, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(model, x, 5, 0.0, accelerate="squarem", **o),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 5, 0.05, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 5, 0.0, **o),
}
quiet = pytest.mark.filterwarnings(
    "ignore::gmmedu.ConvergenceWarning", "ignore::gmmedu.SingularityWarning"
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _started(
    family: str,
    x: Tensor,
    k: int = 2,
    dtype: torch.dtype | None = None,
    batch_shape: Any = (),
    method: str = "kmeans",
) -> GaussianMixture:
    dtype = x.dtype if dtype is None else dtype
    model = gmmedu.MODELS[family](k, x.shape[-1], batch_shape=batch_shape, dtype=dtype)
    return gmmedu.initialize(model, x, method, generator=_generator(1))


def _numbers(model: GaussianMixture) -> list[Tensor]:
    return [n.detach().clone() for n in (model.logits, model.means, model.raw_scale)]


def _nll(model: GaussianMixture, x: Tensor) -> float:
    """As the model says it, in float64."""
    wide = type(model)(model.num_components, model.num_dims, dtype=torch.float64)
    with torch.no_grad():
        for its, mine in zip(
            (wide.logits, wide.means, wide.raw_scale), _numbers(model), strict=True
        ):
            its.copy_(mine)
        return float(wide(x.double()))


# 1. Constant, zero-inflated and one-hot columns


def _hostile() -> dict[str, Tensor]:
    ramp = torch.arange(10, dtype=torch.float64)
    inflated, sparse = _normal(200, 2), _normal(60, 3)
    inflated[:120, 1] = 0
    sparse[torch.rand(60, 3, generator=_generator()) < 0.7] = 0
    onehot = torch.eye(4, dtype=torch.float64).repeat(10, 1)
    return {
        "constant": torch.stack([ramp, 0 * ramp, 0 * ramp], 1),
        "inflated": inflated,
        "sparse": sparse,
        "one-hot": onehot,
        "counts": (2 * _normal(80, 2)).exp().round().clamp_max(9),
        "twice": _normal(20, 2).repeat(3, 1),
        "far constant": torch.stack([ramp, 0 * ramp + 1e6], 1),
    }


HOSTILE = _hostile()


def _by_turns(one: int, other: int) -> torch.dtype:
    """Float32 and float64, so that each of either kind meets both."""
    return (torch.float32, torch.float64)[(one + other) % 2]


@quiet
@pytest.mark.parametrize("data", HOSTILE)
@pytest.mark.parametrize("family", FAMILIES)
def test_lbfgs_ends_where_em_does_on_hostile_columns(family: str, data: str) -> None:
    dtype = _by_turns(FAMILIES.index(family), list(HOSTILE).index(data))
    x = HOSTILE[data].to(dtype)
    by_em, by_search = _started(family, x), _started(family, x)
    em, search = gmmedu.fit_em(by_em, x, 60), gmmedu.fit_lbfgs(by_search, x, 60)
    assert search.nll <= float(search.history.min()) + 1e-9
    assert search.nll < em.nll + 1e-2
    for model, fit in ((by_em, em), (by_search, search)):
        within = 1e-6 if dtype == torch.float64 else 1e-2
        assert _nll(model, x) == pytest.approx(fit.nll, abs=within)
        assert all(bool(n.isfinite().all()) for n in _numbers(model))


@quiet
@pytest.mark.parametrize("mitigation", [gmmedu.Clamp(0.1), gmmedu.Reset(), gmmedu.Prior()])
@pytest.mark.parametrize("fitter", FEW)
@pytest.mark.parametrize("data", HOSTILE)
def test_no_fit_ends_worse_than_the_best_it_saw(data: str, fitter: str, mitigation: Any) -> None:
    x = HOSTILE[data]
    many = _started("full", x, 3, batch_shape=2, method="points")
    fit = FEW[fitter](many, x, mitigation=mitigation, generator=_generator())
    if not isinstance(mitigation, gmmedu.Prior):
        # The start may lie below the floor; it does not count then.
        best = fit.history[1:].min(0).values
        assert bool((fit.nll <= best + 1e-9).all())
    for m in range(2):
        assert _nll(many[m], x) == pytest.approx(float(fit.nll[m]), abs=1e-6)


# 3. Data of more digits than the model has


@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("fitter", FEW)
@pytest.mark.parametrize("family", ["full", "tied", "isotropic"])
def test_the_nll_is_that_of_the_parameters_as_they_are_kept(
    family: str, fitter: str, batch_shape: tuple[int, ...]
) -> None:
    x = 10 * _normal(100, 1) + 1.7e9
    x[50:] += 300
    model = _started(family, x, dtype=torch.float32, batch_shape=batch_shape)
    with pytest.warns(UserWarning, match="rounding to torch.float32 moves a mean"):
        fit = FEW[fitter](model, x)
    members = [model[m] for m in range(2)] if batch_shape else [model]
    reported = fit.nll.tolist() if batch_shape else [fit.nll]
    for one, nll in zip(members, reported, strict=True):
        assert _nll(one, x) == pytest.approx(nll, rel=1e-4)


@pytest.mark.parametrize("fitter", FEW)
def test_where_rounding_moves_nothing_nothing_is_said(fitter: str) -> None:
    x = 10 * _normal(100, 2) + 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = FEW[fitter](model := _started("full", x, dtype=torch.float32), x)
    assert _nll(model, x) == pytest.approx(fit.nll, abs=1e-5)


# 4. One component has a unique optimum


@quiet
@pytest.mark.parametrize("fitter", ["adam", "lbfgs"])
@pytest.mark.parametrize("data", ["collinear", "one-hot", "constant", "inflated"])
@pytest.mark.parametrize("family", ["full", "tied", "isotropic"])
def test_descent_finds_the_optimum_of_one_component(family: str, data: str, fitter: str) -> None:
    a = _normal(60, 1)
    x = torch.cat([a, 2 * a], 1) if data == "collinear" else HOSTILE[data]
    em = gmmedu.fit_em(_started(family, x, 1), x, 50)
    model = _started(family, x, 1)
    if fitter == "adam":
        fit = gmmedu.fit_model(model, x, 300, 0.01, 0.2)
    else:
        fit = gmmedu.fit_lbfgs(model, x, 500)
    assert fit.nll == pytest.approx(em.nll, abs=1e-3)


@pytest.mark.parametrize("fitter", ["em", "squarem", "adam", "lbfgs"])
@pytest.mark.parametrize("near", [1.0, 1e-1])
def test_one_component_by_its_closed_form(near: float, fitter: str) -> None:
    x = _normal(60, 3)
    x[:, 1] = 2 * x[:, 0] + near * x[:, 1]
    scatter = (x - x.mean(0)).mT @ (x - x.mean(0)) / len(x)
    exact = 0.5 * (3 * math.log(2 * math.pi) + float(scatter.logdet()) + 3)
    model = _started("full", x, 1)
    if fitter == "adam":
        fit = gmmedu.fit_model(model, x, 500, 0.01, 0.05)
    else:
        fit = FITTERS[fitter](model, x)
    assert fit.nll == pytest.approx(exact, abs=1e-3)


# 5. Weights


@pytest.mark.parametrize("fitter", FEW)
@pytest.mark.parametrize("family", FAMILIES)
def test_points_of_weight_zero_are_nowhere(family: str, fitter: str) -> None:
    dtype = _by_turns(FAMILIES.index(family), list(FEW).index(fitter))
    x = _normal(80, 2).to(dtype)
    wild = torch.finfo(dtype).max ** 0.9
    strange = torch.tensor([[wild, 0], [0, -wild], [1e20, 1e20]], dtype=dtype)
    both, weights = torch.cat([x, strange]), torch.ones(83, dtype=dtype)
    weights[80:] = 0
    alone, among, many = (_started(family, x, batch_shape=shape) for shape in ((), (), 2))
    fit, other = (
        FEW[fitter](alone, x),
        FEW[fitter](among, both, sample_weight=weights),
    )
    # Where no point weighs nothing there are no weights: sums of another kind, in float32.
    within = 1e-12 if dtype == torch.float64 else 1e-6
    assert other.nll == pytest.approx(fit.nll, rel=within)
    for mine, right in zip(_numbers(among), _numbers(alone), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e3 * within, atol=1e3 * within)
    # Each member of a batch has weights of its own, and another ordinary point less.
    own = weights.expand(2, -1).clone()
    own[1, 0] = 0
    batch = FEW[fitter](many, both, sample_weight=own)
    assert bool(batch.nll.isfinite().all()) and not batch.errors
    stream = FEW[fitter](
        _started(family, x), [(both[:41], weights[:41]), (both[41:], weights[41:])]
    )
    assert stream.nll == pytest.approx(fit.nll, rel=1e-5)


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e12, 1e30])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fitter", FEW)
def test_the_size_of_the_weights_plays_no_part(fitter: str, stream: bool, size: float) -> None:
    x = _normal(60, 2).float()
    weights = torch.rand(60, generator=_generator()) + 0.1
    one, two = _started("full", x), _started("full", x)
    fit = FEW[fitter](one, x, sample_weight=weights)
    scaled = (weights.double() * size).to(torch.float64)
    if stream:
        other = FEW[fitter](two, list(zip(x.split(25), scaled.split(25), strict=True)))
    else:
        other = FEW[fitter](two, x, sample_weight=scaled)
    assert other.nll == pytest.approx(fit.nll, rel=1e-5)
    torch.testing.assert_close(two.means, one.means, rtol=1e-3, atol=1e-3)


@quiet
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fitter", FEW)
def test_a_component_that_loses_its_points_keeps_a_weight(fitter: str, dtype: torch.dtype) -> None:
    x = _normal(40, 2).to(dtype)
    weights = torch.ones(40, dtype=dtype)
    weights[0] = 1e12
    model = _started("diagonal", x, 3, method="points")
    FEW[fitter](model, x, sample_weight=weights)
    assert bool((model.weights > 0).all())
    assert all(bool(n.isfinite().all()) for n in _numbers(model))


# 6. A model's own covariances


def _narrow() -> dict[str, Tensor]:
    copies = _normal(200, 1).repeat(1, 40) + 1e-5 * _normal(200, 40, seed=1)
    few = _normal(100, 1).repeat(1, 20) + 1e-3 * _normal(100, 20, seed=1)
    return {
        "forty copies": copies,
        "twenty copies": few,
        "more dimensions than points": _normal(60, 200),
        "fifteen": _normal(8, 15),
        "scales": _normal(50, 3) * torch.tensor([1e-6, 1.0, 1e6]),
    }


NARROW = _narrow()


@quiet
@pytest.mark.parametrize("data", NARROW)
@pytest.mark.parametrize("family", ["full", "tied", "diagonal"])
def test_float32_covariances_come_back_and_are_marginalized(family: str, data: str) -> None:
    x = NARROW[data].float()
    model = _started(family, x, 1)
    gmmedu.fit_em(model, x, 20)
    dims = list(range(x.shape[1]))
    density = model.log_prob(x[:5]).detach()
    # A log density is a sum over dimensions; so is its rounding.
    size = {"rtol": 1e-4, "atol": 1e-3 * len(dims) ** 0.5}
    torch.testing.assert_close(model.marginal(dims).log_prob(x[:5]).detach(), density, **size)
    reverse = model.marginal(dims[::-1])
    torch.testing.assert_close(reverse.log_prob(x[:5].flip(-1)).detach(), density, **size)
    again = gmmedu.MODELS[family](1, len(dims), dtype=torch.float32)
    again.set_parameters(covariances=model.covariances.detach(), means=model.means)
    assert bool(again.log_prob(x[:5]).isfinite().all())
    # What is given and what is left multiply to the whole.
    known = dims[: len(dims) // 2]
    given = {d: float(x[0, d]) for d in known}
    left = model.condition(given).log_prob(x[0, len(known) :])
    seen = model.marginal(known).log_prob(x[0, known])
    torch.testing.assert_close((left + seen).detach(), density[0], rtol=1e-3, atol=0.5)


# 7. The floor


def _apart(distance: float, num_dims: int, share: float = 0.5) -> Tensor:
    x = _normal(300, num_dims)
    x[int(300 * share) :] += distance
    return x


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("num_dims", [1, 2])
@pytest.mark.parametrize(
    ("distance", "dtype"),
    [(1e4, torch.float32), (1e4, torch.float64), (1e6, torch.float64)],
)
@pytest.mark.parametrize("family", FAMILIES[:-1])
def test_clusters_far_apart_get_their_width(
    family: str, distance: float, dtype: torch.dtype, num_dims: int, share: float
) -> None:
    x = _apart(distance, num_dims, share).to(dtype)
    model = _started(family, x)
    with warnings.catch_warnings():
        # In float32 the last digit of the NLL may go to and fro for ever.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = gmmedu.fit_em(model, x, 100)
    deviations = model.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    assert bool(((deviations - 1).abs() < 0.2).all())
    assert not fit.events
    assert fit.converged or abs(float(fit.history[-1] - fit.history[-2])) < 1e-6


@pytest.mark.parametrize("fitter", ["squarem", "lbfgs", "best", "stream"])
@pytest.mark.parametrize("distance", [1e4, 1e6])
def test_by_every_fitter(fitter: str, distance: float) -> None:
    x = _apart(distance, 2)
    model = _started("full", x)
    if fitter == "best":
        gmmedu.fit_best(model, x, 5, generator=_generator())
    elif fitter == "stream":
        gmmedu.fit_em(model, list(x.split(77)))
    else:
        FITTERS[fitter](model, x)
    deviations = model.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    assert bool(((deviations - 1).abs() < 0.2).all())


def _spike(dtype: torch.dtype) -> Tensor:
    """A cloud, and thirty points in one place."""
    return torch.cat([_normal(60, 2), torch.full((30, 2), 6.0)]).to(dtype)


@pytest.mark.filterwarnings("ignore::gmmedu.ConvergenceWarning")
@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", ["full", "diagonal", "isotropic"])
def test_a_fit_that_ends_on_the_floor_says_so(
    family: str, fitter: str, batch_shape: tuple[int, ...]
) -> None:
    x = _spike(torch.float64)
    # Wide enough for a few steps of descent to come down to it.
    clamp = gmmedu.Clamp(0.2)
    model = _started(family, x, batch_shape=batch_shape)
    with pytest.warns(SingularityWarning) as caught:
        FITTERS[fitter](model, x, mitigation=clamp)
    (text,) = {str(w.message) for w in caught if w.category is SingularityWarning}
    assert "min_scale=0.2" in text and "Prior()" in text
    if batch_shape:
        assert "2 of 2 fits end with a component on the floor" in text
    else:
        spike = int(model.predict(x[-1]))
        assert f"component {spike} ends on the floor" in text


@pytest.mark.filterwarnings("ignore::gmmedu.ConvergenceWarning")
@pytest.mark.parametrize("fitter", ["em", "squarem"])
@pytest.mark.parametrize("family", ["full", "tied", "diagonal"])
def test_a_floor_that_float32_cannot_have_is_named(family: str, fitter: str) -> None:
    x = torch.cat([_normal(60, 1), torch.full((60, 1), 3.0).double()], 1).float()
    with pytest.warns(SingularityWarning, match=r"torch\.float32, which resolves"):
        FITTERS[fitter](_started(family, x), x, mitigation=gmmedu.Clamp(1e-6))


# 8. Autocast, as it was reported; more in test_transforms


def test_autocast_on_old_faithful() -> None:
    x = gmmedu.load_old_faithful(dtype=torch.float32)
    model = _started("full", x)
    gmmedu.fit_em(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        nll = model(x)
        fit = gmmedu.fit_em(_started("full", x), x)
    assert nll.dtype == torch.float32
    assert fit.nll == pytest.approx(4.1554, abs=1e-4)
    assert float(nll.detach()) == pytest.approx(4.1554, abs=1e-4)


# 9. Far points


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("family", FAMILIES)
def test_far_points_belong_to_the_nearest_component(
    family: str, batch_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    # Squares leave the range of the dtype from the half of its exponents on.
    unit = torch.finfo(dtype).max ** 0.6
    means = unit * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=dtype)
    model = gmmedu.MODELS[family](
        3,
        2,
        init_means=means.expand(*batch_shape, 3, 2),
        batch_shape=batch_shape,
        dtype=dtype,
    )
    places = [[0.4, 0], [0.6, 0], [30, 1], [0, 0.6], [1, 30], [-40, -40], [1e-12, 0]]
    x = unit * torch.tensor(places, dtype=dtype)
    nearest = torch.tensor([0, 1, 1, 2, 2, 0, 0]).expand(*batch_shape, 7)
    density, shares = model.log_prob(x), model.responsibilities(x)
    assert bool(density.isfinite().all()) and bool((shares >= 0).all())
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(density))
    assert torch.equal(model.predict(x), nearest)
    for gradient in torch.autograd.grad(density.sum(), list(model.parameters())):
        assert bool(gradient.isfinite().all())
    own = model.to_distribution().log_prob(x[:, None] if batch_shape else x)
    assert bool(own.isfinite().all())


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_far_points_of_an_ordinary_model(family: str, missing: bool) -> None:
    x = _normal(50, 2).float()
    model = _started(family, x)
    gmmedu.fit_em(model, x, 3, 0.0)
    far = torch.tensor([[1e20, 1e20], [-1e30, 0.0], [3e38, -3e38], [0.0, 1e19]])
    if missing:
        far[0, 1] = torch.nan
    shares = model.responsibilities(far, missing=missing)
    torch.testing.assert_close(shares.sum(-1), torch.ones(4))
    assert bool(model.log_prob(far, missing=missing).isfinite().all())
    if not missing:
        at = far.clone().requires_grad_()
        model.log_prob(at).sum().backward()
        assert at.grad is not None and bool(at.grad.isfinite().all())


# 12. Hints that help


class Frame:
    """What a table of pandas has of use here."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def to_numpy(self) -> Any:
        return self.values


def _hint(message: str) -> str:
    """The code that a message says to write."""
    found = re.search(r"convert it with (.+)$|go(?:es)? in as (.+)$|write (.+)$", message)
    assert found, message
    return next(group for group in found.groups() if group)


ENTRANCES: dict[str, Callable[[GaussianMixture, Any], Any]] = {
    "log_prob": lambda model, x: model.log_prob(x),
    "forward": lambda model, x: model(x),
    "predict": lambda model, x: model.predict(x),
    "bic": lambda model, x: model.bic(x),
    "initialize": gmmedu.initialize,
    "fit_em": lambda model, x: gmmedu.fit_em(model, x, 2, 0.0),
    "fit_model": lambda model, x: gmmedu.fit_model(model, x, 2),
    "fit_lbfgs": lambda model, x: gmmedu.fit_lbfgs(model, x, 2, 0.0),
    "fit_best": lambda model, x: gmmedu.fit_best(model, x, 2, num_iterations=2, tolerance=0.0),
    "find_singular": gmmedu.find_singular,
    "impute": gmmedu.impute,
}
WRONG = {
    "frame": lambda: Frame(_normal(9, 2)),
    "array": lambda: _normal(9, 2).numpy(),
    "list": lambda: _normal(9, 2).tolist(),
    "integers": lambda: (3 * _normal(9, 2)).long(),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_hint_followed_to_the_letter_works(entrance: str, kind: str) -> None:
    x, model = WRONG[kind](), gmmedu.GmmDiagonal(1, 2, dtype=torch.float64)
    with pytest.raises(TypeError) as caught:
        ENTRANCES[entrance](model, x)
    mended = eval(_hint(str(caught.value)), {"torch": torch, "x": x})
    ENTRANCES[entrance](model, mended)


@quiet
@pytest.mark.parametrize("num_dims", [1, 2, 9])
@pytest.mark.parametrize(
    "entrance", ["initialize", "fit_em", "fit_model", "fit_lbfgs", "find_singular"]
)
def test_a_flat_tensor_is_told_its_shape(entrance: str, num_dims: int) -> None:
    model = gmmedu.GmmDiagonal(1, num_dims, dtype=torch.float64)
    x = _normal(num_dims if num_dims > 1 else 9)
    with pytest.raises(ValueError) as caught:
        ENTRANCES[entrance](model, x)
    mended = eval(_hint(str(caught.value)), {"x": x})
    assert mended.shape == ((9, 1) if num_dims == 1 else (1, num_dims))
    ENTRANCES[entrance](model, mended)


def test_a_flat_tensor_for_a_density_in_one_dimension() -> None:
    model, x = gmmedu.GmmFull(2, 1, dtype=torch.float64), _normal(9)
    with pytest.raises(ValueError) as caught:
        model.log_prob(x)
    assert model.log_prob(eval(_hint(str(caught.value)), {"x": x})).shape == (9,)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_infinity_is_not_told_to_be_missing(entrance: str) -> None:
    model = gmmedu.GmmFull(1, 2, dtype=torch.float64)
    with pytest.raises(ValueError) as caught:
        ENTRANCES[entrance](model, torch.full((4, 2), math.inf).double())
    text = str(caught.value)
    assert (
        "inf" in text
        and "replace what stands for a missing value by NaN" in text
        or ("must not hold infinity; NaN marks a value that is missing" in text)
    )


def test_numbers_of_numpy_and_of_torch() -> None:
    x = _normal(40, 2)
    # What mypy knows to be no int or float is what is tried here.
    np: Any = numpy
    for k in np.arange(1, 3):
        model = gmmedu.GmmFull(k, np.int32(2), np.float32(0.5), dtype=torch.float64)
        fit = gmmedu.fit_em(model, x, np.int64(3), np.float64(0.0))
        assert type(model.num_components) is int and fit.num_iterations == 3
        assert model.sample(np.int16(4)).shape == (4, 2)
        assert model.marginal(np.array([1])).num_dims == 1
        known = model.condition({0: 0.5})
        value: Any
        for value in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5)):
            for place in (0, np.int64(0)):
                other = model.condition({place: value})
                torch.testing.assert_close(other.means, known.means)
    rate: Any = torch.tensor(0.01)
    gmmedu.fit_model(model, x, np.int64(2), np.float32(0.01), rate)
    gmmedu.fit_best(model, x, np.int64(2), num_iterations=np.int64(2), tolerance=0.0)
    gmmedu.GmmConstant(2, 2, variance=np.float32(2))
    gmmedu.Clamp(np.float32(1e-3)), gmmedu.Reset(max_resets=np.int64(2))
    assert gmmedu.GmmFull(2, 2, batch_shape=np.int64(3)).batch_shape == (3,)
    bad: Any
    for bad in (True, 2.0, "2", torch.tensor([2])):
        with pytest.raises(TypeError, match="num_components must be an integer"):
            gmmedu.GmmFull(bad, 2)


# 13. The last good parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("fitter", FEW)
@pytest.mark.parametrize("family", ["full", "isotropic", "constant"])
def test_a_callback_that_raises_at_the_start_leaves_every_bit(
    family: str, fitter: str, batch_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = (7.3 * _normal(40, 2) + 1234.5).to(dtype)
    model = _started(family, x, batch_shape=batch_shape)
    kept, seen = _numbers(model), []

    def callback(model: GaussianMixture, *_: Any) -> bool:
        seen.append(_numbers(model))
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        FEW[fitter](model, x, callback=callback)
    assert all(map(torch.equal, _numbers(model), kept))
    assert all(map(torch.equal, seen[0], kept))
    # So does one that stops there.
    fit = FEW[fitter](model, x, callback=lambda *_: True)
    assert all(map(torch.equal, _numbers(model), kept))
    assert torch.as_tensor(fit.num_iterations).eq(0).all()


@pytest.mark.parametrize("fitter", FEW)
@pytest.mark.parametrize("last", [1, 3])
def test_a_callback_that_raises_later_leaves_the_best_so_far(fitter: str, last: int) -> None:
    x = 7.3 * _normal(40, 2)
    model, nlls = _started("full", x, method="points"), []

    def callback(model: GaussianMixture, iteration: int, nll: float) -> None:
        nlls.append(nll)
        assert _nll(model, x) == pytest.approx(nll, abs=1e-10)
        if iteration == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FEW[fitter](model, x, callback=callback)
    assert len(nlls) == last + 1
    assert _nll(model, x) == pytest.approx(min(nlls), abs=1e-10)


@pytest.mark.parametrize("fitter", FEW)
def test_nothing_is_said_of_an_ordinary_fit(fitter: str) -> None:
    x = gmmedu.load_old_faithful()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FEW[fitter](_started("full", x), x)
    assert issubclass(ConvergenceWarning, UserWarning)


# 14. What a second reading found


@quiet
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fitter", FEW)
@pytest.mark.parametrize("family", FAMILIES)
def test_of_own_points_some_lack_values_and_some_do_not(
    family: str, fitter: str, weighted: bool
) -> None:
    """A batch gives what its members give alone; a row of weight 0 lacks nothing either."""
    x = _normal(3, 40, 2)
    x[0, 3, 1] = x[2, 7, 0] = torch.nan
    weights = torch.ones(3, 40, dtype=torch.float64)
    if weighted:
        weights[2, 7] = 0
    options: Any = {"missing": True}
    many = gmmedu.MODELS[family](2, 2, batch_shape=3, dtype=torch.float64)
    gmmedu.initialize(many, x, "points", missing=True, generator=_generator())
    alone = [many[m] for m in range(3)]
    fit = FEW[fitter](many, x, sample_weight=weights, **options)
    for m, one in enumerate(alone):
        nll = FEW[fitter](one, x[m], sample_weight=weights[m], **options).nll
        assert float(fit.nll[m]) == pytest.approx(nll, abs=1e-10)
        for number, other in zip(_numbers(many[m]), _numbers(one), strict=True):
            torch.testing.assert_close(number, other, rtol=1e-8, atol=1e-8)


def test_a_fold_may_lack_what_all_points_have() -> None:
    x = gmmedu.load_old_faithful()
    x[0, 0] = torch.nan
    found = gmmedu.select(x, 2, "full", "held_out", missing=True, generator=_generator())
    assert found.best_row.regular
    assert math.isfinite(found.best_row.held_out)


@pytest.mark.parametrize("family", ["full", "diagonal"])
def test_a_reckless_rate_on_points_with_gaps_ends_as_without(family: str) -> None:
    x = gmmedu.load_old_faithful()
    x[::5, 1] = x[1::5, 0] = torch.nan
    model = gmmedu.MODELS[family](2, 2, dtype=torch.float64)
    gmmedu.initialize(model, x, missing=True, generator=_generator())
    with pytest.raises(gmmedu.SingularityError, match="no longer finite"):
        gmmedu.fit_model(model, x, 25, 1e3, 1e3, missing=True)
    assert all(number.isfinite().all() for number in _numbers(model))


@pytest.mark.parametrize("fitter", FEW)
def test_scales_held_below_the_floor_do_not_hide_the_best(fitter: str) -> None:
    x = _normal(200, 2)
    model = _started("diagonal", x)
    model.set_parameters(covariances=1e-8 * torch.eye(2).double().expand(2, 2, 2))
    model.raw_scale.requires_grad_(False)
    reckless = {"adam": lambda: gmmedu.fit_model(model, x, 1, 0.0, 1.0)}
    fit = reckless.get(fitter, lambda: FEW[fitter](model, x))()
    assert fit.nll == fit.history.min()
    if fitter == "adam":
        assert fit.history.min() < fit.history[-1]


@pytest.mark.parametrize("sign", [1, -1])
def test_what_leaves_the_range_of_the_model_is_refused(sign: int) -> None:
    x = torch.tensor([[sign * 1e300]], dtype=torch.float64)
    model = gmmedu.GmmFull(1, 1, dtype=torch.float32)
    for entrance in (model.log_prob, lambda x: model.set_parameters(means=x)):
        with pytest.raises(ValueError, match="range|finite"):
            entrance(x)
    with pytest.raises(ValueError, match="range|finite"):
        gmmedu.GmmFull(1, 1, dtype=torch.float32, init_means=x)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_index_chooses_among_the_batch_and_goes_no_further(family: str) -> None:
    many = gmmedu.MODELS[family](3, 2, batch_shape=(5, 3), generator=_generator())
    place: Any
    for place in (4, (1, 2), (slice(1, 3), 0), torch.tensor([[0, 4], [2, 2]])):
        assert torch.equal(many[place].means, many.means[place])
        assert torch.equal(many[place].covariances, many.covariances[place])
    assert torch.equal(many[..., -1].means, many.means[:, -1])
    for place in ((0, 1, 2), (slice(None), 0, 0), 5):
        with pytest.raises(IndexError):
            many[place]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_correlation_between_unequal_units_is_not_lost(unit: float) -> None:
    size = torch.tensor([unit * 1e-5, unit * 10], dtype=torch.float64)
    covariance = torch.tensor([[1, 0.5], [0.5, 1]]).double() * size[:, None] * size
    given = gmmedu.MixtureDistribution.of(
        torch.ones(1).double(), torch.zeros(1, 2).double(), covariance[None]
    )
    torch.testing.assert_close(
        gmmedu.GmmFull.from_distribution(given).covariances[0], covariance, rtol=1e-12, atol=0
    )
    for family in (gmmedu.GmmDiagonal, gmmedu.GmmIsotropic):
        with pytest.raises(ValueError, match="cannot hold these covariances"):
            family.from_distribution(given)


def test_a_part_whose_starts_all_fail_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts go in parts where memory asks for it: the same answer as all at once."""
    x = _normal(45, 2)
    x[:15] = 0.3 * x[:15] + 3
    x[:9] = 7.0
    found = []
    for numbers in (gmmedu.starts._BATCH_NUMBERS, 1):
        monkeypatch.setattr(gmmedu.starts, "_BATCH_NUMBERS", numbers)
        model = gmmedu.GmmFull(3, 2, dtype=torch.float64)
        found.append(
            gmmedu.fit_best(model, x, 12, method="points", mitigation=None, generator=_generator(4))
        )
    starts = [fit.starts for fit in found]
    assert starts[0] is not None
    assert 0 < starts[0].isinf().sum() < 12
    torch.testing.assert_close(*starts)
    assert found[0].nll == pytest.approx(found[1].nll)
    x[:] = 7.0
    with pytest.raises(gmmedu.SingularityError):
        gmmedu.fit_best(gmmedu.GmmFull(3, 2, dtype=torch.float64), x, 3, mitigation=None)


@pytest.mark.parametrize("fitter", FEW)
def test_batches_with_a_gradient_are_data_too(fitter: str) -> None:
    x = _normal(60, 2).requires_grad_()
    one, other = _started("full", x.detach()), _started("full", x.detach())
    fit = FEW[fitter](one, list(x.split(25)))
    assert fit.nll == pytest.approx(FEW[fitter](other, x).nll, abs=1e-10)
    assert not fit.history.requires_grad


def test_points_are_drawn_in_inference_mode() -> None:
    mixture = gmmedu.GmmFull(2, 2, generator=_generator()).to_distribution()
    with torch.inference_mode():
        drawn = mixture.rsample((3,), generator=_generator())
    assert torch.equal(drawn, mixture.sample((3,), generator=_generator()))


@pytest.mark.parametrize(
    ("batch_shape", "lead"),
    [
        *(((), lead) for lead in [(), (3,), (4, 3)]),
        *(((3,), lead) for lead in [(), (1,), (3,), (4, 3), (4, 2, 3)]),
        *(((1,), lead) for lead in [(), (3,), (4, 3)]),
        *(((2, 1), lead) for lead in [(), (3,), (2, 3), (4, 2, 3)]),
    ],
)
def test_gaps_in_points_of_any_leading_dimensions(
    batch_shape: tuple[int, ...], lead: tuple[int, ...]
) -> None:
    """What lacks nothing has the same density with ``missing`` and without."""
    model = gmmedu.GmmFull(2, 2, batch_shape=batch_shape, dtype=torch.float64)
    x = _normal(*lead, 7, 2)
    for what in (model.log_prob, model.responsibilities):
        torch.testing.assert_close(what(x, missing=True), what(x))
    gap = x.clone()
    gap[..., 2, 1] = torch.nan
    marginal = model.marginal([0])
    torch.testing.assert_close(
        model.log_prob(gap, missing=True)[..., 2], marginal.log_prob(x[..., :1])[..., 2]
    )


@pytest.mark.parametrize("method", ["kmeans", "kmeans++", "box", "points"])
def test_a_start_is_not_at_a_point_that_weighs_nothing(method: str) -> None:
    x = torch.cat([_normal(100, 2), _normal(100, 2, seed=1) + 6])
    padded = torch.cat([x, torch.full((1, 2), 1e4).double()])
    weights = torch.ones(201, dtype=torch.float64)
    weights[-1] = 0
    nlls = []
    for points, options in ((x, {}), (padded, {"sample_weight": weights})):
        model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
        given: Any = {"method": method, "generator": _generator(), **options}
        nlls.append(gmmedu.fit_best(model, points, 5, **given).nll)
    assert nlls[0] == pytest.approx(nlls[1], abs=1e-9)


def test_the_best_of_many_is_the_best_by_what_was_maximized() -> None:
    """With a prior that is the posterior: the log prior of an inverse-Wishart, written out."""
    x, k = gmmedu.load_galaxies(), 6
    prior = gmmedu.Prior()
    many = gmmedu.GmmFull(k, 1, batch_shape=100, dtype=x.dtype)
    gmmedu.initialize(many, x, "points", generator=_generator())
    options: Any = {"num_iterations": 3_000, "tolerance": 1e-10, "mitigation": prior}
    fit = gmmedu.fit_em(many, x, accelerate="squarem", **options)
    variances = many.covariances.detach().flatten(1) / x.var(correction=0)
    degrees, scatter = 3, k**-2.0
    log_prior = -((degrees + 2) * variances.log() / 2 + scatter / variances / 2).sum(1)
    gap = fit.objective - (fit.nll - log_prior / len(x))
    torch.testing.assert_close(gap, gap[:1].expand(100), rtol=0, atol=1e-8)
    assert fit.objective.argmin() != fit.nll.argmin()
    one = gmmedu.GmmFull(k, 1, dtype=x.dtype)
    best = gmmedu.fit_best(
        one, x, 100, method="points", generator=_generator(), accelerate="squarem", **options
    )
    assert best.objective == pytest.approx(float(fit.objective.min()), abs=1e-8)


def _told(backend: str, word: str) -> None:
    getattr(torch.backends, backend).matmul.fp32_precision = word


#: The ways in which a process lets torch round products of float32.
ROUNDING: dict[str, Callable[[], Any]] = {
    "word": lambda: torch.set_float32_matmul_precision("medium"),
    "flag": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}
if Rounding.now().backends:
    # One backend for itself, of which torch's one word can no longer be read.
    ROUNDING |= {"cuda": lambda: _told("cuda", "tf32"), "cpu": lambda: _told("mkldnn", "bf16")}


@pytest.mark.parametrize("way", ROUNDING)
@pytest.mark.parametrize("fitter", FEW)
def test_products_are_not_rounded_by_what_the_process_allows(fitter: str, way: str) -> None:
    """TF32 and bfloat16, which training asks for, are off inside, and on for a callback."""
    x, seen = _normal(60, 2).float(), []

    class Watching(gmmedu.Absolute):
        def met(self, objective: Any, earlier: Any) -> Any:
            seen.append(Rounding.now())
            return super().met(objective, earlier)

    fit: Any = {
        "em": gmmedu.fit_em,
        "squarem": lambda *a, **o: gmmedu.fit_em(*a, accelerate="squarem", **o),
        "adam": gmmedu.fit_model,
        "lbfgs": gmmedu.fit_lbfgs,
    }[fitter]
    before, heard = Rounding.now(), []
    try:
        ROUNDING[way]()
        allowed = Rounding.now()
        model = _started("full", x)
        fit(
            model,
            x,
            3,
            tolerance=Watching(0.0),
            callback=lambda *_: heard.append(Rounding.now()),
        )
        after = Rounding.now()
    finally:
        before.set()
    assert before == Rounding.now() and allowed not in (before, before.none())
    # Where no backend rounds, torch has one word again.
    assert set(seen) == {allowed.none()._replace(word="highest")}
    assert set(heard) == {allowed} == {after}


# 15. What a reading of the engine found


@dataclass(frozen=True)
class Pull(gmmedu.Clamp):
    """A mitigation of one's own: what fell moves to the first point, with the data's spread."""

    def mitigate(
        self, state: Any, singular: Tensor, points: Any, family: Any, generator: Any, previous: int
    ) -> tuple[Any, str]:
        if previous > 2:
            return state, "clamped"
        means = state.means.clone()
        means[0, singular] = points.draw(torch.zeros(1, dtype=torch.float64))
        return state._replace(means=means), "pulled"


@quiet
@pytest.mark.parametrize("fitter", FEW)
def test_a_mitigation_of_one_s_own_is_asked(fitter: str) -> None:
    x = torch.cat([_normal(20, 2), torch.full((10, 2), 5.0, dtype=torch.float64)])
    model = _started("full", x, k=2)
    model.set_parameters(means=torch.tensor([[0.0, 0.0], [5.0, 5.0]]))
    fit = FEW[fitter](model, x, mitigation=Pull(0.2))
    actions = [event.action for event in fit.events]
    assert "pulled" in actions and actions.count("pulled") <= 3


def test_a_member_of_a_batch_is_taken_without_a_draw() -> None:
    many = gmmedu.GmmFull(2, 2, batch_shape=3)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    many[1], many[1:], many.marginal([0])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("criterion", ["aic", "bic", "icl"])
def test_the_criteria_of_one_point(criterion: str, missing: bool) -> None:
    model = gmmedu.GmmFull(2, 3, batch_shape=2, dtype=torch.float64)
    x = _normal(1, 3)
    for one in (model, model[0]):
        of_point = getattr(one, criterion)(x[0], missing=missing)
        of_points = getattr(one, criterion)(x, missing=missing)
        torch.testing.assert_close(torch.as_tensor(of_point), torch.as_tensor(of_points))


@pytest.mark.parametrize("criterion", ["aic", "bic", "icl"])
def test_weights_of_a_criterion_that_are_no_tensor_are_named(criterion: str) -> None:
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    with pytest.raises(TypeError, match="sample_weight must be"):
        getattr(model, criterion)(_normal(3, 2), sample_weight=[1.0, 2.0, 3.0])


def test_dimensions_may_come_from_anything_that_gives_them() -> None:
    model = gmmedu.GmmFull(2, 3, dtype=torch.float64)
    dims: Any = (d for d in (2, 0))
    assert torch.equal(model.marginal(dims).means, model.means[:, [2, 0]])


def test_points_are_drawn_by_weights_beyond_what_float32_counts() -> None:
    """The first process has a weight of 2^24 + 1, the second of 1."""
    first = Points.of(_normal(1, 2), torch.tensor([2.0**24 + 1], dtype=torch.float64))

    class Two(Alone):
        size = 2

        def gather(self, value: Any) -> list[Any]:
            return [value, 1.0 if isinstance(value, float) else (value[0][:0], None)]

    last_of_first = torch.tensor([(2.0**24 + 0.5) / (2.0**24 + 2)], dtype=torch.float64)
    drawn = Shared(first, Two()).draw(last_of_first)
    assert torch.equal(drawn, first.columns[:, :-1, 0])


# 16. What a reading of the layers above it found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_density_of_many_samples_is_the_model_s_bit_for_bit(family: str) -> None:
    """Sample dimensions are points: they go in the same blocks, and copy no factor."""
    x = _normal(7_000, 16)
    model = _started(family, x[:50], k=3)
    mixture = model.to_distribution()
    assert torch.equal(mixture.log_prob(x), model.log_prob(x))
    assert torch.equal(mixture.responsibilities(x), model.responsibilities(x))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("sample_shape", [(), (0,), (5,), (4, 5)])
def test_samples_of_any_shape_are_those_of_torch_s_mixture(
    family: str, batch_shape: tuple[int, ...], sample_shape: tuple[int, ...]
) -> None:
    model = gmmedu.MODELS[family](2, 3, batch_shape=batch_shape, dtype=torch.float64)
    mixture = model.to_distribution()
    x = mixture.rsample(sample_shape, generator=_generator())
    assert x.shape == (*sample_shape, *batch_shape, 3)
    log_prob, r = mixture.log_prob(x), mixture.responsibilities(x)
    assert log_prob.shape == (*sample_shape, *batch_shape)
    assert r.shape == (*sample_shape, *batch_shape, 2)
    torch.testing.assert_close(r.sum(-1), torch.ones_like(log_prob))
    if x.numel():
        # Of no points torch's own knows no density.
        torch.testing.assert_close(log_prob, mixture.to_torch().log_prob(x))
    # One point for all of a batch.
    torch.testing.assert_close(
        mixture.log_prob(torch.ones(3).double()),
        mixture.to_torch().log_prob(torch.ones(3).double()),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_takes_no_features_at_all(family: str) -> None:
    """As the last batch of a filtered data set may be."""
    mixture = gmmedu.MixtureDensityHead(4, 3, 1, family)(torch.zeros(0, 4))
    assert mixture.log_prob(torch.zeros(0, 1)).shape == (0,)
    assert mixture.responsibilities(torch.zeros(0, 1)).shape == (0, 3)
    assert mixture.cdf(torch.zeros(0, 1)).shape == (0,)
    for found in (mixture.mode, mixture.mean, mixture.rsample(), mixture.icdf(torch.zeros(0))):
        assert found.shape == (0, 1)
    assert gmmedu.crps(mixture, torch.zeros(0, 1)).shape == (0,)


@pytest.mark.parametrize("num_components", [1, 2, 5])
def test_targets_without_their_last_dimension_have_no_score(num_components: int) -> None:
    mixture = gmmedu.MixtureDensityHead(4, num_components, 1)(torch.zeros(5, 4))
    unchecked = gmmedu.MixtureDistribution(mixture.state, mixture.family, validate_args=False)
    for one in (mixture, unchecked):
        with pytest.raises(ValueError, match="event"):
            gmmedu.crps(one, torch.zeros(5))
    with pytest.raises(ValueError, match="support"):
        gmmedu.crps(mixture, torch.full((5, 1), torch.nan))


class Products(TorchFunctionMode):
    """What the process lets torch round, and whether autocast is on, at each product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[bool, bool]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__):
            self.seen.add((Rounding.now().any, torch.is_autocast_enabled("cpu")))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("way", ROUNDING)
@pytest.mark.parametrize("what", ["kmeans", "kmeans++", "layer", "iterated"])
def test_a_start_and_a_layer_are_not_rounded_either(
    what: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd's own products, of the last step's way back, are as rounded as those of any."""
    x = _normal(60, 2)
    model = _started("full", x)
    if what == "iterated":
        # As where a mixture has many numbers.
        monkeypatch.setattr("gmmedu.layer.LARGEST_DIRECT", 0)
    layer = gmmedu.EMLayer(gmmedu.GmmFull(2, 2, dtype=torch.float64), prior_points=20.0)
    before, products = Rounding.now(), Products()
    try:
        ROUNDING[way]()
        allowed = Rounding.now()
        with torch.autocast("cpu"), products:
            if what.startswith("kmeans"):
                gmmedu.initialize(model, x, what, generator=_generator())
            else:
                points = x.requires_grad_()
                layer(points).component_means.square().sum().backward()
        assert Rounding.now() == allowed
    finally:
        before.set()
    assert products.seen == {(False, False)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_points_are_selected_among_in_float32(dtype: torch.dtype) -> None:
    x = _normal(80, 2).to(dtype)
    assert gmmedu.select(x, 1, "full", num_starts=1).best.means.dtype == torch.float32
    test = gmmedu.bootstrap_lrt(x, "diagonal", 1, 3, num_starts=1, generator=_generator())
    assert test.null.means.dtype == torch.float32


@pytest.mark.parametrize(
    ("grid", "name"),
    [
        ((2.0, "full"), "num_components"),
        ((None, "full"), "num_components"),
        ((2, None), "families"),
    ],
)
def test_what_is_no_grid_is_named(grid: tuple[Any, Any], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        gmmedu.select(_normal(20, 2), *grid)


def test_numpy_s_numbers_are_numbers_of_components() -> None:
    x = _normal(30, 1)
    several: tuple[Any, ...] = (np.int64(2), np.array([2]))
    for counts in several:
        rows = gmmedu.select(x, counts, "full", num_starts=1, generator=_generator()).table
        assert [row.num_components for row in rows] == [2]


@pytest.mark.parametrize("num_components", [1, 2, 3])
@pytest.mark.parametrize("num_dims", [1, 2])
def test_a_plot_refuses_a_batch_of_mixtures(num_components: int, num_dims: int) -> None:
    many = gmmedu.GmmFull(num_components, num_dims, batch_shape=2)
    draws = (plot.density_1d,) if num_dims == 1 else (plot.ellipses, plot.contours)
    for draw in draws:
        with pytest.raises(ValueError, match=r"a batch of them, \(2,\)"):
            draw(many)
    plt.close("all")


@pytest.mark.parametrize("every", [1, 7, 50, 10_000])
def test_the_snapshots_of_the_best_of_many_end_where_it_ends(every: int) -> None:
    x, model = gmmedu.load_old_faithful(), gmmedu.GmmFull(2, 2, dtype=torch.float64)
    options: Any = {"num_iterations": 400, "snapshot_every": every, "generator": _generator()}
    fit = gmmedu.fit_best(model, x, 20, **options)
    assert fit.starts is not None and len(fit.starts) == 20 and fit.num_iterations < 400
    iterations = [snapshot.iteration for snapshot in fit.snapshots]
    last = fit.num_iterations
    assert iterations == [*range(0, last, every), last]
    end = fit.snapshots[-1]
    assert end.nll == pytest.approx(fit.nll, abs=1e-9)
    torch.testing.assert_close(end.means, model.means.detach(), rtol=0, atol=1e-9)


def test_a_fixed_point_names_what_is_no_start_and_no_family() -> None:
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    with pytest.raises(TypeError, match="start must be a State"):
        gmmedu.em_fixed_point(model, _normal(9, 2), model.family)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="family must be a Family"):
        gmmedu.em_fixed_point(model.state(), _normal(9, 2), "full")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_radius_beyond_what_the_dtype_squares_is_named(dtype: torch.dtype) -> None:
    largest = math.sqrt(torch.finfo(dtype).max)
    with pytest.raises(ValueError, match="radius must be at most"):
        gmmedu.sample_mixture(5, 2, 2, radius=1.01 * largest, dtype=dtype)
    drawn = gmmedu.sample_mixture(5, 2, 2, radius=0.99 * largest, dtype=dtype)
    assert bool(drawn.x.isfinite().all())


@quiet
@pytest.mark.parametrize("fitter", FITTERS)
def test_what_is_told_of_a_fit_that_fails_is_of_the_state_before(fitter: str) -> None:
    """In a batch, where the others go on."""
    x = torch.cat([_normal(20, 2), torch.full((3, 2), 9.0, dtype=torch.float64)])
    many = gmmedu.GmmFull(2, 2, batch_shape=2, dtype=torch.float64)
    means = torch.tensor([[[-0.5, 0.0], [0.5, 0.0]], [[0.0, 0.0], [9.0, 9.0]]])
    covariances = torch.eye(2).repeat(2, 2, 1, 1)
    covariances[1, 1] *= 1e-2
    many.set_parameters(means=means, covariances=covariances)
    # Long enough for one of them to fail, and not for the other.
    long: dict[str, Fit] = {
        "adam": lambda: gmmedu.fit_model(many, x, 300, 0.1, 0.1, mitigation=None),
        "lbfgs": lambda: FITTERS["lbfgs"](many, x, mitigation=None),
    }
    fit = long.get(fitter, lambda: FEW[fitter](many, x, mitigation=None))()
    assert len(fit.errors) == 1 and fit.errors[0].member == 1
    told = fit.history[: int(fit.num_iterations[1]) + 1, 1]
    assert bool(told.isfinite().all())
    assert float(told[-1]) == pytest.approx(float(told[-2]), abs=1e-9)
    assert _nll(many[1], x) == pytest.approx(float(told.min()), abs=1e-9)


@pytest.mark.parametrize("batch_shape", [(), (2,)])
def test_one_point_is_drawn_for_an_empty_shape(batch_shape: tuple[int, ...]) -> None:
    model = gmmedu.GmmFull(3, 2, batch_shape=batch_shape)
    x, labels = model.sample_with_labels((), generator=_generator())
    assert x.shape == (*batch_shape, 2) and labels.shape == batch_shape
    assert model.sample((0, 3)).shape == (0, 3, *batch_shape, 2)


def test_a_component_of_no_weight_is_none() -> None:
    means = torch.tensor([[0.0], [5.0]])
    mixture = MixtureDistribution.of(torch.tensor([1.0, 0.0]), means, torch.ones(2, 1, 1))
    x = torch.linspace(-2, 7, 5)[:, None]
    torch.testing.assert_close(mixture.log_prob(x), Normal(0.0, 1.0).log_prob(x[:, 0]))


# Streams, distributions, layers and doors, as a reading of them found


class Emptied(torch.utils.data.IterableDataset[Tensor]):
    """Gives its batches to the first who asks, and nothing to the next."""

    def __init__(self, x: Tensor) -> None:
        self.left = iter(x.split(50))

    def __iter__(self) -> Iterator[Tensor]:
        return self.left


@pytest.mark.parametrize("size", [200, 12_000])
def test_a_stream_that_is_empty_when_it_is_read_again_is_refused(size: int) -> None:
    x = _normal(size, 2)
    model = _started("full", x)
    kept = [p.detach().clone() for p in model.parameters()]
    loader = torch.utils.data.DataLoader(Emptied(x), batch_size=None)
    with pytest.raises(ValueError, match=f"gave 0 after {size}; use a list of batches"):
        gmmedu.fit_em(model, loader)
    assert all(map(torch.equal, model.parameters(), kept))


def test_a_quantile_out_of_reach_leaves_the_gradient_of_the_others() -> None:
    model = gmmedu.GmmFull(1, 1, dtype=torch.float64)
    model.set_parameters(means=torch.tensor([[100.0]], dtype=torch.float64))
    shares = torch.tensor([0.5, 1.0, 0.0, 2.0], dtype=torch.float64)
    model.to_distribution().icdf(shares)[0].sum().backward()
    gradients = [number.grad for number in (model.means, model.raw_scale)]
    assert gradients[0] is not None and float(gradients[0]) == pytest.approx(1.0)
    assert gradients[1] is not None and bool(gradients[1].isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quantile_beside_a_far_component_is_found_to_rounding(dtype: torch.dtype) -> None:
    mixture = MixtureDistribution.of(
        torch.tensor([0.5, 0.5], dtype=dtype),
        torch.tensor([[0.0], [1e6]], dtype=dtype),
        torch.tensor([[[1e-8]], [[1.0]]], dtype=dtype),
    )
    x = mixture.icdf(torch.tensor([0.25, 0.1], dtype=dtype))
    np.testing.assert_allclose(x[:, 0], norm.ppf([0.5, 0.2]) * 1e-4, rtol=1e-4, atol=1e-9)


def test_responsibilities_and_layers_look_at_what_they_are_given() -> None:
    x = _normal(30, 2)
    model = _started("full", x)
    for mixture in (model.to_distribution(), gmmedu.EMLayer(model)(x)):
        for ask in (mixture.responsibilities, mixture.log_prob):
            with pytest.raises(ValueError, match="event_shape"):
                ask(x[:, :1])
            with pytest.raises(ValueError, match="support"):
                ask(x * torch.nan)


@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_another_dtype_are_taken_alike(family: str) -> None:
    mixture = gmmedu.MixtureDensityHead(2, 2, 1, family)(torch.zeros(5, 2))
    t = _normal(5, 1)
    for name in ("log_prob", "responsibilities", "cdf"):
        ask = getattr(mixture, name)
        assert ask(t).dtype == torch.float32
        torch.testing.assert_close(ask(t), ask(t.float()))


def test_a_stepwise_fit_leaves_modes_to_those_it_asks() -> None:
    seen = set()

    def batches() -> Iterator[Tensor]:
        for batch in _normal(60, 2).split(5):
            seen.add(("batch", torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            yield batch

    def callback(model: Any, step: int, nll: Any) -> None:
        seen.add(("callback", torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        seen.clear()
        with mode():
            now = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            gmmedu.fit_stepwise(_started("full", _normal(60, 2)), batches(), callback=callback)
        assert seen == {("batch", *now), ("callback", *now)}


def test_a_checkpoint_tells_what_is_held_in_any_units(tmp_path: Path) -> None:
    x = 5e-7 + 1e-9 * _normal(50, 1)
    options: dict[str, Any] = {"checkpoint": tmp_path / "fit.pt", "checkpoint_every": 1}

    def held(at: float) -> gmmedu.GmmFull:
        model = gmmedu.GmmFull(1, 1, dtype=torch.float64)
        model.set_parameters(means=torch.tensor([[at]], dtype=torch.float64))
        model.means.requires_grad_(False)
        return model

    gmmedu.fit_em(held(5.00e-7), x, 3, 0.0, **options)
    with pytest.raises(ValueError, match="the means, held fixed,"):
        gmmedu.fit_em(held(5.05e-7), x, 5, 0.0, **options)


def test_nobody_draws_from_the_generator_of_all_but_who_says_so() -> None:
    x = _normal(60, 1)
    peer = _started("full", x, k=2)
    before = torch.get_rng_state()
    gmmedu.GmmFull.from_sklearn(peer.to_sklearn())
    gmmedu.GmmFull.from_distribution(peer.to_distribution())
    assert torch.equal(torch.get_rng_state(), before)
    head = gmmedu.MixtureDensityHead(2, 2, 1, dtype=torch.float64)
    before = torch.get_rng_state()
    head.initialize(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_empty_batches_give_empty_answers() -> None:
    model = _started("full", _normal(30, 2))
    assert model.log_prob(torch.zeros(0, 4, 2).double(), missing=True).shape == (0, 4)
    for gradient in ("implicit", "unrolled", "one_step"):
        mixture = gmmedu.EMLayer(model, gradient=gradient)(torch.zeros(0, 50, 2).double())
        assert mixture.batch_shape == (0,)


def test_doors_name_what_is_wrong() -> None:
    x = _normal(30, 2)
    model = _started("full", x)
    w, m, c = (getattr(model, n).detach() for n in ("weights", "means", "covariances"))
    wrong: dict[str, Callable[[], Any]] = {
        "weights must not be negative": lambda: MixtureDistribution.of(-w, m, c),
        "covariances must be positive definite": lambda: MixtureDistribution.of(w, m, -c),
        "x must have shape": lambda: gmmedu.em_step(model.state(), x[:, :1], model.family),
        "variance must stay within": lambda: gmmedu.GmmConstant(2, 1, variance=1e-80),
        "tolerance must be finite": lambda: gmmedu.fit_em(model, x, tolerance=10**400),
    }
    for said, call in wrong.items():
        with pytest.raises(ValueError, match=said):
            call()
    half = gmmedu.MixtureDensityHead(2, 2, 2).bfloat16()
    with pytest.raises(TypeError, match="the head's dtype"):
        half(torch.zeros(3, 2).bfloat16())


def test_the_warning_of_a_fixed_point_points_to_who_asked() -> None:
    x = _normal(30, 2)
    model = _started("full", x)
    with pytest.warns(gmmedu.ConvergenceWarning) as caught:
        gmmedu.em_fixed_point(model.state(), x, model.family, num_iterations=1)
    assert [Path(one.filename) for one in caught] == [Path(__file__)]


def test_blocks_hold_the_batches_of_points_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = _started("full", _normal(30, 2), k=3), _normal(8, 40, 2)
    monkeypatch.setattr("gmmedu.mixture._BLOCK_NUMBERS", 3 * 2 * 8 * 5)
    sizes = [part.shape[-2] for part in mixture_module._blocks(model.state(), x)]
    assert sizes == [5] * 8
    whole = model.log_prob(x)
    x[0, 0, 0] = torch.nan
    again = model.log_prob(x, missing=True)
    torch.testing.assert_close(again[1:], whole[1:], rtol=1e-12, atol=1e-12)


def test_a_state_of_another_family_is_refused() -> None:
    """A diagonal one broadcasts against triangular factors, to numbers that mean nothing."""
    x = _normal(30, 2)
    for own, other in (("diagonal", "full"), ("tied", "full"), ("isotropic", "diagonal")):
        state, wrong = _started(own, x).state(), _started(other, x)
        before = [number.clone() for number in wrong._numbers()]
        calls: dict[str, Callable[[], Any]] = {
            "a distribution": partial(MixtureDistribution, state, wrong.family),
            "a step": partial(gmmedu.em_step, state, x, wrong.family),
            "a fixed point": partial(gmmedu.em_fixed_point, state, x, wrong.family),
            "a layer": partial(gmmedu.EMLayer(wrong), x, start=state),
            "a model": partial(wrong.set_state, state),
        }
        for name, call in calls.items():
            with pytest.raises(ValueError, match=f"as the family '{other}' has them"):
                call()
            assert all(map(torch.equal, before, wrong._numbers())), name
    for refused in (lambda: gmmedu.em_step(state, x, "full"), lambda: MixtureDistribution(wrong)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="as a model has it"):
            refused()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_is_taken_whole_or_not_at_all(family: str) -> None:
    model, x = _started(family, _normal(30, 2), k=2), _normal(30, 2)
    before = [number.clone() for number in model._numbers()]
    state = model.state()
    wrong = {
        "other dimensions": _started(family, _normal(30, 3), k=2).state(),
        "one component": _started(family, x, k=1).state(),
        "not a number": state._replace(means=state.means * torch.nan),
        "a batch": gmmedu.MODELS[family](2, 2, batch_shape=3, dtype=torch.float64).state(),
    }
    for name, other in wrong.items():
        with pytest.raises(ValueError, match="^state must"):
            model.set_state(other)
        assert all(map(torch.equal, before, model._numbers())), name


def test_a_step_computes_in_the_dtype_of_its_state() -> None:
    x = gmmedu.load_old_faithful()
    model = gmmedu.GmmFull(2, 2, dtype=torch.float32)
    gmmedu.initialize(model, x, generator=_generator())
    ones = torch.ones(len(x), dtype=torch.float64)
    for step in (
        gmmedu.em_step(model.state(), x, model.family),
        gmmedu.em_step(model.state(), x, model.family, ones),
    ):
        assert step.means.dtype == torch.float32
        known = gmmedu.em_step(model.double().state(), x.float().double(), model.family)
        torch.testing.assert_close(step.means.double(), known.means, rtol=1e-5, atol=1e-5)
        model.float()
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(\.\.\., 272\)"):
        gmmedu.em_step(model.state(), x, model.family, ones[:, None])


def test_nearly_singular_covariances_in_float32_have_a_factor() -> None:
    g = _generator()
    for _ in range(100):
        axes = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
        values = torch.tensor([1.0, 0.3, 3e-8], dtype=torch.float64)
        covariance = ((axes * values) @ axes.mT).float()[None]
        mixture = MixtureDistribution.of(torch.ones(1), torch.zeros(1, 3), covariance)
        torch.testing.assert_close(mixture.component_covariances, covariance, rtol=0, atol=1e-6)


class Recorded:
    """Batches that note in which modes they are made."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.seen: list[tuple[bool, bool, bool, int]] = []

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.x.split(20):
            self.seen.append(
                (
                    torch.is_grad_enabled(),
                    torch.is_inference_mode_enabled(),
                    torch.is_autocast_enabled("cpu"),
                    torch.get_num_threads(),
                )
            )
            yield 1 * batch


@pytest.mark.parametrize("fitter", FITTERS)
@quiet
def test_a_stream_is_read_in_the_modes_of_the_caller(fitter: str) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for grad in (True, False):
            stream = Recorded(_normal(60, 2))
            with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
                FEW[fitter](_started("full", stream.x), stream)
            assert len(stream.seen) > 6 and set(stream.seen) == {(grad, False, True, 3)}
    finally:
        torch.set_num_threads(threads)


def test_points_that_weigh_nothing_are_not_those_that_a_component_needs() -> None:
    x = _normal(30, 2)
    weights = torch.zeros(30)
    weights[:2] = 1.0
    model = _started("full", x, k=3)
    cases: list[tuple[Any, Any]] = [(x, {"sample_weight": weights}), ([(x, weights)], {})]
    for points, options in cases:
        with pytest.raises(ValueError, match="x has 2 points and at least 3 are needed"):
            gmmedu.fit_em(model, points, **options)


def test_warnings_name_the_line_that_called_the_package() -> None:
    x = _normal(40, 2)
    model, late = _started("full", x, k=3), dict[str, Any](num_iterations=2, tolerance=1e-12)
    flat, clamp = gmmedu.GmmFull(2, 2, dtype=torch.float64), gmmedu.Clamp(0.1)
    calls: dict[str, Callable[[], Any]] = {
        "a fit": lambda: gmmedu.fit_em(model, x, **late),
        "descent": lambda: gmmedu.fit_model(model, x, **late),
        "the best": lambda: gmmedu.fit_best(model, x, 2, generator=_generator(), **late),
        "a layer": lambda: gmmedu.EMLayer(model, **late)(x),
        "a stream": lambda: gmmedu.fit_stepwise(flat, [0 * x], offset=0.0, mitigation=clamp),
    }
    for name, call in calls.items():
        with pytest.warns(UserWarning) as caught:
            call()
        assert {Path(one.filename) for one in caught} == {Path(__file__)}, name


@pytest.mark.parametrize("callback", [None, lambda *_: False], ids=["quiet", "told"])
def test_a_member_that_is_no_number_leaves_the_others_alone(callback: Any) -> None:
    x = _normal(40, 2)
    many = _started("full", x, k=2, batch_shape=2)
    with torch.no_grad():
        many.means[1] = torch.nan
    fit = gmmedu.fit_em(many, x, 5, 0.0, callback=callback)
    alone = many[0]
    assert [error.member for error in fit.errors] == [1] and fit.nll[1] == torch.inf
    assert alone(x).item() == pytest.approx(fit.nll[0].item(), abs=1e-9)

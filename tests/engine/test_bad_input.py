"""Bad input is refused at the door: the message names the argument, what came and what was wanted,
and the model is left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gmmedu
from gmmedu import MODELS, Clamp, GaussianMixture, GmmConstant, GmmFull, Prior, Reset

K, D, N = 3, 2, 20
NAN, INF = float("nan"), float("inf")


def points(num_points: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_points, D, generator=generator, dtype=torch.float64)


def mixture(family: str = "full", num_components: int = K, num_dims: int = D) -> GaussianMixture:
    generator = torch.Generator().manual_seed(1)
    return MODELS[family](num_components, num_dims, dtype=torch.float64, generator=generator)


def with_entry(x: Tensor, entries: Mapping[tuple[int, ...], float]) -> Tensor:
    x = x.clone()
    for index, value in entries.items():
        x[index] = value
    return x


Errors = type[Exception] | tuple[type[Exception], ...]
EITHER = (TypeError, ValueError)


def refuses(call: Callable[[], Any], error: Errors, *said: str) -> None:
    """``call`` raises ``error``, no subclass of it, and the message holds each of ``said``."""
    with pytest.raises(error) as caught:
        call()
    exactly = error if isinstance(error, tuple) else (error,)
    assert type(caught.value) in exactly, f"{type(caught.value).__name__}: {caught.value}"
    message = str(caught.value)
    for part in said:
        assert part in message, f"{part!r} is not in {message!r}"


def refuses_and_keeps(
    model: GaussianMixture, call: Callable[[], Any], error: Errors, *said: str
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuses(call, error, *said)
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert torch.equal(after[name], value), f"{name} changed"


# Points: every function that takes them, every way to get them wrong

TAKES_POINTS: dict[str, Callable[[GaussianMixture, Any], Any]] = {
    "model": lambda model, x: model(x),
    "log_prob": lambda model, x: model.log_prob(x),
    "responsibilities": lambda model, x: model.responsibilities(x),
    "predict": lambda model, x: model.predict(x),
    "aic": lambda model, x: model.aic(x),
    "bic": lambda model, x: model.bic(x),
    "initialize": lambda model, x: gmmedu.initialize(model, x),
    "fit_em": lambda model, x: gmmedu.fit_em(model, x, 3),
    "fit_model": lambda model, x: gmmedu.fit_model(model, x, 3),
    "find_singular": lambda model, x: gmmedu.find_singular(model, x),
}

#: These take one point (D,) and points (..., N, D) too.
ANY_SHAPE = ("model", "log_prob", "responsibilities", "predict", "aic", "bic")

WRONG_POINTS: dict[str, tuple[Any, Errors, tuple[str, ...]]] = {
    "none": (None, TypeError, ("x must be a torch.Tensor", "NoneType")),
    "list": ([[0.0, 1.0]] * N, TypeError, ("x must be a torch.Tensor", "list", "as_tensor")),
    "numpy": (points().numpy(), TypeError, ("x must be a torch.Tensor", "ndarray", "as_tensor")),
    "integers": (
        torch.ones(N, D, dtype=torch.int64),
        TypeError,
        ("x must hold floating-point", "torch.int64", "x.to(torch.float64)"),
    ),
    "booleans": (torch.ones(N, D) > 0, TypeError, ("x must hold floating-point", "torch.bool")),
    "complex": (
        points().to(torch.complex64),
        TypeError,
        ("x must hold floating-point", "torch.complex64"),
    ),
    "scalar": (torch.tensor(1.0), ValueError, ("x must have shape {}", "got ()")),
    "one-dimensional": (
        points()[:, 0],
        ValueError,
        ("x must have shape {}", "got (20,)"),
    ),
    "three-dimensional": (points()[None], ValueError, ("x must have shape {}", "(1, 20, 2)")),
    "too-wide": (
        torch.ones(N, 3),
        ValueError,
        ("x must have shape {}", "got (20, 3)", "num_dims=2"),
    ),
    "transposed": (points().mT, ValueError, ("x must have shape {}", "got (2, 20)")),
    "no-column": (points()[:, :0], ValueError, ("x must have shape {}", "got (20, 0)")),
    "no-point": (points()[:0], ValueError, ("x has 0 points", "needed")),
    "nan": (
        with_entry(points(), {(3, 1): NAN}),
        ValueError,
        ("x must be finite", "1 of its 20 rows", "rows 3"),
    ),
    "infinity": (
        with_entry(points(), {(0, 0): INF, (19, 1): -INF}),
        ValueError,
        ("x must be finite", "2 of its 20 rows", "rows 0, 19"),
    ),
    "many-rows-of-nan": (
        points() * NAN,
        ValueError,
        ("x must be finite", "20 of its 20 rows", "rows 0, 1, 2, 3, 4, ..."),
    ),
    "no-numbers": (points().to("meta"), EITHER, ("x ", "meta")),
    "sparse": (points().to_sparse(), EITHER, ("x ", "sparse")),
}


@pytest.mark.parametrize("wrong", WRONG_POINTS)
@pytest.mark.parametrize("function", TAKES_POINTS)
def test_points(function: str, wrong: str) -> None:
    x, error, said = WRONG_POINTS[wrong]
    model = mixture()
    any_shape = function in ANY_SHAPE
    if wrong == "three-dimensional" and any_shape:
        given, alone = (TAKES_POINTS[function](model, points) for points in (x, x[0]))
        given, alone = (torch.as_tensor(value).flatten() for value in (given, alone))
        torch.testing.assert_close(given, alone, check_dtype=False)
        return
    wanted = "(2,) or (..., N, 2)" if any_shape else "(N, 2)"
    parts = (part.format(wanted) for part in said)
    refuses_and_keeps(model, lambda: TAKES_POINTS[function](model, x), error, *parts)


@pytest.mark.parametrize("function", ["initialize", "fit_em", "fit_model", "find_singular"])
def test_a_vector_is_told_which_way_to_turn_where_that_helps(function: str) -> None:
    for num_dims, vector, hint in (
        (1, points()[:, 0], "one-dimensional data go in as x[:, None]"),
        (2, points()[0], "one point goes in as x[None, :]"),
    ):
        model = mixture(num_components=1, num_dims=num_dims)
        call = partial(TAKES_POINTS[function], model, vector)
        refuses_and_keeps(model, call, ValueError, hint)
        assert eval(hint.split(" in as ")[1], {"x": vector}).shape[1] == num_dims


@pytest.mark.parametrize("function", ["initialize", "fit_em", "fit_model"])
def test_fewer_points_than_components(function: str) -> None:
    model = mixture()
    refuses_and_keeps(
        model,
        lambda: TAKES_POINTS[function](model, points(2)),
        ValueError,
        "x has 2 points",
        "at least 3",
        "one for each component",
    )


@pytest.mark.parametrize("family", MODELS)
def test_every_family_refuses_nan(family: str) -> None:
    model = mixture(family)
    x = with_entry(points(), {(7, 0): NAN})
    for function in ("model", "initialize", "fit_em", "fit_model"):
        refuses_and_keeps(model, partial(TAKES_POINTS[function], model, x), ValueError, "rows 7")


@pytest.mark.parametrize("function", TAKES_POINTS)
@pytest.mark.parametrize("family", MODELS)
def test_another_device(family: str, function: str) -> None:
    model = mixture(family).to("meta")
    refuses(
        lambda: TAKES_POINTS[function](model, points()),
        ValueError,
        "x is on cpu",
        "model on meta",
        "x.to('meta')",
    )


# Constructors


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("argument", ["num_components", "num_dims"])
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0, ValueError, "at least 1, got 0"),
        (-1, ValueError, "at least 1, got -1"),
        (True, TypeError, "must be an integer, got True (bool)"),
        (2.0, TypeError, "must be an integer, got 2.0 (float)"),
        ("2", TypeError, "must be an integer, got '2' (str)"),
        (None, TypeError, "must be an integer, got None (NoneType)"),
        (torch.tensor(2), TypeError, "must be an integer, got tensor(2) (Tensor)"),
    ],
)
def test_counts_of_a_model(
    family: str, argument: str, value: Any, error: Errors, said: str
) -> None:
    arguments: dict[str, Any] = {"num_components": 2, "num_dims": 2, argument: value}
    refuses(lambda: MODELS[family](**arguments), error, argument, said)


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], Errors, tuple[str, ...]]] = {
    "radius-negative": ({"init_radius": -1.0}, ValueError, ("init_radius", "at least 0", "-1.0")),
    "radius-nan": ({"init_radius": NAN}, ValueError, ("init_radius must be finite", "nan")),
    "radius-infinite": ({"init_radius": INF}, ValueError, ("init_radius must be finite", "inf")),
    "radius-text": ({"init_radius": "1"}, TypeError, ("init_radius must be a number", "'1' (str)")),
    "radius-bool": ({"init_radius": True}, TypeError, ("init_radius must be a number", "bool")),
    "means-numpy": (
        {"init_means": np.zeros((2, 2))},
        TypeError,
        ("init_means must be a torch.Tensor", "ndarray"),
    ),
    "means-integers": (
        {"init_means": torch.zeros(2, 2, dtype=torch.int64)},
        TypeError,
        ("init_means must hold floating-point", "torch.int64"),
    ),
    "means-too-many": (
        {"init_means": torch.zeros(3, 2)},
        ValueError,
        ("init_means must have shape (2, 2)", "got (3, 2)"),
    ),
    "means-too-wide": (
        {"init_means": torch.zeros(2, 3)},
        ValueError,
        ("init_means must have shape (2, 2)", "got (2, 3)"),
    ),
    "means-flat": ({"init_means": torch.zeros(2)}, ValueError, ("init_means", "got (2,)")),
    "means-nan": (
        {"init_means": torch.tensor([[0.0, 0.0], [NAN, 0.0]])},
        ValueError,
        ("init_means must be finite", "rows 1"),
    ),
    "means-beyond-the-dtype": (
        {"init_means": torch.full((2, 2), 1e300, dtype=torch.float64)},
        ValueError,
        ("init_means", "float32"),
    ),
    "dtype-integer": ({"dtype": torch.int64}, TypeError, ("dtype must be", "int64")),
    "dtype-complex": ({"dtype": torch.complex64}, TypeError, ("dtype must be", "complex64")),
    "dtype-text": ({"dtype": "float32"}, TypeError, ("dtype", "float32")),
    "generator-seed": (
        {"generator": 0},
        TypeError,
        ("generator must be a torch.Generator or None", "int", "manual_seed"),
    ),
}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("wrong", WRONG_OPTIONS)
def test_options_of_a_model(family: str, wrong: str) -> None:
    options, error, said = WRONG_OPTIONS[wrong]
    refuses(lambda: MODELS[family](2, 2, **({"dtype": torch.float32} | options)), error, *said)


def test_the_class_of_all_models_names_the_usable_ones() -> None:
    names = [model.__name__ for model in MODELS.values()]
    refuses(lambda: GaussianMixture(2, 2), TypeError, "no covariance family", *names)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.0, ValueError, "greater than 0, got 0.0"),
        (-1.0, ValueError, "greater than 0, got -1.0"),
        (NAN, ValueError, "finite and greater than 0, got nan"),
        (INF, ValueError, "finite and greater than 0, got inf"),
        ("1", TypeError, "must be a number, got '1' (str)"),
        (None, TypeError, "must be a number, got None"),
        (True, TypeError, "must be a number, got True (bool)"),
    ],
)
def test_the_given_variance(value: Any, error: Errors, said: str) -> None:
    refuses(lambda: GmmConstant(2, 2, variance=value), error, "variance", said)


# set_parameters

EYES = torch.eye(D, dtype=torch.float64).repeat(K, 1, 1)
MEANS = torch.zeros(K, D, dtype=torch.float64)
SHARES = torch.full((K,), 1 / K, dtype=torch.float64)

WRONG_PARAMETERS: dict[str, tuple[dict[str, Any], Errors, tuple[str, ...]]] = {
    "covariances-indefinite": (
        {"covariances": with_entry(EYES, {(1, 1, 1): -1.0})},
        ValueError,
        ("covariances must be positive definite", "component 1"),
    ),
    "covariances-singular": (
        {"covariances": with_entry(EYES, {(2, 0, 0): 0.0})},
        ValueError,
        ("covariances must be positive definite", "component 2"),
    ),
    "covariances-asymmetric": (
        {"covariances": with_entry(EYES, {(1, 0, 1): 0.5})},
        ValueError,
        ("covariances must be symmetric", "component 1"),
    ),
    "covariances-sparse": (
        {"covariances": EYES.to_sparse()},
        TypeError,
        ("covariances must be a dense tensor", "sparse"),
    ),
    "weights-sparse": (
        {"weights": SHARES.to_sparse()},
        TypeError,
        ("weights must be a dense tensor", "sparse"),
    ),
    "covariances-nan": (
        {"covariances": with_entry(EYES, {(2, 0, 0): NAN})},
        ValueError,
        ("covariances must be finite",),
    ),
    "covariances-infinite": (
        {"covariances": with_entry(EYES, {(0, 1, 1): INF})},
        ValueError,
        ("covariances must be finite",),
    ),
    "covariances-too-few": (
        {"covariances": EYES[:1]},
        ValueError,
        ("covariances must have shape (3, 2, 2)", "got (1, 2, 2)"),
    ),
    "covariances-of-variances": (
        {"covariances": torch.ones(K, D, dtype=torch.float64)},
        ValueError,
        ("covariances must have shape (3, 2, 2)", "got (3, 2)"),
    ),
    "covariances-numpy": (
        {"covariances": EYES.numpy()},
        TypeError,
        ("covariances must be a torch.Tensor", "ndarray"),
    ),
    "covariances-integers": (
        {"covariances": EYES.long()},
        TypeError,
        ("covariances must hold floating-point", "torch.int64"),
    ),
    "covariances-complex": (
        {"covariances": EYES.to(torch.complex64)},
        TypeError,
        ("covariances must hold floating-point", "torch.complex64"),
    ),
    "covariances-elsewhere": (
        {"covariances": EYES.to("meta")},
        EITHER,
        ("covariances ", "meta"),
    ),
    "means-numpy": (
        {"means": MEANS.numpy()},
        TypeError,
        ("means must be a torch.Tensor", "ndarray"),
    ),
    "means-integers": (
        {"means": MEANS.long()},
        TypeError,
        ("means must hold floating-point", "torch.int64"),
    ),
    "means-too-few": (
        {"means": MEANS[:2]},
        ValueError,
        ("means must have shape (3, 2)", "got (2, 2)"),
    ),
    "means-too-wide": (
        {"means": torch.zeros(K, 3)},
        ValueError,
        ("means must have shape (3, 2)", "got (3, 3)"),
    ),
    "means-infinite": (
        {"means": with_entry(MEANS, {(1, 0): INF})},
        ValueError,
        ("means must be finite", "rows 1"),
    ),
    "means-elsewhere": ({"means": MEANS.to("meta")}, EITHER, ("means ", "meta")),
    "weights-negative": (
        {"weights": torch.tensor([0.6, 0.6, -0.2])},
        ValueError,
        ("weights must not be negative", "entry 2", "-0.2"),
    ),
    "weights-zero": (
        {"weights": torch.zeros(K)},
        ValueError,
        ("weights must have a positive", "sum"),
    ),
    "weights-nan": (
        {"weights": torch.tensor([NAN, 1.0, 1.0])},
        ValueError,
        ("weights must be finite",),
    ),
    "weights-too-many": (
        {"weights": torch.ones(4)},
        ValueError,
        ("weights must have shape (3,)", "got (4,)"),
    ),
    "weights-integers": (
        {"weights": torch.ones(K, dtype=torch.int64)},
        TypeError,
        ("weights must hold floating-point", "torch.int64"),
    ),
    "weights-list": (
        {"weights": [0.5, 0.3, 0.2]},
        TypeError,
        ("weights must be a torch.Tensor", "list"),
    ),
    "weights-elsewhere": (
        {"weights": SHARES.to("meta")},
        EITHER,
        ("weights ", "meta"),
    ),
}


@pytest.mark.parametrize("wrong", WRONG_PARAMETERS)
@pytest.mark.parametrize("family", MODELS)
def test_parameters(family: str, wrong: str) -> None:
    parameters, error, said = WRONG_PARAMETERS[wrong]
    model = mixture(family)
    # What comes beside the mistake is valid and must not be taken over either.
    beside = {"weights": torch.tensor([0.5, 0.3, 0.2]), "means": MEANS + 5, "covariances": 4 * EYES}
    refuses_and_keeps(model, lambda: model.set_parameters(**(beside | parameters)), error, *said)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", ["covariances-underflow", "covariances-overflow", "means"])
def test_parameters_beyond_the_range_of_the_model(family: str, name: str) -> None:
    parameters = {
        "covariances-underflow": {"covariances": 1e-60 * EYES},
        "covariances-overflow": {"covariances": 1e60 * EYES},
        "means": {"means": MEANS + 1e60},
    }[name]
    model = mixture(family).float()
    refuses_and_keeps(
        model,
        lambda: model.set_parameters(**parameters),
        ValueError,
        *parameters,
        "float32",
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-60, 1e60, 1e307])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_of_any_size_are_normalized(dtype: torch.dtype, scale: float) -> None:
    model = mixture().to(dtype)
    model.set_parameters(weights=torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64) * scale)
    expected = torch.tensor([0.5, 0.25, 0.25], dtype=dtype)
    torch.testing.assert_close(model.weights.detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("share", [0.0, 1e-320, 1e-300])
def test_a_weight_of_zero_leaves_the_covariances_alone(family: str, share: float) -> None:
    model = mixture(family)
    weights = torch.tensor([0.5, 0.5, share], dtype=torch.float64)
    model.set_parameters(weights=weights, covariances=1e-20 * EYES)
    if family != "constant":
        torch.testing.assert_close(model.covariances.detach(), 1e-20 * EYES, rtol=1e-3, atol=0)
    assert bool(torch.isfinite(model.raw_scale).all())
    assert bool(torch.isfinite(model.log_prob(points())).all())


# Fits and initialization: the arguments beside the data

FITTERS: dict[str, Callable[..., Any]] = {"em": gmmedu.fit_em, "descent": gmmedu.fit_model}
WEIGHTS = torch.ones(N, dtype=torch.float64)
INTEGER = "must be an integer"
NUMBER = "must be a number"

WRONG_FITS: dict[str, tuple[dict[str, Any], Errors, tuple[str, ...]]] = {
    "sample_weight-negative": (
        {"sample_weight": with_entry(WEIGHTS, {(4,): -2.0})},
        ValueError,
        ("sample_weight must not be negative", "entry 4", "-2"),
    ),
    "sample_weight-sparse": (
        {"sample_weight": WEIGHTS.to_sparse()},
        TypeError,
        ("sample_weight must be a dense tensor", "sparse"),
    ),
    "sample_weight-no-numbers": (
        {"sample_weight": WEIGHTS.to("meta")},
        TypeError,
        ("sample_weight must be a dense tensor", "meta"),
    ),
    "sample_weight-zero": (
        {"sample_weight": 0 * WEIGHTS},
        ValueError,
        ("sample_weight must have a positive", "sum"),
    ),
    "sample_weight-nan": (
        {"sample_weight": with_entry(WEIGHTS, {(4,): NAN})},
        ValueError,
        ("sample_weight must be finite",),
    ),
    "sample_weight-infinite": (
        {"sample_weight": with_entry(WEIGHTS, {(4,): INF})},
        ValueError,
        ("sample_weight must be finite",),
    ),
    "sample_weight-overflowing": (
        {"sample_weight": 1e308 * WEIGHTS},
        ValueError,
        ("sample_weight", "sum"),
    ),
    "sample_weight-too-short": (
        {"sample_weight": WEIGHTS[:4]},
        ValueError,
        ("sample_weight must have shape (20,)", "got (4,)"),
    ),
    "sample_weight-column": (
        {"sample_weight": WEIGHTS[:, None]},
        ValueError,
        ("sample_weight must have shape (20,)", "got (20, 1)"),
    ),
    "sample_weight-numpy": (
        {"sample_weight": WEIGHTS.numpy()},
        TypeError,
        ("sample_weight must be a torch.Tensor", "ndarray"),
    ),
    "sample_weight-integers": (
        {"sample_weight": WEIGHTS.long()},
        TypeError,
        ("sample_weight must hold floating-point", "torch.int64"),
    ),
    "sample_weight-elsewhere": (
        {"sample_weight": WEIGHTS.to("meta")},
        EITHER,
        ("sample_weight ", "meta"),
    ),
    "num_iterations-negative": (
        {"num_iterations": -1},
        ValueError,
        ("num_iterations must be at least 0", "got -1"),
    ),
    "num_iterations-bool": ({"num_iterations": True}, TypeError, ("num_iterations", INTEGER)),
    "num_iterations-float": ({"num_iterations": 1e3}, TypeError, ("num_iterations", INTEGER)),
    "num_iterations-text": ({"num_iterations": "10"}, TypeError, ("num_iterations", INTEGER)),
    "tolerance-negative": ({"tolerance": -1e-9}, ValueError, ("tolerance", "at least 0", "-1e-09")),
    "tolerance-nan": ({"tolerance": NAN}, ValueError, ("tolerance must be finite", "nan")),
    "tolerance-infinite": ({"tolerance": INF}, ValueError, ("tolerance must be finite", "inf")),
    "tolerance-text": ({"tolerance": "1e-8"}, TypeError, ("tolerance", NUMBER, "str")),
    "tolerance-none": ({"tolerance": None}, TypeError, ("tolerance", NUMBER, "None")),
    "tolerance-bool": ({"tolerance": False}, TypeError, ("tolerance", NUMBER, "bool")),
    "snapshot_every-negative": ({"snapshot_every": -5}, ValueError, ("snapshot_every", "-5")),
    "snapshot_every-bool": ({"snapshot_every": True}, TypeError, ("snapshot_every", INTEGER)),
    "snapshot_every-float": ({"snapshot_every": 0.5}, TypeError, ("snapshot_every", INTEGER)),
    "generator-seed": ({"generator": 0}, TypeError, ("generator must be", "int", "manual_seed")),
    "generator-text": ({"generator": "cpu"}, TypeError, ("generator must be", "str")),
    "mitigation-text": (
        {"mitigation": "clamp"},
        TypeError,
        ("mitigation must be None, Clamp(...), Reset(...) or Prior(...)", "'clamp'"),
    ),
    "mitigation-number": ({"mitigation": 1e-3}, TypeError, ("mitigation must be", "0.001")),
    "mitigation-class": ({"mitigation": Clamp}, TypeError, ("mitigation must be", "Clamp")),
    "mitigation-prior-class": ({"mitigation": Prior}, TypeError, ("mitigation must be", "Prior")),
    "callback-text": ({"callback": "stop"}, TypeError, ("callback", "'stop'")),
}


@pytest.mark.parametrize("wrong", WRONG_FITS)
@pytest.mark.parametrize("fitter", FITTERS)
def test_arguments_of_a_fit(fitter: str, wrong: str) -> None:
    arguments, error, said = WRONG_FITS[wrong]
    model = mixture()
    refuses_and_keeps(
        model, lambda: FITTERS[fitter](model, points(), **({"num_iterations": 3} | arguments)),
        error, *said,
    )  # fmt: skip


@pytest.mark.parametrize("size", [1e-60, 1e60])
@pytest.mark.parametrize("fitter", FITTERS)
def test_sample_weights_beyond_the_range_of_the_model_count_by_their_ratios(
    fitter: str, size: float
) -> None:
    weights = torch.linspace(0.5, 2, N, dtype=torch.float64)
    histories = [
        FITTERS[fitter](mixture().float(), points(), 3, tolerance=0, sample_weight=given).history
        for given in (weights, size * weights)
    ]
    torch.testing.assert_close(histories[1], histories[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("argument", ["mixture_lr", "component_lr"])
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (-1e-3, ValueError, "at least 0, got -0.001"),
        (NAN, ValueError, "finite and at least 0, got nan"),
        (INF, ValueError, "finite and at least 0, got inf"),
        ("0.1", TypeError, "must be a number, got '0.1' (str)"),
        (None, TypeError, "must be a number, got None"),
        (True, TypeError, "must be a number, got True (bool)"),
    ],
)
def test_learning_rates(argument: str, value: Any, error: Errors, said: str) -> None:
    model = mixture()
    refuses_and_keeps(
        model, lambda: gmmedu.fit_model(model, points(), 3, **{argument: value}), error, argument,
        said,
    )  # fmt: skip


@pytest.mark.parametrize("argument", ["mixture_lr", "component_lr"])
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (torch.full((3,), 0.1), ValueError, r"with the batch (2,) of the model, got a tensor"),
        (torch.tensor([0.1, -1.0]), ValueError, "finite and at least 0"),
        (torch.tensor([0.1, NAN]), ValueError, "finite and at least 0"),
        (torch.tensor([1, 2]), TypeError, "must hold floating-point numbers"),
        ([0.1, 0.2], TypeError, "must be a number"),
    ],
)
def test_learning_rates_of_a_batch(argument: str, value: Any, error: Errors, said: str) -> None:
    model = gmmedu.initialize(gmmedu.GmmFull(K, D, batch_shape=2, dtype=torch.float64), points())
    refuses_and_keeps(
        model, lambda: gmmedu.fit_model(model, points(), 3, **{argument: value}), error, argument,
        said,
    )  # fmt: skip


TAKES_MODEL: dict[str, Callable[[Any], Any]] = {
    "initialize": lambda model: gmmedu.initialize(model, points()),
    "fit_em": lambda model: gmmedu.fit_em(model, points(), 3),
    "fit_model": lambda model: gmmedu.fit_model(model, points(), 3),
    "find_singular": lambda model: gmmedu.find_singular(model, points()),
}


@pytest.mark.parametrize("function", TAKES_MODEL)
@pytest.mark.parametrize(
    ("model", "came"),
    [(None, "NoneType"), (torch.nn.Linear(2, 2), "Linear"), (GmmFull, ""), ("full", "str")],
    ids=["none", "linear", "class", "name"],
)
def test_a_model_of_another_kind(function: str, model: Any, came: str) -> None:
    refuses(lambda: TAKES_MODEL[function](model), TypeError, "model must be", came)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", MODELS)
def test_half_precision_is_not_fitted(family: str, fitter: str, dtype: torch.dtype) -> None:
    model = mixture(family).to(dtype)
    refuses_and_keeps(
        model, lambda: FITTERS[fitter](model, points(), num_iterations=3), TypeError,
        "model", "float32 or torch.float64", str(dtype),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", MODELS)
def test_half_precision_works_or_is_refused_by_name(family: str, dtype: torch.dtype) -> None:
    """A model may be moved to half precision; what it cannot do there it says in its own words."""
    uses: list[Callable[[], Any]] = [
        lambda: MODELS[family](2, 2, dtype=dtype),
        lambda: mixture(family).to(dtype).log_prob(points()),
        lambda: mixture(family).to(dtype).sample(3),
        lambda: mixture(family).to(dtype).marginal([0]),
        lambda: mixture(family).to(dtype).condition({0: 0.0}),
        lambda: gmmedu.initialize(mixture(family).to(dtype), points()),
        lambda: gmmedu.find_singular(mixture(family).to(dtype), points()),
    ]
    for number, use in enumerate(uses):
        try:
            use()
        except TypeError as error:
            assert str(dtype) in str(error)
        except Exception as error:
            pytest.fail(f"use {number}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("method", ["kmean", "KMeans", "random", "", None, 0, ["box"]], ids=repr)
def test_unknown_initialization(method: Any) -> None:
    model = mixture()
    refuses_and_keeps(
        model, lambda: gmmedu.initialize(model, points(), method), ValueError,
        "method must be one of 'box', 'points', 'kmeans', 'kmeans++'", f"got {method!r}",
    )  # fmt: skip


@pytest.mark.parametrize(
    "generator", [0, "cpu", np.random.default_rng(0)], ids=["int", "str", "np"]
)
def test_generators(generator: Any) -> None:
    model = mixture()
    said = ("generator must be a torch.Generator or None", type(generator).__name__)
    calls: list[Callable[[], Any]] = [
        lambda: gmmedu.initialize(model, points(), generator=generator),
        lambda: model.sample(3, generator=generator),
        lambda: model.sample_with_labels(3, generator=generator),
        lambda: gmmedu.sample_mixture(3, 2, 2, generator=generator),
    ]
    for call in calls:
        refuses_and_keeps(model, call, TypeError, *said)


# Mitigations


@pytest.mark.parametrize(
    ("make", "argument", "least"),
    [
        (lambda value: Clamp(value), "min_scale", "greater than 0"),
        (lambda value: Reset(value), "min_scale", "greater than 0"),
        (lambda value: Prior(value), "scatter", "greater than 0"),
        (lambda value: Prior(degrees=value), "degrees", "greater than 0"),
        (lambda value: gmmedu.find_singular(mixture(), points(), value), "min_scale", "greater"),
    ],
    ids=["clamp", "reset", "prior-scatter", "prior-degrees", "find_singular"],
)
def test_settings_of_mitigations(make: Callable[[Any], Any], argument: str, least: str) -> None:
    for number in (0, -1e-3, NAN, INF):
        refuses(partial(make, number), ValueError, argument, least, f"got {number!r}")
    for other in ("1e-3", True, torch.full((1,), 1e-3)):
        refuses(partial(make, other), TypeError, argument, NUMBER, type(other).__name__)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (-1, ValueError, "at least 0, got -1"),
        (1.5, TypeError, "must be an integer, got 1.5 (float)"),
        (None, TypeError, "must be an integer, got None"),
        (True, TypeError, "must be an integer, got True (bool)"),
    ],
)
def test_the_number_of_resets(value: Any, error: Errors, said: str) -> None:
    refuses(lambda: Reset(max_resets=value), error, "max_resets", said)


# What is made of a mixture


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(
    ("dims", "error"),
    [
        ([], ValueError),
        ([3], ValueError),
        ([-1], ValueError),
        ([0, 0], ValueError),
        ([0.5], ValueError),
        (["0"], ValueError),
        (0, EITHER),
        (None, EITHER),
        ([True], EITHER),
    ],
    ids=repr,
)
def test_dimensions_of_a_marginal(family: str, dims: Any, error: Errors) -> None:
    model = mixture(family, num_dims=3)
    refuses_and_keeps(model, lambda: model.marginal(dims), error, "dims", "from 0 to 2", repr(dims))


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, ValueError, "from 0 to 2"),
        ({3: 1.0}, ValueError, "from 0 to 2"),
        ({-1: 1.0}, ValueError, "from 0 to 2"),
        ({"0": 1.0}, ValueError, "from 0 to 2"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, ValueError, "leave at least one of the 3 dimensions free"),
        ({0: NAN}, ValueError, "finite"),
        ({0: INF}, ValueError, "finite"),
        ({0: "a"}, EITHER, "'a'"),
        ({0: None}, EITHER, "None"),
        ([0], TypeError, "[0]"),
        (None, TypeError, "None"),
        (3.5, TypeError, "3.5"),
    ],
    ids=repr,
)
def test_conditions(family: str, given: Any, error: Errors, said: str) -> None:
    model = mixture(family, num_dims=3)
    refuses_and_keeps(model, lambda: model.condition(given), error, "given", said)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("value", [1e10, -1e100])
def test_a_condition_far_from_every_component_still_answers(family: str, value: float) -> None:
    model = mixture(family, num_dims=3).condition({0: value})
    assert all(bool(torch.isfinite(part).all()) for part in model.state_dict().values())
    assert float(model.weights.detach().sum()) == pytest.approx(1)


@pytest.mark.parametrize("family", MODELS)
def test_the_number_of_samples(family: str) -> None:
    model = mixture(family)
    wrong: list[tuple[Any, Errors]] = [
        (-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError), ("3", TypeError),
    ]  # fmt: skip
    for value, error in wrong:
        for draw in (model.sample, model.sample_with_labels):
            refuses_and_keeps(model, partial(draw, value), error, "num_samples", str(value))
    assert model.sample(0).shape == (0, D)


# Options and batches


@pytest.mark.parametrize("fitter", [gmmedu.fit_em, gmmedu.fit_model, gmmedu.fit_lbfgs])
def test_an_option_that_is_none(fitter: Callable[..., Any]) -> None:
    model = mixture()
    said = "mitigatoin is no argument of this fitter; ", "it takes mitigation, "
    refuses_and_keeps(model, lambda: fitter(model, points(), mitigatoin=None), TypeError, *said)


@pytest.mark.parametrize("call", [gmmedu.impute, gmmedu.find_singular, gmmedu.fit_best])
def test_a_batch_where_one_mixture_is_wanted(call: Callable[..., Any]) -> None:
    many = GmmFull(2, D, batch_shape=3, dtype=torch.float64)
    refuses_and_keeps(many, lambda: call(many, points()), TypeError, "one")


def test_values_are_looked_at_unless_told_otherwise() -> None:
    x = with_entry(points(), {(3, 1): NAN})
    free = GmmFull(2, D, dtype=torch.float64, validate_args=False)
    assert free.log_prob(x).isnan().nonzero().tolist() == [[3]]
    refuses(lambda: GmmFull(2, D, dtype=torch.float64).log_prob(x), ValueError, "x")
    head = gmmedu.MixtureDensityHead(2, 2, 1, dtype=torch.float64)
    refuses(lambda: head(x), ValueError, "h must be finite")
    free_head = gmmedu.MixtureDensityHead(2, 2, 1, dtype=torch.float64, validate_args=False)
    assert free_head(x).mean.isnan().any(-1).nonzero().tolist() == [[3]]


# Synthetic data: its law is tested in test_datasets; here only what it refuses

WRONG_SAMPLES: dict[str, tuple[dict[str, Any], Errors, tuple[str, ...]]] = {
    "samples": ({"num_samples": 0}, ValueError, ("num_samples must be at least 1", "got 0")),
    "components": ({"num_components": -2}, ValueError, ("num_components must be at least 1",)),
    "dims": ({"num_dims": True}, TypeError, ("num_dims must be an integer", "bool")),
    "family": ({"family": "spherical"}, ValueError, ("family must be one of", *MODELS)),
    "radius": ({"radius": -1}, ValueError, ("radius", "at least 0")),
    "variance": ({"variance": 0}, ValueError, ("variance", "greater than 0")),
    "min_weight": ({"min_weight": 0.9}, ValueError, ("min_weight", "0.9", "0.5")),
    "dtype": ({"dtype": torch.int64}, TypeError, ("dtype", "int64")),
    "dtype-text": ({"dtype": "float32"}, TypeError, ("dtype", "float32")),
}


@pytest.mark.parametrize("wrong", WRONG_SAMPLES)
def test_synthetic_data(wrong: str) -> None:
    options, error, said = WRONG_SAMPLES[wrong]
    arguments: dict[str, Any] = {"num_samples": 10, "num_components": 2, "num_dims": 2} | options
    refuses(lambda: gmmedu.sample_mixture(**arguments), error, *said)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMMEDU_DEVICE", "abacus")
    refuses(gmmedu.default_device, ValueError, "GMMEDU_DEVICE='abacus'", "'cpu'")

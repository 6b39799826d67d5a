"""Torch's transforms and modes: what goes through the density, and what leaves it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacrev, vmap

import gmmedu
from gmmedu import MixtureDistribution, mixture
from gmmedu.covariance import Family
from gmmedu.em import m_step
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step
from gmmedu.values import Points, State, each

FAMILIES = list(gmmedu.MODELS)
FITTERS: dict[str, Callable[..., gmmedu.FitResult]] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 4, 0.0, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(model, x, 4, 0.0, accelerate="squarem", **o),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 4, 0.05, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 4, 0.0, **o),
}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(size: int = 20, num_dims: int = 2, dtype: Any = torch.float64) -> Tensor:
    x = torch.randn(size, num_dims, generator=_generator(), dtype=torch.float64, device="cpu")
    x[: size // 2, 0] += 3
    return x.to(dtype)


def _model(
    family: str, num_dims: int = 2, dtype: Any = torch.float64, **options: Any
) -> GaussianMixture:
    """Two components, some steps of EM after their start."""
    x = _points(40, num_dims)
    model = gmmedu.MODELS[family](2, num_dims, dtype=dtype, device="cpu", **options)
    gmmedu.initialize(model, x, "points", generator=_generator(1))
    gmmedu.fit_em(model, x, 2, 0.0)
    return model


def _numbers(model: GaussianMixture) -> dict[str, Tensor]:
    numbers = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: number.detach() for name, number in numbers.items()}


def _same(one: GaussianMixture, other: GaussianMixture) -> None:
    for name, number in _numbers(one).items():
        assert torch.equal(number, _numbers(other)[name]), name


# torch.func


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_nll_by_torch_func(family: str) -> None:
    model, x = _model(family), _points()
    numbers = dict(model.named_parameters())
    found = grad(lambda values: functional_call(model, values, (x,)))(numbers)
    known = torch.autograd.grad(model(x), list(numbers.values()))
    for mine, right in zip(found.values(), known, strict=True):
        torch.testing.assert_close(mine, right)
    rows = jacrev(lambda values: functional_call(model, values, (x[:1],)))(numbers)
    assert all(rows[name].shape == number.shape for name, number in numbers.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_points_one_by_one_by_vmap(family: str) -> None:
    model, x = _model(family), _points(7)
    for method in (model.log_prob, model.responsibilities, model.predict):
        torch.testing.assert_close(vmap(method)(x), method(x))
    own = model.to_distribution(validate_args=False)
    torch.testing.assert_close(vmap(own.log_prob)(x), model.log_prob(x))
    # The gradient of each point's own density.
    slopes = vmap(grad(model.log_prob))(x)
    at = x.clone().requires_grad_()
    (known,) = torch.autograd.grad(model.log_prob(at).sum(), at)
    torch.testing.assert_close(slopes, known)


@pytest.mark.parametrize("family", FAMILIES)
def test_curvature_in_a_point_is_that_of_torch_s_mixture(family: str) -> None:
    model, x = _model(family), _points(4)
    theirs = model.to_distribution().to_torch()
    theirs._validate_args = theirs._component_distribution._validate_args = False
    for point in x:
        mine = hessian(model.log_prob)(point)
        right = torch.autograd.functional.hessian(theirs.log_prob, point)
        torch.testing.assert_close(mine, right)
    alone = gmmedu.MODELS[family](1, 2, dtype=torch.float64)
    curvature = hessian(alone.log_prob)(x[0])
    torch.testing.assert_close(curvature, -torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
def test_curvature_in_the_parameters(family: str) -> None:
    model, x = _model(family), _points()
    family_of, numbers = model.family, _numbers(model)

    def nll(logits: Tensor, means: Tensor, raw_scale: Tensor) -> Tensor:
        scales = family_of.operator.from_raw(raw_scale)
        state = State(logits.log_softmax(-1), means, scales)
        return -mixture.log_density(family_of, state, x).mean()

    values = (numbers["logits"], numbers["means"], numbers["raw_scale"])
    for place in range(3):
        mine = hessian(nll, place)(*values)

        def moved(value: Tensor, place: int = place) -> Tensor:
            logits, means, raw_scale = (
                value if k == place else known for k, known in enumerate(values)
            )
            return nll(logits, means, raw_scale)

        right = torch.autograd.functional.hessian(moved, values[place])
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_one_by_one_are_a_batch(family: str) -> None:
    one, two, x = _model(family), _model(family), _points()
    with torch.no_grad():
        two.means.add_(1)
    states = [each(lambda part: part.detach(), m.state()) for m in (one, two)]
    batch = each(lambda *parts: torch.stack(parts), *states)

    def density(state: State) -> Tensor:
        return mixture.log_density(one.family, state, x)

    def step(state: State) -> State:
        return gmmedu.em_step(state, x, one.family)

    expected = torch.stack([one.log_prob(x), two.log_prob(x)])
    torch.testing.assert_close(vmap(density)(batch), expected)
    torch.testing.assert_close(density(batch), expected)
    # Tuples, since a state is one of tuples.
    stepped = vmap(step)(batch)
    each(torch.testing.assert_close, stepped, gmmedu.em_step(batch, x, one.family))


# torch.compile


@pytest.fixture
def fresh() -> Iterator[None]:
    """A compiler that has seen nothing yet, and leaves nothing."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend="eager")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_of_a_batch_compiles_to_one_graph(family: str) -> None:
    many = gmmedu.MODELS[family](
        2, 2, batch_shape=3, validate_args=False, dtype=torch.float64, generator=_generator()
    )
    compiled = _compiled(many.log_prob)
    for x in (_points(), torch.stack([_points() + m for m in range(3)]), _points()[None]):
        torch.testing.assert_close(compiled(x), many.log_prob(x))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_compiles_to_one_graph(family: str) -> None:
    model, x = _model(family, validate_args=False), _points()
    numbers = [p for p in model.parameters() if p.requires_grad]
    compiled = _compiled(model)(x)
    assert float(compiled.detach()) == pytest.approx(float(model(x).detach()))
    found = torch.autograd.grad(compiled, numbers)
    for mine, right in zip(found, torch.autograd.grad(model(x), numbers), strict=True):
        torch.testing.assert_close(mine, right)
    torch.testing.assert_close(_compiled(model.log_prob)(x[0]), model.log_prob(x[0]))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("method", ["responsibilities", "predict"])
def test_what_is_read_from_the_density_compiles(method: str) -> None:
    model, x = _model("full", validate_args=True), _points()
    function = getattr(model, method)
    torch.testing.assert_close(_compiled(function)(x), function(x))


# The compiler asks values that are captured whether they have gathered a gradient.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("family", ["full", "diagonal"])
def test_a_distribution_made_within_compiles(family: str) -> None:
    model, x = _model(family), _points()
    own = MixtureDistribution(model.state(), model.family, validate_args=False)
    torch.testing.assert_close(_compiled(own.log_prob)(x), own.log_prob(x))

    log_weights, _, scales = model.state()

    def loss(means: Tensor) -> Tensor:
        state = State(log_weights, means, scales)
        return MixtureDistribution(state, own.family, validate_args=False).log_prob(x)

    means = model.means.detach() + 1
    if torch.__version__.startswith("2.4."):
        # Its compiler takes no object that a frozen dataclass made, such as a family.
        with pytest.raises(torch._dynamo.exc.Unsupported, match="sourceless builder"):
            _compiled(loss)(means)
    else:
        torch.testing.assert_close(_compiled(loss)(means), loss(means))


# A step of EM with a gradient


def _weights(shape: tuple[int, ...]) -> Tensor:
    weights = torch.rand(shape, generator=_generator(), dtype=torch.float64)
    return weights * (weights > 0.1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [30, 9_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_on_values_is_the_fast_pass_and_its_m_step(
    family: str, size: int, weighted: bool
) -> None:
    # The larger size is counted by features that all components share.
    x = _points(size, num_dims=3)
    model = gmmedu.MODELS[family](4, 3, dtype=torch.float64)
    gmmedu.initialize(model, x, "points", generator=_generator())
    state = each(lambda part: part.detach(), model.state())
    weights = _weights((size,)) if weighted else None
    one = each(lambda part: part.unsqueeze(0), state)
    statistics = e_step(Points.of(x, weights), model.family, one)
    fast, _ = m_step(statistics, model.family, one)
    slow = gmmedu.em_step(state, x, model.family, weights)
    for mine, right in zip((*slow[:2], *slow[2]), (*fast[:2], *fast[2]), strict=True):
        torch.testing.assert_close(mine, right[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_a_batch_on_values(family: str) -> None:
    x = torch.stack([_points(12) + m for m in range(3)])
    weights = _weights((3, 12))
    many = gmmedu.MODELS[family](2, 2, batch_shape=3, dtype=torch.float64)
    gmmedu.initialize(many, x, "points", generator=_generator())
    state = each(lambda part: part.detach(), many.state())
    batch = gmmedu.em_step(state, x, many.family, weights)
    for m in range(3):
        one = each(lambda part, m=m: part[m], state)
        alone = gmmedu.em_step(one, x[m], many.family, weights[m])
        mine = each(lambda part, m=m: part[m], batch)
        each(torch.testing.assert_close, mine, alone)


def _step(
    family: Family,
    logits: Tensor,
    means: Tensor,
    raw_scale: Tensor,
    x: Tensor,
    weights: Tensor,
) -> tuple[Tensor, ...]:
    scales = family.operator.from_raw(raw_scale)
    state = State(logits.log_softmax(-1), means, scales)
    after = gmmedu.em_step(state, x, family, weights)
    return after.log_weights, after.means, mixture.covariances(family, after)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_a_step(family: str) -> None:
    model, x = _model(family), _points(8)
    numbers = _numbers(model)
    inputs = (
        numbers["logits"],
        numbers["means"],
        numbers["raw_scale"],
        x,
        torch.rand(8, generator=_generator(), dtype=torch.float64) + 0.1,
    )
    free = tuple(value.clone().requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(lambda *values: _step(model.family, *values), free)


# Modes and defaults of the process


def _all_of(model: GaussianMixture, x: Tensor) -> dict[str, Tensor]:
    """Everything that a model says, in the same order of random numbers."""
    gap = x[:6].clone()
    gap[0, 0] = torch.nan
    given = {0: 0.5}
    own = model.to_distribution()
    return {
        "nll": model(x),
        "log_prob": model.log_prob(x),
        "responsibilities": model.responsibilities(x),
        "missing": model.log_prob(gap, missing=True),
        "weights": model.weights,
        "covariances": model.covariances,
        "mean": model.mean,
        "covariance": model.covariance,
        "sample": model.sample(5, generator=_generator()),
        "marginal": model.marginal([1]).covariances,
        "condition": model.condition(given).means,
        "conditional covariance": model.condition(given).covariances,
        "imputed": gmmedu.impute(model, gap),
        "distribution": own.log_prob(x),
        "moved": own.rsample((5,), generator=_generator()),
        "drawn": own.sample((5,), generator=_generator()),
        "torch": own.to_torch().log_prob(x).detach(),
        "from torch": type(model).from_distribution(own).means,
        "step": gmmedu.em_step(model.state(), x, model.family).means,
        "bic": torch.tensor([model.bic(x), model.aic(x)], device="cpu"),
        "singular": torch.tensor(gmmedu.find_singular(model, x), device="cpu"),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_changes_no_number(family: str) -> None:
    model, x = _model(family, 3, torch.float32), _points(60, 3, torch.float32)
    plain = _all_of(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = _all_of(model, x)
    for name, value in plain.items():
        if name == "torch":
            continue
        assert cast[name].dtype == value.dtype, name
        assert torch.equal(cast[name], value), name


@pytest.mark.parametrize("method", ["box", "points", "kmeans", "kmeans++"])
def test_autocast_changes_no_start(method: str) -> None:
    x, models = _points(60, 3, torch.float32), []
    for mode in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        model = gmmedu.GmmFull(3, 3, dtype=torch.float32)
        with mode:
            gmmedu.initialize(model, x, method, generator=_generator())
        models.append(model)
    _same(*models)


@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_changes_no_fit(family: str, fitter: str) -> None:
    # Every second combination lacks values.
    missing = bool((FAMILIES.index(family) + list(FITTERS).index(fitter)) % 2)
    x, results = _points(60, 3, torch.float32), []
    if missing:
        x[::7, 1] = torch.nan
    for mode in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        model = _model(family, 3, torch.float32)
        with mode:
            fit = FITTERS[fitter](model, x, missing=missing)
        results.append((model, fit.nll))
    (one, nll), (other, cast) = results
    _same(one, other)
    assert nll == cast


@pytest.mark.parametrize("family", FAMILIES)
def test_another_default_device_changes_nothing(family: str) -> None:
    x = _points(60, 3)
    plain = _all_of(_model(family, 3), x)
    with torch.device("meta"):
        elsewhere = _all_of(_model(family, 3), x)
    for name, value in plain.items():
        assert torch.equal(elsewhere[name], value), name


@pytest.mark.parametrize(("size", "missing"), [(60, True), (10_500, False)])
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("mitigation", [gmmedu.Clamp(0.3), gmmedu.Reset(0.3)])
def test_fits_under_another_default_device(
    fitter: str, size: int, missing: bool, mitigation: Any
) -> None:
    x = _points(size)
    if missing:
        x[::7, 1] = torch.nan
    weights, results = _weights((size,)), []
    for mode in (nullcontext(), torch.device("meta")):
        model = _model("full")
        with mode:
            fit = FITTERS[fitter](
                model,
                x,
                missing=missing,
                sample_weight=weights,
                snapshot_every=2,
                mitigation=mitigation,
                generator=_generator(),
            )
        results.append((model, fit))
    _same(results[0][0], results[1][0])
    assert torch.equal(results[0][1].history, results[1][1].history)
    assert results[1][1].snapshots[-1].means.device.type == "cpu"


@pytest.mark.parametrize("method", ["box", "points", "kmeans", "kmeans++"])
def test_starts_batches_and_streams_under_another_default_device(method: str) -> None:
    x, results = _points(60), []
    for mode in (nullcontext(), torch.device("meta")):
        with mode:
            many = gmmedu.GmmFull(3, 2, batch_shape=2, dtype=torch.float64, device="cpu")
            gmmedu.initialize(many, x, method, generator=_generator())
            gmmedu.fit_em(many, list(x.split(25)), 3, 0.0)
            one = gmmedu.GmmTied(2, 2, dtype=torch.float64, device="cpu")
            gmmedu.fit_best(
                one,
                x,
                3,
                method=method,
                generator=_generator(),
                num_iterations=3,
                tolerance=0.0,
            )
        results.append((many, one))
    for first, second in zip(*results, strict=True):
        _same(first, second)


def test_what_selects_under_another_default_device() -> None:
    x, found = gmmedu.load_old_faithful(device="cpu"), []
    for mode in (nullcontext(), torch.device("meta")):
        with mode:
            options: Any = {"num_starts": 2, "generator": _generator()}
            choice = gmmedu.select(x, [1, 2], "full", "held_out", **options)
            test = gmmedu.bootstrap_lrt(x, "tied", 1, 3, **options)
            found.append((choice.table[1].held_out, test.statistic, test.samples.tolist()))
    assert found[0] == found[1]


def test_stepwise_under_another_default_device() -> None:
    x, found = _points(60), []
    for mode in (nullcontext(), torch.device("meta")):
        model = _model("full")
        with mode:
            gmmedu.fit_stepwise(model, list(x.split(20)))
        found.append(model)
    _same(*found)


def test_scikit_learn_and_data_under_another_default_device() -> None:
    model, x = _model("full"), _points()
    with torch.device("meta"):
        again = gmmedu.GmmFull.from_sklearn(model.to_sklearn())
        data = [gmmedu.load_crabs(device="cpu")]
        drawn = gmmedu.sample_mixture(5, 2, 2, generator=_generator(), device="cpu")
        assert gmmedu.load_galaxies().device.type == "meta"
    assert torch.equal(data[0], gmmedu.load_crabs())
    assert torch.equal(drawn.x, gmmedu.sample_mixture(5, 2, 2, generator=_generator()).x)
    torch.testing.assert_close(again.log_prob(x), model.log_prob(x))


def test_a_model_follows_the_default_device() -> None:
    with torch.device("meta"):
        model = gmmedu.GmmFull(2, 3)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    known = gmmedu.GmmFull(2, 3, generator=_generator())
    model.to_empty(device="cpu").load_state_dict(known.state_dict())
    _same(model, known)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_model_made_in_inference_mode(fitter: str, inside: bool) -> None:
    known = _model("full")
    FITTERS[fitter](known, _points())
    with torch.inference_mode():
        model, x = _model("full"), _points()
        if inside:
            FITTERS[fitter](model, x)
    if not inside:
        FITTERS[fitter](model, x)
    _same(model, known)
    assert all(p.requires_grad and not p.is_inference() for p in model.parameters())
    # It can be trained afterwards.
    model(_points()).backward()
    assert model.means.grad is not None and bool(model.means.grad.any())


@pytest.mark.parametrize("missing", [False, True])
def test_starts_and_parts_made_in_inference_mode(missing: bool) -> None:
    with torch.inference_mode():
        x = _points()
        if missing:
            x[2, 1] = torch.nan
        model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
        gmmedu.initialize(model, x, missing=missing, generator=_generator())
        made = [model.marginal([0]), model.condition({0: 1.0}), model]
        made.append(gmmedu.GmmFull(2, 2, batch_shape=2, dtype=torch.float64)[1])
        made.append(gmmedu.GmmFull.from_distribution(model.to_distribution()))
        gmmedu.fit_best(model, x, 2, missing=missing, generator=_generator())
    for one in made:
        gmmedu.initialize(one, _points(num_dims=one.num_dims), generator=_generator())
        gmmedu.fit_em(one, _points(num_dims=one.num_dims), 2, 0.0)
        assert not any(p.is_inference() for p in one.parameters())


def _process() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "gradient": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": torch.get_rng_state().sum().item(),
    }


MODES: dict[str, Callable[[], Any]] = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_callback_sees_the_process_as_it_is_outside(fitter: str, mode: str) -> None:
    model, x = _model("full"), _points()
    seen: list[Any] = []
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        with MODES[mode]():
            outside = _process()
            FITTERS[fitter](model, x, callback=lambda *_: seen.extend([_process()]))
            after = _process()
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    # The only seeds of a fit without a generator are those of Reset.
    assert after == outside and len(seen) == 5
    assert all(one == outside for one in seen)


@pytest.mark.parametrize("mode", ["plain", "no_grad", "inference", "autocast"])
def test_a_callback_can_use_the_model(mode: str) -> None:
    model, x, gaps = _model("full", dtype=torch.float32), _points(), []

    def callback(model: GaussianMixture, iteration: int, nll: float) -> None:
        gaps.append(abs(float(model(x).detach()) - nll))

    with MODES[mode]():
        gmmedu.fit_em(model, x, 4, 0.0, callback=callback)
    assert len(gaps) == 5 and max(gaps) < 1e-5

"""EM as a layer: its gradient beside finite differences of converged fits, beside the Hessian of
the likelihood and beside unrolled steps; where there is none; and what it keeps in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev
from torch.linalg import eigvals

import gmmedu
from gmmedu import MODELS, ConvergenceWarning, EMLayer, SingularityError, em_fixed_point, layer
from gmmedu.values import State, each, take

FAMILIES = list(MODELS)
#: Maximum likelihood, maximum a posteriori, and a floor that some direction stands on.
SETTINGS = [(0.0, 0.0), (5.0, 0.0), (0.0, 0.8)]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(num_points: int = 40, seed: int = 0) -> Tensor:
    """Two groups in the plane, not far apart."""
    x = torch.randn(num_points, 2, generator=_generator(seed), dtype=torch.float64)
    x = x @ torch.tensor([[1.0, 0.3], [0.0, 0.6]], dtype=torch.float64)
    x[: num_points * 3 // 8] += torch.tensor([4.0, 1.0])
    return x


def _model(family: str = "full", dtype: torch.dtype = torch.float64) -> Any:
    means = torch.tensor([[0.0, 0.0], [3.0, 1.0]], dtype=dtype)
    return MODELS[family](2, 2, init_means=means, dtype=dtype)


def _fitted(
    model: Any, x: Tensor, w: Tensor | None, numbers: tuple[Tensor, ...], **options: Any
) -> Tensor:
    """All outputs in a row: log weights, means, factors."""
    logits, means, raw_scale = numbers
    start = State(logits.log_softmax(-1), means, model.family.operator.from_raw(raw_scale))
    options = {"tolerance": 1e-13, "num_iterations": 5000, **options}
    state = em_fixed_point(start, x, model.family, w, **options)
    factor = model.family.operator.triangular(state.scales.factor, 2)
    return torch.cat([state.log_weights, state.means.flatten(), factor.flatten()])


def _numbers(model: Any) -> tuple[Tensor, ...]:
    return tuple(p.detach().clone() for p in (model.logits, model.means, model.raw_scale))


# The gradient


@pytest.mark.parametrize(("prior_points", "min_scale"), SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_refitted_points(
    family: str, prior_points: float, min_scale: float
) -> None:
    model, g = _model(family), _generator(1)
    options: dict[str, Any] = {"prior_points": prior_points, "min_scale": min_scale}
    w = torch.rand(40, generator=g, dtype=torch.float64) + 0.5
    inputs = [part.requires_grad_() for part in (_points(), w, *_numbers(model))]

    def fitted(inputs: list[Tensor], **more: Any) -> Tensor:
        x, w, *numbers = inputs
        return _fitted(model, x, w, tuple(numbers), **options, **more)

    outputs = fitted(inputs)
    chosen = torch.randn(outputs.shape, generator=g, dtype=torch.float64)
    ways = [torch.randn(part.shape, generator=g, dtype=torch.float64) for part in inputs]
    if not prior_points:
        # The fixed point depends on nothing of the start but a given variance.
        ways[2:4] = [torch.zeros_like(way) for way in ways[2:4]]
        if family != "constant":
            ways[4] = torch.zeros_like(ways[4])
    slopes = {}
    for gradient in ("implicit", "unrolled"):
        found = torch.autograd.grad(
            (fitted(inputs, gradient=gradient) * chosen).sum(), inputs, allow_unused=True
        )
        pairs = zip(found, ways, strict=True)
        slopes[gradient] = sum(float((a * b).sum()) for a, b in pairs if a is not None)
    with torch.no_grad():
        there, back = (
            fitted([part + sign * 1e-5 * way for part, way in zip(inputs, ways, strict=True)])
            for sign in (1, -1)
        )
        refitted = float(((there - back) * chosen).sum()) / 2e-5
    assert slopes["implicit"] == pytest.approx(refitted, rel=1e-6, abs=1e-8)
    assert slopes["unrolled"] == pytest.approx(slopes["implicit"], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("prior_points", [0.0, 5.0])
def test_the_gradient_is_the_hessians(prior_points: float) -> None:
    """-H^-1 times the mixed second derivative of the NLL, or of the posterior, on K - 1 logits."""
    model, x = _model("diagonal"), _points()
    start = each(torch.Tensor.detach, model.state())
    family, points = model.family, x.clone().requires_grad_()
    found = em_fixed_point(
        start, points, family, prior_points=prior_points, min_scale=0, tolerance=1e-14
    )
    slopes = torch.autograd.grad(found.means[0, 0], points)[0]

    def objective(numbers: Tensor, x: Tensor) -> Tensor:
        logits = torch.cat([numbers[:1], numbers.new_zeros(1)])
        means, scale = numbers[1:5].reshape(2, 2), numbers[5:].reshape(2, 2)
        normal = torch.distributions.Normal(means, scale.exp())
        joint = logits.log_softmax(0) + normal.log_prob(x[:, None]).sum(-1)
        value = -joint.logsumexp(1).sum()
        if prior_points:
            # The prior is prior_points times a divergence of the start from the fit.
            weights = start.log_weights.exp()
            old = torch.distributions.Normal(start.means, start.scales.factor)
            gap = start.log_weights - logits.log_softmax(0)
            apart = torch.distributions.kl_divergence(old, normal).sum(-1)
            value = value + prior_points * (weights * (gap + apart)).sum()
        return value

    log_weights, means, scales = each(torch.Tensor.detach, found)
    here = [log_weights[:1] - log_weights[1], means.flatten(), scales.factor.log().flatten()]
    numbers = torch.cat(here)
    gradient = jacrev(objective)(numbers, x)
    assert float(gradient.abs().max()) < 1e-10
    mixed = jacrev(jacrev(objective), argnums=1)(numbers, x)
    moved = -torch.linalg.solve(hessian(objective)(numbers, x), mixed.flatten(1))
    torch.testing.assert_close(slopes.flatten(), moved[1], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("family", ["full", "constant"])
def test_iteration_solves_what_elimination_solves(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = _model(family), _points().requires_grad_()
    found = []
    for largest in (512, 0):
        monkeypatch.setattr(layer, "LARGEST_DIRECT", largest)
        outputs = _fitted(model, x, None, _numbers(model))
        found.append(torch.autograd.grad(outputs.square().sum(), x)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_a_large_mixture_goes_by_iteration() -> None:
    """Ten groups in ten dimensions: 660 numbers, and a direction beside its refits."""
    g = _generator()
    means = 4 * torch.randn(10, 10, generator=g, dtype=torch.float64)
    x = means.repeat(30, 1) + torch.randn(300, 10, generator=g, dtype=torch.float64)
    model = MODELS["full"](10, 10, init_means=means, dtype=torch.float64)
    start, way = (
        each(torch.Tensor.detach, model.state()),
        torch.randn(x.shape, generator=g, dtype=x.dtype),
    )
    options: dict[str, Any] = {"prior_points": 20.0, "tolerance": 1e-13}
    assert model.family.flatten(each(lambda p: p[None], start)).shape[1] > layer.LARGEST_DIRECT

    def output(x: Tensor) -> Tensor:
        return em_fixed_point(start, x, model.family, **options).means.square().sum()

    slope = torch.autograd.grad(output(x.requires_grad_()), x)[0]
    with torch.no_grad():
        refitted = (output(x + 1e-5 * way) - output(x - 1e-5 * way)) / 2e-5
    assert float((slope * way).sum()) == pytest.approx(float(refitted), rel=1e-6)


def test_one_step_is_the_first_term_of_the_series() -> None:
    """At the fixed point, T unrolled steps give the first T terms; one step one of them."""
    model, x = _model("diagonal"), _points().requires_grad_()
    start = each(torch.Tensor.detach, model.state())
    options: dict[str, Any] = {"min_scale": 0, "tolerance": 1e-14}
    fixed = em_fixed_point(start, x.detach(), model.family, **options)
    lift = each(lambda part: part[None], fixed)
    step = layer.Step(model.family, lift, x.detach()[None], None, 0.0, 0.0)
    matrix = layer.jacobian(step, step.numbers(lift))[0]

    def slope(**more: Any) -> Tensor:
        state = em_fixed_point(fixed, x, model.family, **{**options, **more})
        rows = model.family.flatten(each(lambda part: part[None], state))[0]
        return torch.stack([torch.autograd.grad(r, x, retain_graph=True)[0] for r in rows])

    one = slope(gradient="one_step").flatten(1)
    partial = torch.zeros_like(one)
    for _ in range(4):
        partial = one + matrix @ partial
    # With the tolerance below what a float can tell, each of the four steps is made.
    unrolled = step.numbers(lift)
    points = layer.Step(model.family, lift, x[None], None, 0.0, 0.0)
    for _ in range(4):
        unrolled = points(unrolled)
    rows = [torch.autograd.grad(r, x, retain_graph=True)[0].flatten() for r in unrolled[0]]
    torch.testing.assert_close(torch.stack(rows), partial, rtol=1e-8, atol=1e-11)
    whole = torch.linalg.solve(torch.eye(len(matrix)).to(matrix) - matrix, one)
    torch.testing.assert_close(slope().flatten(1), whole, rtol=1e-8, atol=1e-11)


def test_the_rate_of_em_is_the_largest_eigenvalue() -> None:
    model, x = _model("tied"), _points()
    start = each(torch.Tensor.detach, model.state())
    fixed = em_fixed_point(start, x, model.family, min_scale=0, tolerance=1e-15)
    lift = each(lambda part: part[None], fixed)
    step = layer.Step(model.family, lift, x[None], None, 0.0, 0.0)
    values = eigvals(layer.jacobian(step, step.numbers(lift)))[0]
    assert float(values.imag.abs().max()) < 1e-7 and float(values.real.min()) > -1e-9
    numbers, gaps = step.numbers(each(lambda part: part[None], start)), []
    for _ in range(30):
        numbers = step(numbers).detach()
        gaps.append(float((numbers - step.numbers(lift)).norm()))
    assert gaps[29] / gaps[28] == pytest.approx(float(values.real.max()), rel=1e-3)


def test_torch_func_goes_through() -> None:
    model, x = _model("isotropic"), _points(12)
    numbers = _numbers(model)
    rows = jacrev(lambda x: _fitted(model, x, None, numbers))(x)
    x.requires_grad_()
    outputs = _fitted(model, x, None, numbers)
    for output, row in zip(outputs[:6], rows[:6], strict=True):
        found = torch.autograd.grad(output, x, retain_graph=True)[0]
        torch.testing.assert_close(row, found)


def test_a_second_derivative_is_refused() -> None:
    """Where steps are unrolled it is right: beside a difference of the first."""
    model, x = _model("isotropic"), _points(12)

    def slope(gradient: layer.Gradient, x: Tensor) -> Tensor:
        options: dict[str, Any] = {"tolerance": 1e-12, "gradient": gradient}
        state = em_fixed_point(model.state(), x, model.family, **options)
        found: Tensor = torch.autograd.grad(state.means[0, 0], x, create_graph=True)[0][0, 0]
        return found

    x.requires_grad_()
    first = slope("implicit", x)
    torch.testing.assert_close(first, slope("unrolled", x), rtol=1e-6, atol=0)
    with pytest.raises(RuntimeError, match="unrolled"):
        torch.autograd.grad(first, x)
    second = torch.autograd.grad(slope("unrolled", x), x)[0][0, 0]
    way = torch.zeros_like(x)
    way[0, 0] = 1e-4
    moved = [slope("unrolled", (x + sign * way).detach().requires_grad_()) for sign in (1, -1)]
    torch.testing.assert_close(second, (moved[0] - moved[1]).detach() / 2e-4, rtol=1e-4, atol=0)


def test_the_series_ends_for_each_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a large gradient and a fast rate hides none with a small one and a slow rate."""
    monkeypatch.setattr(layer, "LARGEST_DIRECT", 0)
    noise = torch.randn(400, 1, generator=_generator(), dtype=torch.float64)
    side = torch.sign(torch.arange(400) - 199.5)[:, None]
    x = torch.stack([noise + 20 * side, noise + 1.5 * side]).requires_grad_()
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    model = MODELS["diagonal"](2, 1, init_means=means, dtype=torch.float64)
    em = EMLayer(model, num_iterations=20_000, tolerance=1e-13)
    out = em(x).component_means[:, 0, 0]
    both = torch.autograd.grad(1e12 * out[0] + out[1], x)[0][1]
    alone = torch.autograd.grad(em(x[1]).component_means[0, 0], x)[0][1]
    torch.testing.assert_close(both, alone, rtol=1e-9, atol=1e-12)


# Where there is none


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_components_have_no_gradient(family: str) -> None:
    """EM cannot part them, and its Jacobian has the eigenvalue 1, or above; a prior that keeps
    them apart mends it."""
    x = _points().requires_grad_()
    model = MODELS[family](2, 2, init_means=torch.zeros(2, 2), dtype=torch.float64)
    with pytest.raises(RuntimeError, match="has no gradient"):
        EMLayer(model)(x)
    # Unrolled steps have one, the same for both components.
    means = EMLayer(model, gradient="unrolled", num_iterations=20)(x).component_means
    first, second = (torch.autograd.grad(m.sum(), x, retain_graph=True)[0] for m in means)
    torch.testing.assert_close(first, second)
    with torch.no_grad():
        model.means[1] += 3
    means = EMLayer(model, prior_points=4.0)(x).component_means
    assert bool(torch.autograd.grad(means.sum(), x)[0].isfinite().all())


def test_series_that_does_not_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "LARGEST_DIRECT", 0)
    model = MODELS["full"](2, 2, init_means=torch.zeros(2, 2), dtype=torch.float64)
    x = _points().requires_grad_()
    with pytest.raises(RuntimeError, match="did not converge in 200 terms"):
        EMLayer(model, num_iterations=200)(x).component_means[0, 0].backward()


def test_a_collapse_and_what_stops_it() -> None:
    """A component on two equal points: without a floor it shrinks away; on the floor its scale
    has no gradient; a prior gives it one."""
    x = torch.cat([_points(20), torch.tensor([[30.0, 30.0], [30.0, 30.0]])]).double()
    means = torch.tensor([[0.0, 0.0], [30.0, 30.0]], dtype=torch.float64)
    model = MODELS["diagonal"](2, 2, init_means=means, dtype=torch.float64)

    def fitted(**options: Any) -> tuple[State, Tensor]:
        points = x.clone().requires_grad_()
        state = em_fixed_point(model.state(), points, model.family, **options)
        return state, torch.autograd.grad(state.scales.factor[1].sum(), points)[0]

    with pytest.raises(SingularityError, match="collapsed"):
        fitted(min_scale=0)
    state, slope = fitted(min_scale=0.1)
    torch.testing.assert_close(state.scales.factor[1], torch.full((2,), 0.1).double())
    assert float(slope.abs().max()) == 0
    state, slope = fitted(min_scale=0, prior_points=2.0)
    # One pseudo-point with variance 1, beside two points that do not vary.
    torch.testing.assert_close(state.scales.factor[1].square(), torch.full((2,), 1 / 3).double())
    apart = x.clone()
    apart[-1, 0] += 1e-3
    moved = em_fixed_point(model.state(), apart, model.family, min_scale=0, prior_points=2.0)
    change = float((moved.scales.factor[1] - state.scales.factor[1]).sum().detach())
    assert float(slope[-1, 0]) == pytest.approx(change / 1e-3, abs=1e-3)


@pytest.mark.parametrize("family", ["full", "tied"])
@pytest.mark.parametrize("apart", [0.0, 1e-3, 0.2])
def test_the_floor_has_a_gradient_in_any_direction(family: str, apart: float) -> None:
    """Two points at one place, or nearly: eigenvalues that meet, below the floor or above it."""
    x = torch.cat([_points(20), torch.tensor([[30.0, 30.0], [30.0 + apart, 30.0]])]).double()
    means = torch.tensor([[0.0, 0.0], [30.0, 30.0]], dtype=torch.float64)
    model, g = MODELS[family](2, 2, init_means=means, dtype=torch.float64), _generator(2)
    way = torch.randn(x.shape, generator=g, dtype=torch.float64)

    def output(x: Tensor) -> Tensor:
        state = em_fixed_point(model.state(), x, model.family, min_scale=0.6, tolerance=1e-13)
        return state.scales.factor.square().sum() + state.means.sum()

    slope = torch.autograd.grad(output(x.requires_grad_()), x)[0]
    with torch.no_grad():
        refitted = (output(x + 1e-5 * way) - output(x - 1e-5 * way)) / 2e-5
    assert float((slope * way).sum()) == pytest.approx(float(refitted), rel=1e-6, abs=1e-8)


def test_a_fit_that_has_not_converged_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="after 3 iterations"):
        EMLayer(_model(), num_iterations=3)(_points())


# Sets, batches, and the module


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_its_members(family: str) -> None:
    model = _model(family)
    x = torch.stack([_points(seed=s) for s in range(3)])[None].requires_grad_()
    w = torch.rand(1, 3, 40, generator=_generator(), dtype=torch.float64)
    options: dict[str, Any] = {"prior_points": 2.0, "tolerance": 1e-13}
    together = EMLayer(model, **options)(x, w)
    assert together.batch_shape == (1, 3)
    found = torch.autograd.grad(together.component_means.square().sum(), x)[0]
    for s in range(3):
        own = x[0, s].detach().requires_grad_()
        alone = EMLayer(model, **options)(own, w[0, s])
        torch.testing.assert_close(together.component_means[0, s], alone.component_means)
        torch.testing.assert_close(together.weights[0, s], alone.weights)
        slope = torch.autograd.grad(alone.component_means.square().sum(), own)[0]
        torch.testing.assert_close(found[0, s], slope)


def test_starts_of_a_batch_on_points_they_share() -> None:
    many = MODELS["diagonal"](2, 2, batch_shape=3, dtype=torch.float64, generator=_generator())
    x = _points()
    together = EMLayer(many, prior_points=8.0, tolerance=1e-13)(x)
    assert together.batch_shape == (3,)
    state = each(torch.Tensor.detach, many.state())
    for m in range(3):
        alone = EMLayer(many[m], prior_points=8.0, tolerance=1e-13)(x)
        torch.testing.assert_close(together.component_means[m], alone.component_means)
        given = take(state, torch.tensor(m))
        other = EMLayer(many[0], prior_points=8.0, tolerance=1e-13)(x, start=given)
        torch.testing.assert_close(other.weights, alone.weights)


def test_many_weights_of_the_same_points() -> None:
    """Each point left out in turn: a batch, though the points and the start are none."""
    model, x = _model(), _points()
    together = EMLayer(model, tolerance=1e-13)(x, 1 - torch.eye(40, dtype=torch.float64))
    assert together.batch_shape == (40,)
    for n in (0, 39):
        alone = EMLayer(model, tolerance=1e-13)(torch.cat([x[:n], x[n + 1 :]]))
        torch.testing.assert_close(together.component_means[n], alone.component_means)


def test_the_fit_is_that_of_fit_em() -> None:
    x, w = _points(), torch.rand(40, generator=_generator(), dtype=torch.float64) + 0.1
    model = _model()
    found = EMLayer(model)(x, w)
    gmmedu.fit_em(model, x, 5000, 0, sample_weight=w)
    torch.testing.assert_close(found.component_means, model.means.detach(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.component_covariances, model.covariances.detach())


def test_the_prior_counts_as_points_of_the_start() -> None:
    """As weights on many points drawn from components of the start that lie far apart."""
    means = torch.tensor([[-50.0, 0.0], [50.0, 0.0]], dtype=torch.float64)
    model = MODELS["full"](2, 2, init_means=means, dtype=torch.float64)
    model.set_parameters(weights=torch.tensor([0.3, 0.7]))
    x = torch.cat([_points(10) - torch.tensor([49.0, 0.0]), _points(14) + 48.0 * means[1] / 50])
    # Four points with the mean and the covariance of a standard normal.
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    pseudo = torch.cat([corners + means[0], corners + means[1]])
    w = torch.cat([torch.ones(24), torch.full((4,), 0.3 * 6 / 4), torch.full((4,), 0.7 * 6 / 4)])
    found = EMLayer(model, prior_points=6.0)(x)
    expected = EMLayer(model)(torch.cat([x, pseudo]), w.double())
    torch.testing.assert_close(found.weights, expected.weights)
    torch.testing.assert_close(found.component_means, expected.component_means)
    torch.testing.assert_close(found.component_covariances, expected.component_covariances)


def test_parameters_are_learned_through_the_prior() -> None:
    """Descent on the prior brings the fit to a target; the state dict is the model's."""
    torch.manual_seed(0)
    em, x = EMLayer(_model("diagonal"), prior_points=20.0), _points()
    assert set(em.state_dict()) == {"start.logits", "start.means", "start.raw_scale"}
    target = torch.tensor([[0.5, 0.5], [4.5, 0.5]], dtype=torch.float64)
    optimizer = torch.optim.Adam(em.parameters(), 0.3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = (em(x).component_means - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_float32_agrees_with_float64() -> None:
    slopes = []
    for dtype in (torch.float64, torch.float32):
        x = _points().to(dtype).requires_grad_()
        mixture = EMLayer(_model(dtype=dtype))(x)
        assert mixture.component_means.dtype == dtype
        slopes.append(torch.autograd.grad(mixture.component_means.square().sum(), x)[0])
    torch.testing.assert_close(slopes[1].double(), slopes[0], rtol=1e-2, atol=1e-3)


def _kept(gradient: Any, num_iterations: int) -> int:
    """The numbers that autograd saves for the way back."""
    saved = 0

    def pack(part: Tensor) -> Tensor:
        nonlocal saved
        saved += part.numel()
        return part

    em = EMLayer(_model(), gradient=gradient, num_iterations=num_iterations, tolerance=0)
    x = _points().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
        em(x)
    return saved


@pytest.mark.filterwarnings("ignore::gmmedu.ConvergenceWarning")
def test_memory_is_flat_in_the_number_of_iterations() -> None:
    assert _kept("implicit", 5) == _kept("implicit", 20) < 2 * _kept("unrolled", 1)
    one = _kept("unrolled", 6) - _kept("unrolled", 5)
    assert _kept("unrolled", 20) - _kept("unrolled", 5) == 15 * one > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(5, 3)}, "must have shape"),
        ({"x": torch.full((5, 2), torch.nan)}, "must be finite"),
        ({"weights": torch.full((40,), -1.0)}, "must not be negative"),
        ({"weights": torch.ones(3)}, "sample_weight must have shape"),
        ({"gradient": "exact"}, "gradient must be"),
        ({"prior_points": -1.0}, "prior_points"),
        ({"min_scale": -1.0}, "min_scale"),
        ({"num_iterations": 0}, "num_iterations"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    model = _model()
    given: dict[str, Any] = {"x": _points(), "weights": None, **change}
    x, weights = given.pop("x"), given.pop("weights")
    with pytest.raises((ValueError, TypeError), match=message):
        em_fixed_point(model.state(), x, model.family, weights, **given)


def test_batches_that_do_not_fit_are_named() -> None:
    many = MODELS["full"](2, 2, batch_shape=3, dtype=torch.float64)
    with pytest.raises(ValueError, match="do not broadcast"):
        EMLayer(many)(_points().expand(2, 40, 2))

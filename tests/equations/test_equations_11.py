"""Checks of the equations of chapter 11, at scale."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Array, Mixture
from scipy import integrate, special, stats
from torch import Tensor

import gmmedu
from equations.proof import Compare, verifies
from gmmedu import GmmFull, fit_stepwise
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step
from gmmedu.stepwise import moved, own
from gmmedu.values import Points, State, Statistics, add, each

FLOAT64 = torch.float64
FAMILIES = list(gmmedu.MODELS)


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=FLOAT64)


def drawn(size: int, seed: int = 0) -> Array:
    return reference.draw(reference.random_mixture("full", 3, 2), size, seed)


def model_of(mixture: Mixture, family: str = "full") -> GaussianMixture:
    model = gmmedu.MODELS[family](*mixture.means.shape, dtype=FLOAT64)
    return model.set_parameters(**mixture.tensors())


def mixture_of(model: GaussianMixture) -> Mixture:
    names = ("weights", "means", "covariances")
    return Mixture(*(getattr(model, name).detach().numpy().copy() for name in names))


def raw_sums(mixture: Mixture, x: Array) -> list[Array]:
    """Sums of r, r x and r x x^T, point by point."""
    r = reference.responsibilities(mixture, x)
    rows = list(zip(r, x, strict=True))
    return [
        sum(r_n for r_n, _ in rows),
        sum(np.outer(r_n, x_n) for r_n, x_n in rows),
        sum(r_n[:, None, None] * np.outer(x_n, x_n) for r_n, x_n in rows),
    ]


def unwhitened(statistics: Statistics, state: State) -> list[Array]:
    """The sums of the full family in coordinates of the data."""
    counts, first, second = (part.numpy() for part in statistics[1:])
    means, factor = state.means.detach().numpy(), state.scales.factor.detach().numpy()
    first = np.einsum("kij,kj->ki", factor, first)
    second = factor @ second @ factor.transpose(0, 2, 1)
    cross = first[:, :, None] * means[:, None]
    outer = means[:, :, None] * means[:, None]
    second = second + cross + cross.transpose(0, 2, 1) + counts[:, None, None] * outer
    return [counts, first + counts[:, None] * means, second]


@verifies("eq-statistics-add")
def test_sums_over_parts_add_up_to_those_of_the_whole(compare: Compare) -> None:
    """Two parts counted in whitened coordinates; the whole point by point."""
    mixture, x = reference.random_mixture("full", 3, 2), drawn(40)
    model = model_of(mixture)
    state = model.state()
    parts = [e_step(Points.of(tensor(p)), model.family, state) for p in (x[:7], x[7:])]
    total = add(*parts)
    for found, expected in zip(unwhitened(total, state), raw_sums(mixture, x), strict=True):
        compare(found, expected, 1e-11)
    for whole, one, other in zip(
        raw_sums(mixture, x), raw_sums(mixture, x[:7]), raw_sums(mixture, x[7:]), strict=True
    ):
        compare(one + other, whole, 1e-12)


def maximized(s: list[Array]) -> Mixture:
    means = s[1] / s[0][:, None]
    about = s[2] / s[0][:, None, None] - means[:, :, None] * means[:, None]
    return Mixture(s[0] / s[0].sum(), means, about)


def unrolled_weights(size: int, alpha: float, offset: float) -> tuple[Array, float]:
    """What (11.5) says of each batch, and what is left of the start."""
    eta = [(t + offset) ** -alpha for t in range(1, size + 1)]
    weights = [eta[i] * math.prod(1 - later for later in eta[i + 1 :]) for i in range(size)]
    return np.array(weights), math.prod(1 - each for each in eta)


@verifies("eq-stepwise", "eq-forgetting")
@pytest.mark.parametrize(("alpha", "offset"), [(0.6, 2.0), (1.0, 0.0), (0.8, 5.0)])
def test_the_last_state_is_the_m_step_of_weighted_batches(
    alpha: float, offset: float, compare: Compare
) -> None:
    """Each batch counted by scipy at the state that it met, all weighted at the end at once."""
    x, start = drawn(1200), reference.random_mixture("full", 3, 2, 3)
    model, met = model_of(start), [start]

    def note(model: GaussianMixture, step: int, nll: float) -> None:
        met.append(mixture_of(model))

    batches = np.split(x, 12)
    fit_stepwise(
        model,
        [tensor(b) for b in batches],
        exponent=alpha,
        offset=offset,
        average=None,
        mitigation=None,
        callback=note,
    )
    weights, left = unrolled_weights(12, alpha, offset)
    compare(weights.sum() + left, 1.0, 1e-13)
    first = start.covariances + start.means[:, :, None] * start.means[:, None]
    own_sums = [
        start.weights,
        start.weights[:, None] * start.means,
        start.weights[:, None, None] * first,
    ]
    s = [left * part for part in own_sums]
    for weight, mixture, batch in zip(weights, met, batches, strict=False):
        parts = raw_sums(mixture, batch)
        s = [old + weight * new / len(batch) for old, new in zip(s, parts, strict=True)]
    for found, expected in zip(mixture_of(model), maximized(s), strict=True):
        compare(found, expected, 1e-10)


@verifies("eq-step-size")
@pytest.mark.parametrize(("alpha", "offset"), [(0.55, 0.0), (0.6, 2.0), (1.0, 7.0)])
def test_the_step_is_the_share_by_which_a_lone_mean_moves(
    alpha: float, offset: float, compare: Compare
) -> None:
    """One Gaussian's mean after each batch gives the step; its squares sum to Hurwitz's zeta."""
    model = GmmFull(1, 1, dtype=FLOAT64)
    means = [float(model.means.detach())]

    def note(model: GaussianMixture, step: int, nll: float) -> None:
        means.append(float(model.means.detach()))

    places = [float(t % 7) + 1 for t in range(60)]
    batches = [torch.tensor([[p - 0.5], [p + 0.5]], dtype=FLOAT64) for p in places]
    fit_stepwise(model, batches, exponent=alpha, offset=offset, average=None, callback=note)
    old, new = np.array(means[:-1]), np.array(means[1:])
    steps = (new - old) / (np.array(places) - old)
    compare(steps, np.exp(-alpha * np.log(np.arange(1, 61) + offset)), 1e-10)
    rest = special.zeta(2 * alpha, 61 + offset)
    compare((steps**2).sum() + rest, special.zeta(2 * alpha, 1 + offset), 1e-9)


@verifies("eq-own-statistics")
@pytest.mark.parametrize("family", FAMILIES)
def test_own_statistics_are_means_over_the_mixture_itself(family: str, compare: Compare) -> None:
    """In one dimension by quadrature; and the reference's M-step of them is the mixture."""
    line = reference.random_mixture(family, 3, 1, 2)

    def mean_of(k: int, power: int) -> float:
        def inside(x: float) -> float:
            joint = line.weights * stats.norm.pdf(
                x, line.means[:, 0], np.sqrt(line.covariances[:, 0, 0])
            )
            return float(joint[k] / joint.sum() * x**power * joint.sum())

        return float(integrate.quad(inside, -30, 30, limit=300)[0])

    alone = model_of(line, family).state()
    batch = each(lambda part: part.detach().unsqueeze(0), alone)
    counts, first, second = (part[0] for part in own(batch, gmmedu.MODELS[family].family)[1:])
    compare(counts.detach(), [mean_of(k, 0) for k in range(3)], 1e-9)
    compare(first.detach(), np.zeros((3, 1)), 1e-15)
    raw_first = [mean_of(k, 1) for k in range(3)]
    raw_second = np.array([mean_of(k, 2) for k in range(3)])
    compare(line.weights * line.means[:, 0], raw_first, 1e-9)
    variances = line.covariances[:, 0, 0]
    compare(line.weights * (variances + line.means[:, 0] ** 2), raw_second, 1e-8)
    total = (raw_second - line.weights * line.means[:, 0] ** 2) / variances
    expected = [total.sum()] if family in reference.SHARED else total
    compare(second.detach().flatten(), expected, 1e-8)


@verifies("eq-averaged-statistics")
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_average_is_the_m_step_of_all_steps_weighted(power: float, compare: Compare) -> None:
    """The statistics of every step rebuilt from the unrolled weights, then averaged at once."""
    x, start = drawn(600), reference.random_mixture("full", 3, 2, 3)
    model, last, met = model_of(start), model_of(start), [start]
    batches = np.split(x, 6)
    given = [tensor(b) for b in batches]

    def note(model: GaussianMixture, step: int, nll: float) -> None:
        met.append(mixture_of(model))

    fit_stepwise(last, given, average=None, mitigation=None, callback=note)
    fit_stepwise(model, given, average=power, mitigation=None)
    first = start.covariances + start.means[:, :, None] * start.means[:, None]
    counted = [raw_sums(m, b) for m, b in zip(met, batches, strict=False)]
    shares = np.arange(1, 7.0) ** power
    average: list[Any] = [0.0, 0.0, 0.0]
    for t, share in enumerate(shares / shares.sum(), 1):
        weights, left = unrolled_weights(t, 0.6, 2.0)
        s: list[Any] = [
            left * start.weights,
            left * start.weights[:, None] * start.means,
            left * start.weights[:, None, None] * first,
        ]
        for weight, parts in zip(weights, counted, strict=False):
            s = [old + weight * new / 100 for old, new in zip(s, parts, strict=True)]
        average = [a + share * b for a, b in zip(average, s, strict=True)]
    for found, expected in zip(mixture_of(model), maximized(average), strict=True):
        compare(found, expected, 1e-10)


@verifies("eq-average-variance", "eq-last-variance")
@pytest.mark.parametrize("m", [0, 1])
def test_variances_of_the_average_and_of_the_last_step(m: int, compare: Compare) -> None:
    """The linear recursion's exact covariances, step by step, for two matrices that do not
    commute; long streams come to the formulas."""
    information = np.array([[1.0, 0.4], [0.4, 0.8]])
    complete = np.array([[1.6, 0.2], [0.2, 2.5]])
    rate = np.linalg.solve(complete, information)
    noise = np.linalg.solve(complete, np.linalg.solve(complete, information).T)
    last, average, cross = np.zeros((3, 2, 2))
    num_steps, alpha = 60_000, 0.55
    for t in range(1, num_steps + 1):
        eta, share = t**-alpha, (m + 1) / (t + m)
        step = np.eye(2) - eta * rate
        # Of error and average: first the error moves, then the average toward it.
        last = step @ last @ step.T + eta**2 * noise
        cross = cross @ step.T
        average = (
            (1 - share) ** 2 * average + share * (1 - share) * (cross + cross.T) + share**2 * last
        )
        cross = (1 - share) * cross + share * last
    unit = np.linalg.inv(information) / num_steps
    factor = (m + 1) ** 2 / (2 * m + 1)
    compare(average / unit, factor * np.ones((2, 2)), 0.04)
    compare(last * num_steps**alpha * 2, np.linalg.inv(complete), 0.01)


@verifies("eq-moved-statistics")
def test_moments_move_by_an_affine_map(compare: Compare) -> None:
    """Weighted sums of residuals whitened at two states, each written out over the points."""
    x, rng = drawn(30), np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), 30)
    states = [model_of(reference.random_mixture("full", 3, 2, seed)).state() for seed in (4, 5)]

    def counted(state: State) -> Statistics:
        whitening, means = (p.detach().numpy() for p in (state.scales.whitening, state.means))
        y = np.einsum("kij,nkj->nki", whitening, x[:, None] - means)
        first = np.einsum("nk,nki->ki", shares, y)
        second = np.einsum("nk,nki,nkj->kij", shares, y, y)
        numbers = (np.zeros(()), shares.sum(0), first, second)
        return Statistics(*(torch.from_numpy(np.asarray(part)[None]) for part in numbers))

    one, two = (each(lambda part: part.detach().unsqueeze(0), state) for state in states)
    with torch.no_grad():
        found = moved(counted(states[0]), one, two, GmmFull.family)
    for part, expected in zip(found, counted(states[1]), strict=True):
        compare(part, expected, 1e-11)


@verifies("eq-pass-time")
@pytest.mark.parametrize("num_dims", [1, 3, 7])
def test_what_a_pass_computes_and_sends(num_dims: int, compare: Compare) -> None:
    """Features counted one by one as monomials, and the numbers of a message as they are sent."""
    monomials = {tuple(sorted(pair)) for pair in product(range(num_dims + 1), repeat=2)}
    compare(GmmFull.family.num_features(num_dims), len(monomials), 0)
    model = GmmFull(4, num_dims, dtype=FLOAT64)
    x = torch.randn(9, num_dims, generator=torch.Generator().manual_seed(0), dtype=FLOAT64)
    statistics = e_step(Points.of(x), model.family, model.state())
    sent = sum(part.numel() for part in statistics[1:])
    compare(sent, 4 * (1 + num_dims + num_dims**2), 0)

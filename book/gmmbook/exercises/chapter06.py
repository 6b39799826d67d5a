"""Exercises of chapter 06, expectation-maximization."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value

# The step by hand: share of the near point, whose log odds are 2.
_NEAR = 1 / (1 + math.exp(-2.0))
_HISTORY = (2.000, 1.900, 1.820)


def _limit(history: tuple[float, float, float]) -> float:
    first, second = history[0] - history[1], history[1] - history[2]
    rate = second / first
    return history[2] - second * rate / (1 - rate)


def _elbo(a: Tensor, tau: Tensor) -> Tensor:
    return (tau * a - torch.xlogy(tau, tau)).sum()


def _elbo_with_nan(a: Tensor, tau: Tensor) -> Tensor:
    return (tau * (a - tau.log())).sum()


def _elbo_plus(a: Tensor, tau: Tensor) -> Tensor:
    return (tau * a + torch.xlogy(tau, tau)).sum()


def _surrogate(a: Tensor, tau: Tensor) -> Tensor:
    return (tau * a).sum()


def _mean_elbo(a: Tensor, tau: Tensor) -> Tensor:
    return _elbo(a, tau) / len(a)


def _log_likelihood(a: Tensor, tau: Tensor) -> Tensor:
    return a.logsumexp(1).sum()


def _step(
    x: Tensor,
    w: Tensor,
    weights: Tensor,
    means: Tensor,
    sds: Tensor,
    *,
    powers: float = 1,
    divisor: str = "sum",
    old_means: bool = False,
    with_weights: bool = True,
    variances: bool = False,
    inside: bool = False,
) -> Tensor:
    z = (x[:, None] - means) / sds
    a = -0.5 * z.square() - sds.log()
    if with_weights:
        a = a + weights.log()
    if inside:
        a = a + w[:, None].log()
    shares = w[:, None] ** powers * a.softmax(1)
    counts = shares.sum(0)
    total = w.sum() if divisor == "sum" else torch.tensor(float(len(x)))
    new = x @ shares / counts
    about = means if old_means else new
    spread = (shares * (x[:, None] - about).square()).sum(0) / counts
    return torch.stack([counts / total, new, spread if variances else spread.sqrt()])


def _weighted_step(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, w, weights, means, sds)


def _unweighted(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, torch.ones_like(w), weights, means, sds)


def _over_n(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, w, weights, means, sds, divisor="n")


def _squared_weights(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, w**2, weights, means, sds)


def _about_old_means(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, w, weights, means, sds, old_means=True)


def _without_priors(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, w, weights, means, sds, with_weights=False)


def _returns_variances(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step(x, w, weights, means, sds, variances=True)


def _weights_in_the_odds(
    x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor
) -> Tensor:
    return _step(x, w, weights, means, sds, powers=0, inside=True)


def _parts(mu: Tensor, sigma: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """The residual with conditional means filled in (D,), and the conditional covariance."""
    seen = ~row.isnan()
    hidden = ~seen
    within = sigma[seen][:, seen]
    slopes = torch.linalg.solve(within, sigma[seen][:, hidden]).mT
    filled = row - mu
    filled[hidden] = slopes @ filled[seen]
    spread = torch.zeros_like(sigma)
    corner = sigma[hidden][:, hidden] - slopes @ sigma[seen][:, hidden]
    spread[hidden.outer(hidden)] = corner.flatten()
    return filled, spread


def _square(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    filled, spread = _parts(mu, sigma, row)
    return filled.outer(filled) + spread


def _square_filled_in(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    filled, _ = _parts(mu, sigma, row)
    return filled.outer(filled)


def _square_with_means(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    residual = (row - mu).nan_to_num()
    return residual.outer(residual)


def _square_with_own(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    filled, _ = _parts(mu, sigma, row)
    hidden = row.isnan()
    return filled.outer(filled) + sigma * hidden.outer(hidden)


def _square_of_spread(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    return _parts(mu, sigma, row)[1]


def _second_moment(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    filled, spread = _parts(mu, sigma, row)
    return (filled + mu).outer(filled + mu) + spread


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


_A = torch.tensor([[-1.0, -2.5, -0.3], [-4.0, -0.2, -3.0], [-2.0, -2.0, -7.0]], dtype=torch.float64)
_TAU = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
_HARD = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
_POINTS = (
    _vector(-2.0, -1.0, 0.5, 1.5, 4.0),
    _vector(1.0, 3.0, 0.5, 2.0, 1.0),
    _vector(0.3, 0.7),
    _vector(-1.0, 2.0),
    _vector(0.8, 1.5),
)
_MU = _vector(1.0, -2.0, 0.5)
_SIGMA = torch.tensor([[2.0, 0.8, -0.4], [0.8, 1.0, 0.3], [-0.4, 0.3, 1.5]], dtype=torch.float64)
_NAN = math.nan

EXERCISES: dict[str, Checker] = {
    "06-1": Choice(
        right="acd",
        others={
            "b": "what did EM do when both components started alike?",
            "e": "write the new mean as a quotient, and double the weights above and below the "
            "line.",
        },
        praise="The bound touches, any gain in Q is a gain in likelihood, and nothing is said of "
        "where it ends.",
    ),
    "06-2": Value(
        expected=2 * (1 - _NEAR),
        mistakes=[
            (
                0.0,
                "that is what k-means would do; how large is the first component's share of the "
                "far point?",
            ),
            (1 - _NEAR, "this is a share; the mean is a weighted sum of the points."),
            (2 * _NEAR, "this is where the other mean goes."),
            (
                1.0,
                "with equal shares both means would meet in the middle; but the near component "
                "has the larger share.",
            ),
            (2 / (1 + math.exp(4.0)), "the exponent of the density has a factor of a half."),
            (
                2 / (1 + math.exp(1.0)),
                "the distance is 2, and the exponent has its square, halved.",
            ),
            (
                2 * math.exp(-2.0),
                "divide by the sum over both components: shares of a point sum to 1.",
            ),
        ],
        hint="Compute the two responsibilities of the first component, then the weighted mean.",
        praise="A soft share of the far point pulls the mean off its own.",
    ),
    "06-3": Code(
        reference=_elbo,
        cases=[
            ("shares between 0 and 1", (_A, _TAU)),
            ("the shares that touch", (_A, _A.softmax(1))),
            ("shares that are 0", (_A, _HARD)),
        ],
        mistakes=[
            (_surrogate, "this is Q; the bound has a second sum, of the shares alone."),
            (
                _elbo_plus,
                "the sign of the second sum: an entropy is not negative, and it is added.",
            ),
            (_mean_elbo, "this is over N; the bound is a sum over points."),
            (_log_likelihood, "this is the log likelihood; the bound depends on the shares too."),
            (_elbo_with_nan, "a share of 0 makes 0 times minus infinity; what should 0 log 0 be?"),
        ],
        hint="Sum shares times a, less shares times their logarithm, over points and components.",
        praise="At the responsibilities it is the log likelihood, and below it everywhere else.",
    ),
    "06-4": Code(
        reference=_weighted_step,
        cases=[
            ("five points of different weight", _POINTS),
            ("a point of weight 0", (_POINTS[0], _vector(2.0, 0.0, 1.0, 1.0, 3.0), *_POINTS[2:])),
            ("all weights ten times as large", (_POINTS[0], 10 * _POINTS[1], *_POINTS[2:])),
        ],
        mistakes=[
            (_unweighted, "the sample weights are not used."),
            (
                _over_n,
                "the new mixing weights do not sum to 1: how many points are there, counted by "
                "weight?",
            ),
            (_squared_weights, "each point is weighted twice over."),
            (_about_old_means, "standard deviations are about the new means."),
            (_without_priors, "the responsibilities leave the mixing weights out of Bayes' rule."),
            (_returns_variances, "the last row is the variances."),
            (
                _weights_in_the_odds,
                "no sum over points uses w; in the softmax it would cancel, being the same for all "
                "components.",
            ),
        ],
        hint="Find the responsibilities as if there were no sample weights; then every sum over "
        "points takes w times r in the place of r.",
        praise="A point of weight 2 is two points, and weight 0 is none.",
    ),
    "06-5": Value(
        expected=_limit(_HISTORY),
        mistakes=[
            (
                1.82 - 0.08 / 0.2,
                "too far: what is left begins with gamma times the last step, which is the second.",
            ),
            (0.32, "this is what is left, and not where it ends."),
            (1.74, "this is one more step like the last; how many follow?"),
            (1.82 - 0.064, "this is one more step, shrunk by gamma; how many follow?"),
            (
                1.82 + 0.08 * (5 / 4) / 0.25,
                "the rate is the later step over the earlier one, less than 1.",
            ),
        ],
        hint="Find the two steps and their ratio, and sum the geometric series of the steps to "
        "come.",
        praise="Four times the last step is still to come.",
    ),
    "06-6": Value(
        expected=math.ceil(math.log(0.01) / math.log(0.9)),
        tolerance=1e-6,
        mistakes=[
            (10, "that is how many are needed for one success on average."),
            (
                math.floor(math.log(0.01) / math.log(0.9)),
                "one short: with so many the probability is still below 0.99.",
            ),
            (
                math.ceil(math.log(0.01) / math.log(0.9)) + 1,
                "enough; but is it the smallest that is?",
            ),
            *(
                (
                    round(math.log(0.01) / math.log(0.9), digits),
                    "a number of starts is whole: which way must it be rounded?",
                )
                for digits in (1, 2, 3, 4, 12)
            ),
            (
                math.ceil(math.log(0.1) / math.log(0.9)),
                "so many succeed with probability 0.9; read again what is asked.",
            ),
            (99, "one success in ten, independently: multiply the probabilities of failing."),
            (2, "with probability 0.9 a start fails; this has the two exchanged."),
            (1, "one start succeeds one time in ten."),
        ],
        hint="With what probability do all of them fail?",
        praise="Failures multiply, slowly when a single start nearly always fails.",
    ),
    "06-7": Code(
        reference=_square,
        cases=[
            ("one value missing", (_MU, _SIGMA, _vector(2.0, _NAN, -1.0))),
            ("two values missing", (_MU, _SIGMA, _vector(_NAN, -3.0, _NAN))),
            ("nothing missing", (_MU, _SIGMA, _vector(0.5, -1.0, 2.0))),
            ("nothing observed", (_MU, _SIGMA, _vector(_NAN, _NAN, _NAN))),
        ],
        mistakes=[
            (
                _square_filled_in,
                "this treats the expectation as if it had been observed; how far may the hidden "
                "value lie from it?",
            ),
            (
                _square_with_means,
                "this fills in the mean; what was observed tells more of the hidden values.",
            ),
            (
                _square_with_own,
                "what was observed takes away a part of the hidden values' covariance.",
            ),
            (
                _square_of_spread,
                "this is the conditional covariance alone; the square of the expected residual is "
                "missing.",
            ),
            (_second_moment, "the square is of x less mu, and not of x."),
        ],
        hint="A second moment is the square of a mean plus a covariance, here both given what was "
        "observed.",
        praise="What is uncertain still varies; covariances that forget it end too small.",
    ),
}

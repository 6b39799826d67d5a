"""A stream of points: stepwise EM, which sees each batch once and forgets, beside exact EM."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook.widgets.base import Interactive
from gmmedu import plot

#: As in the front end.
_STREAMS = ("steady", "shift", "bad start")
_BATCHES, _SIZE, _PASSES, _OFFSET, _FLOOR = 60, 10, 20, 2, 0.2
_ALPHA, _GRID = (0.51, 1.0), (-10.0, 12.0, 441)
_FITS = {"exact": plot.PALETTE[0], "stepwise": plot.PALETTE[1]}
_WORDS = {
    "steady": "a stream that stays the same",
    "shift": "a stream of which one mean moves by 2.5 halfway",
    "bad start": "a stream that stays the same, from a start beside all points",
}


class _Mixture(NamedTuple):
    """Two Gaussians on a line: each part (2,), float64."""

    weights: Tensor
    means: Tensor
    sds: Tensor

    def log_joint(self, x: Tensor) -> Tensor:
        """log pi_k + log N(x_n | mu_k, sigma_k), (N, 2); x (N, 1)."""
        return self.weights.log() + torch.distributions.Normal(self.means, self.sds).log_prob(x)

    def statistics(self, x: Tensor) -> Tensor:
        """Means over points of r_nk, r_nk x_n and r_nk x_n^2, (3, 2)."""
        r = self.log_joint(x).softmax(1)
        return torch.stack([r, r * x, r * x.square()]).mean(1)

    def own_statistics(self) -> Tensor:
        """The same where the points come from the mixture itself."""
        moments = [torch.ones_like(self.means), self.means, self.means**2 + self.sds**2]
        return self.weights * torch.stack(moments)


def _m_step(statistics: Tensor) -> _Mixture:
    weights, first, second = statistics
    means = first / weights
    return _Mixture(weights, means, (second / weights - means**2).clamp(min=_FLOOR**2).sqrt())


class StreamExplorer(Interactive):
    """Let batches arrive, and see what stepwise EM and exact EM make of them.

    60 batches of 10 points of two Gaussians. Stepwise EM counts each batch once, at its present
    parameters, moves its mean statistics by (t + 2)^-alpha toward that of batch t, and takes the
    M-step. Exact EM keeps all points, and after each batch makes 20 passes over all that have
    arrived, from where it was. Both have the same start, and no standard deviation below 0.2.

    arrived: how many batches have, 1 to 60; alpha: the exponent of the step, 0.51 to 1, the
    smaller the sooner batches are forgotten; stream: "steady", "shift" (the second mean moves from
    2 to 4.5 after batch 30), or "bad start" (the steady stream from two means beside all points).
    Fixed trait: points, those of the steady stream and those of the shifted one.

    values, by torch: exact and stepwise, of each weights, means and sds, excess (what the mean NLL
    of endless fresh points has above the truth's, in nats), road (means after each batch) and read
    (how often a point was read); and of the mean statistics step, start and first (the weights of
    the start and of the first batch in them), and remembered: how many points, equally weighted,
    would vary as little.

    Raises ``traitlets.TraitError`` for a state out of range.
    """

    points: Any = traitlets.List(read_only=True).tag(sync=True)
    arrived = traitlets.Int(min=1, max=_BATCHES).tag(sync=True)
    alpha = traitlets.CFloat().tag(sync=True)
    stream = traitlets.Enum(_STREAMS).tag(sync=True)
    state = ("arrived", "alpha", "stream")
    #: Of each stream, once it is asked for: what exact EM made of it depends on nothing else.
    _exact: ClassVar[dict[str, list[_Mixture]]] = {}

    def __init__(
        self,
        arrived: int = 1,
        *,
        alpha: float = 0.6,
        stream: str = "steady",
        name: str = "stream",
    ) -> None:
        self.set_trait("points", _points())
        super().__init__(
            kind="stream",
            name=name,
            label="A stream of points, stepwise EM and exact EM",
            arrived=arrived,
            alpha=alpha,
            stream=stream,
        )

    @traitlets.validate("alpha")
    def _exponent(self, proposal: Any) -> Any:
        # A bound lets NaN pass.
        if not _ALPHA[0] <= proposal["value"] <= _ALPHA[1]:
            raise traitlets.TraitError(
                f"alpha must be from {_ALPHA[0]} to {_ALPHA[1]}, got {proposal['value']}"
            )
        return proposal["value"]

    def truth(self, batch: int | None = None) -> _Mixture:
        """The mixture that a batch comes from; the last one unless another is named."""
        late = (self.arrived if batch is None else batch) > _BATCHES // 2
        return _mixture([0.4, 0.6], [-2.0, 4.5 if self.stream == "shift" and late else 2.0], 0.8)

    def start(self) -> _Mixture:
        return _mixture([0.5, 0.5], [-4.0, -3.0] if self.stream == "bad start" else [-1.0, 1.0], 1)

    def batches(self) -> Tensor:
        """All points of the stream, (60, 10, 1), float64."""
        own = self.points[self.stream == "shift"]
        return torch.tensor(own, dtype=torch.float64).reshape(_BATCHES, _SIZE, 1)

    def exact(self) -> list[_Mixture]:
        """Exact EM: the start, and the mixture after each batch."""
        if self.stream not in self._exact:
            x, road = self.batches(), [self.start()]
            for batch in range(1, _BATCHES + 1):
                mixture, seen = road[-1], x[:batch].flatten(0, 1)
                for _ in range(_PASSES):
                    mixture = _m_step(mixture.statistics(seen))
                road.append(mixture)
            self._exact[self.stream] = road
        return self._exact[self.stream]

    def stepwise(self) -> list[_Mixture]:
        """Stepwise EM: the start, and the mixture after each batch."""
        road = [self.start()]
        statistics = road[0].own_statistics()
        for batch, x in enumerate(self.batches(), 1):
            step = (batch + _OFFSET) ** -self.alpha
            statistics = (1 - step) * statistics + step * road[-1].statistics(x)
            road.append(_m_step(statistics))
        return road

    def compute(self) -> dict[str, Any]:
        batch = torch.arange(1, self.arrived + 1, dtype=torch.float64)
        steps = (batch + _OFFSET) ** -self.alpha
        # Of each batch the part that the later ones have left of it.
        left = torch.cat([(1 - steps[1:]).flip(0).cumprod(0).flip(0), torch.ones_like(steps[:1])])
        shares = steps * left
        return {
            "exact": self._shown(self.exact(), sum(range(1, self.arrived + 1)) * _PASSES),
            "stepwise": self._shown(self.stepwise(), self.arrived),
            "step": float(steps[-1]),
            "start": float((1 - steps).prod()),
            "first": float(shares[0]),
            "remembered": float(_SIZE * shares.sum() ** 2 / shares.square().sum()),
        }

    def _shown(self, road: list[_Mixture], batches: int) -> dict[str, Any]:
        own, x = road[self.arrived], torch.linspace(*_GRID, dtype=torch.float64)
        truth, found = (each.log_joint(x[:, None]).logsumexp(1) for each in (self.truth(), own))
        return {
            **{part: value.tolist() for part, value in own._asdict().items()},
            "excess": float((truth.exp() * (truth - found)).sum() * (x[1] - x[0])),
            "road": [mixture.means.tolist() for mixture in road[: self.arrived + 1]],
            "read": _SIZE * batches,
        }

    def _answer(self) -> None:
        super()._answer()
        means = {name: ", ".join(f"{m:.2f}" for m in self.values[name]["means"]) for name in _FITS}
        truth = ", ".join(f"{m:g}" for m in self.truth().means.tolist())
        self.alt = (
            f"Above: the points of {self.arrived} batches of {_WORDS[self.stream]}, and the "
            "densities of exact EM, of stepwise EM and of the truth. Below: their means after "
            f"each batch; now exact EM has {means['exact']}, stepwise EM {means['stepwise']}, "
            f"the truth {truth}."
        )

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 6.2)
        top, bottom = figure.subplots(2, 1)
        seen = self.batches()[: self.arrived].flatten()
        edges = [-5 + i / 2 for i in range(27)]
        top.hist(seen.numpy(), edges, density=True, color=plot.GRAY, alpha=0.3)
        x = torch.linspace(-5, 8, 261, dtype=torch.float64)
        truths = [self.truth(batch).means.tolist() for batch in range(self.arrived + 1)]
        now = {"truth": self.truth()}
        now |= {name: _mixture(*(self.values[name][part] for part in _Mixture._fields))
                for name in _FITS}  # fmt: skip
        for name, mixture in now.items():
            style = {"color": _FITS.get(name, "black"), "linestyle": "-" if name in _FITS else "--"}
            density = mixture.log_joint(x[:, None]).logsumexp(1).exp()
            top.plot(x.numpy(), density.numpy(), label=name, **style)
            road = truths if name == "truth" else self.values[name]["road"]
            bottom.plot(road, **style)
        top.set(xlabel="x", ylabel="density", xlim=(-5, 8), ylim=(0, 0.45))
        bottom.set(xlabel="batches of 10 points", ylabel="means", xlim=(0, 60), ylim=(-5, 6))
        top.legend()


def _mixture(weights: list[float], means: list[float], sds: float | list[float]) -> _Mixture:
    parts = (weights, means, sds if isinstance(sds, list) else [sds, sds])
    return _Mixture(*(torch.tensor(part, dtype=torch.float64) for part in parts))


def _points() -> list[list[float]]:
    """The steady stream and the shifted one, of the same draws."""
    generator = torch.Generator().manual_seed(0)
    size = _BATCHES * _SIZE
    second = torch.rand(size, generator=generator, dtype=torch.float64) >= 0.4
    noise = 0.8 * torch.randn(size, generator=generator, dtype=torch.float64)
    steady = torch.where(second, 2.0, -2.0) + noise
    late = torch.arange(size) >= size // 2
    shifted = steady + 2.5 * (second & late)
    return [[round(v, 2) for v in x.tolist()] for x in (steady, shifted)]

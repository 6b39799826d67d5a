"""Mixture density networks on Bishop's inverse problem, beside the entropy that none can beat.

x = t + 0.3 sin(2 pi t) + noise, t uniform on [0, 1] and the noise on [-0.1, 0.1]; a network is to
say p(t | x). Two kinds are trained alike, twenty seeds of each: the head of this package, started
at the mixture of the targets, and a plain one, written as public ones are: three linear layers
for weights, means and deviations, a softmax, an exponential, and the logarithm of a sum of
products of exponentials. Both stand on the same trunk with the same initial weights. All seeds of
a cell are trained at once, their parameters stacked.

On 1,000 points each kind is trained at each of ``RATES``, held constant and falling to zero along
a cosine. Of each schedule the rate with the lowest median NLL of a validation sample, failures
counting as infinite, is that of the kind in all other cells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import gmmedu
from gmmedu import mixture

SEEDS, WIDTH, BATCH = 20, 20, 1_000
RATES = (0.003, 0.01, 0.03)
TEST_POINTS, VALIDATION_POINTS, CHUNK = 100_000, 10_000, 10_000


@dataclass(frozen=True)
class Cell:
    """What is trained; each step sees ``BATCH`` points, drawn from the sample where it has more.

    decay: whether the rate falls to zero along a cosine; inner: steps on one set of
    responsibilities, as EM has them, 1 being plain descent.
    """

    study: str
    kind: str
    num_points: int = 1_000
    num_components: int = 5
    steps: int = 1_500
    decay: bool = False
    inner: int = 1


KINDS = ("plain", "head", "head, torch's start")
SCHEDULES = (False, True)
#: Trained at every rate; the one with the best validation is that of its kind and schedule.
CHOSEN = tuple(Cell("equal terms", kind, decay=decay) for decay in SCHEDULES for kind in KINDS)
CELLS = (
    *(
        Cell("more points", kind, num_points, decay=decay)
        for num_points in (10_000, 20_000, 100_000)
        for decay in SCHEDULES
        for kind in KINDS[:2]
    ),
    Cell("what closes it", "head", 100_000, steps=6_000, decay=True),
    Cell("what closes it", "head", 100_000, num_components=10, steps=6_000, decay=True),
    Cell("em", "head", inner=5),
    Cell("em", "head", inner=25),
)


@dataclass(frozen=True)
class Row:
    """A cell at one rate: of ``seeds`` networks how many failed, and of the others the median NLL
    of their own training points and of validation points, and the quartiles of that of test
    points, in nats."""

    cell: Cell
    rate: float
    seeds: int
    failed: int
    train: float
    validation: float
    test: tuple[float, float, float]

    def record(self) -> dict[str, Any]:
        own = asdict(self)
        return {**own.pop("cell"), **own}


def sample(num_points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs x and targets t, (N, 1) each."""
    t = torch.rand(num_points, 1, generator=generator)
    noise = 0.2 * torch.rand(num_points, 1, generator=generator) - 0.1
    return t + 0.3 * (2 * math.pi * t).sin() + noise, t


def trunk() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())


class Network(nn.Module):
    """The head of this package on a trunk."""

    def __init__(self, num_components: int) -> None:
        super().__init__()
        self.trunk = trunk()
        self.head = gmmedu.MixtureDensityHead(
            WIDTH, num_components, 1, "diagonal", validate_args=False
        )

    def forward(self, x: Tensor, t: Tensor, joint: bool = False) -> Tensor:
        """log p(t | x), (N,); of each component with its weight, (N, K), where ``joint``."""
        if not joint:
            log_prob: Tensor = self.head(self.trunk(x)).log_prob(t)
            return log_prob
        state = self.head.state(self.trunk(x))
        return mixture.log_joint(self.head.family, state, t.unsqueeze(-2)).squeeze(-1)


class Plain(nn.Module):
    """A density network as one often sees it."""

    def __init__(self, num_components: int) -> None:
        super().__init__()
        self.trunk = trunk()
        self.pi = nn.Linear(WIDTH, num_components)
        self.mu = nn.Linear(WIDTH, num_components)
        self.log_sigma = nn.Linear(WIDTH, num_components)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(t | x): (N,)."""
        h = self.trunk(x)
        pi, sigma = self.pi(h).softmax(-1), self.log_sigma(h).exp()
        exponentials = (-0.5 * ((t - self.mu(h)) / sigma) ** 2).exp()
        return (pi * exponentials / (sigma * math.sqrt(2 * math.pi))).sum(-1).log()


def network(kind: str, num_components: int, targets: Tensor, seed: int) -> nn.Module:
    """A network before training; trunks of one seed are the same for all kinds."""
    torch.manual_seed(seed)
    if kind == "plain":
        return Plain(num_components)
    own = Network(num_components)
    if kind == "head":
        generator = torch.Generator().manual_seed(seed)
        own.head.initialize(targets[:1_000], generator=generator)
    return own


class Networks:
    """Networks of all seeds, trained at once: their parameters stacked, (seeds, ...) each."""

    def __init__(self, cell: Cell, seeds: int) -> None:
        self.cell = cell
        samples = [
            sample(cell.num_points, torch.Generator().manual_seed(seed)) for seed in range(seeds)
        ]
        self.x, self.t = (torch.stack(part) for part in zip(*samples, strict=True))
        models = [network(cell.kind, cell.num_components, t, seed) for seed, t in enumerate(self.t)]
        self.base = models[0]
        self.numbers, buffers = stack_module_state(models)
        # The same for all networks.
        same = ("place", "pivots")
        self.buffers = {name: b for name, b in buffers.items() if not name.endswith(same)}
        self.generator = torch.Generator().manual_seed(0)

    def log_prob(self, x: Tensor, t: Tensor, **options: Any) -> Tensor:
        """log p(t | x) by each network, of points of its own, (seeds, N, 1), or of all, (N, 1)."""
        own = 0 if x.ndim == 3 else None

        def one(numbers: Any, buffers: Any, x: Tensor, t: Tensor) -> Tensor:
            found: Tensor = functional_call(self.base, (numbers, buffers), (x, t), options)
            return found

        return vmap(one, in_dims=(0, 0, own, own))(self.numbers, self.buffers, x, t)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Points that a step sees, of each sample."""
        if self.cell.num_points <= BATCH:
            return self.x, self.t
        shape = (len(self.x), BATCH, 1)
        rows = torch.randint(self.cell.num_points, shape, generator=self.generator)
        return self.x.gather(1, rows), self.t.gather(1, rows)

    def train(self, rate: float, steps: int) -> None:
        optimizer = torch.optim.Adam(list(self.numbers.values()), rate)
        shares = torch.empty(0)
        for step in range(steps):
            if self.cell.decay:
                optimizer.param_groups[0]["lr"] = (
                    rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                )
            x, t = self.batch()
            if self.cell.inner > 1:
                joint = self.log_prob(x, t, joint=True)
                if step % self.cell.inner == 0:
                    shares = joint.detach().softmax(-1)
                log_prob = (shares * joint).sum(-1)
            else:
                log_prob = self.log_prob(x, t)
            optimizer.zero_grad()
            (-log_prob.mean(-1)).sum().backward()
            optimizer.step()

    @torch.no_grad()
    def nll(self, x: Tensor, t: Tensor) -> Tensor:
        """The mean NLL of points, by each network."""
        pairs = zip(x.split(CHUNK, -2), t.split(CHUNK, -2), strict=True)
        total = torch.stack([-self.log_prob(*pair).sum(-1) for pair in pairs]).sum(0)
        return total / x.shape[-2]


def measure(cell: Cell, rate: float, seeds: int, steps: int) -> Row:
    networks = Networks(cell, seeds)
    networks.train(rate, steps)
    train = networks.nll(networks.x[:, :10_000], networks.t[:, :10_000])
    validation = networks.nll(*sample(VALIDATION_POINTS, torch.Generator().manual_seed(10_000)))
    test = networks.nll(*sample(TEST_POINTS, torch.Generator().manual_seed(20_000)))
    fine = train.isfinite() & validation.isfinite() & test.isfinite()
    shares = torch.tensor([0.25, 0.5, 0.75])
    low, median, high = test[fine].quantile(shares).tolist() if fine.any() else [math.inf] * 3
    return Row(
        cell,
        rate,
        seeds,
        int((~fine).sum()),
        float(train[fine].quantile(0.5)) if fine.any() else math.inf,
        float(validation.where(fine, math.inf).quantile(0.5, interpolation="higher")),
        (low, median, high),
    )


def run(quick: bool = False) -> Iterator[Row]:
    """Every cell: the first ones at every rate, the others at the rate chosen for their kind."""
    seeds = 2 if quick else SEEDS
    rates: dict[tuple[str, bool], float] = {}
    for cell in CHOSEN:
        rows = [measure(cell, rate, seeds, 3 if quick else cell.steps) for rate in RATES]
        yield from rows
        rates[cell.kind, cell.decay] = min(rows, key=lambda row: row.validation).rate
    for cell in CELLS:
        rate = rates[cell.kind, cell.decay]
        yield measure(cell, rate, seeds, 3 if quick else cell.steps)


def keep_network(folder: Path, hidden: int = 12, seed: int = 0) -> float:
    """Train the small network of the interactive of chapter 10, write its numbers, to five
    digits, and return their NLL on test points."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x, t = sample(100_000, generator)
    first, second = nn.Linear(1, hidden), nn.Linear(hidden, hidden)
    body = nn.Sequential(first, nn.Tanh(), second, nn.Tanh())
    head = gmmedu.MixtureDensityHead(hidden, 5, 1, "diagonal", validate_args=False)
    head.initialize(t[:1_000], generator=generator)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6_000)
    for _ in range(6_000):
        rows = torch.randint(len(x), (500,), generator=generator)
        optimizer.zero_grad()
        (-head(body(x[rows])).log_prob(t[rows]).mean()).backward()
        optimizer.step()
        schedule.step()
    layers = [(layer.weight, layer.bias) for layer in (first, second, head.linear)]
    with torch.no_grad():
        for number in (*(part for layer in layers for part in layer), head.center, head.scale):
            number.copy_(
                torch.tensor([float(f"{v:.5g}") for v in number.flatten()]).view_as(number)
            )
        x, t = sample(TEST_POINTS, torch.Generator().manual_seed(20_000))
        nll = float(-head(body(x)).log_prob(t).mean())
    record = {
        "layers": [[_digits(weight), _digits(bias)] for weight, bias in layers],
        "center": _digits(head.center)[0],
        "scale": _digits(head.scale)[0],
        "floor": float(f"{float(head.floor):.5g}"),
    }
    (folder / "inverse.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    return nll


def _digits(numbers: Tensor) -> Any:
    """Nested lists of numbers, to five digits."""
    if numbers.ndim > 1:
        return [_digits(row) for row in numbers]
    return [float(f"{value:.5g}") for value in numbers.tolist()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(keep_network(Path(__file__).parents[1] / "book" / "gmmbook" / "data"))

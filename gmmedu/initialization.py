"""Where a fit starts: means from a box, from data points, or from k-means; scales from the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.device import unrounded
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.problem import check_part
from gmmedu.processes import Alone, processes_of
from gmmedu.units import Units, moments
from gmmedu.values import take

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

METHODS = ("box", "points", "kmeans", "kmeans++")
#: To the covariance that a fit starts from, a point further out than this many standard
#: deviations counts as one at that distance.
OUTER = 10.0
#: Numbers in the largest intermediate array.
_BLOCK_NUMBERS = 2**22


@torch.no_grad()
def initialize(
    model: GaussianMixture,
    x: Tensor,
    method: str = "kmeans",
    *,
    missing: bool = False,
    generator: torch.Generator | None = None,
    group: ProcessGroup | None = None,
) -> GaussianMixture:
    """Set weights, means and scales of a mixture from data x (N, D); returns the model.

    method: ``"box"``: means uniform in the bounding box of the data; ``"points"``: K distinct data
    points; ``"kmeans++"``: data points drawn far apart, each the best of 2 + log K draws (Arthur
    and Vassilvitskii 2007); ``"kmeans"``: the centroids that Lloyd's algorithm finds from there.
    The first three start with equal weights and the covariance of the data, ``"kmeans"`` with
    those of its clusters. A given (constant) variance stays, and what has ``requires_grad=False``.

    A batch of models gets as many starts, the same that one after the other would get; x is then
    (N, D), or (*batch_shape, N, D), where a 1 stands for points that a dimension shares. missing:
    whether NaN is a value that was not observed; it counts as the mean of its column.

    Distances are measured in units of the data's standard deviation in each dimension (that of
    the bulk where there are outliers), and no start is narrower than a thousandth of that in any
    direction.

    generator: a CPU generator for the draws, torch's own unless given.

    group: a group of torch.distributed, of which every process makes this call with its own part
    of the points; the start is the same in all, and that of all points in one process. The
    generator of the first one is used.

    Raises ``ValueError`` or ``TypeError`` for bad input; the model is then unchanged.
    """
    check_mixture(model)
    k, d = model.num_components, model.num_dims
    batch_shape, device = model.batch_shape, model.means.device
    processes = processes_of(group, device)

    def door() -> dict[str, Any]:
        nonlocal x
        x = _checked(model, x, method, missing, generator, processes)
        return {"the model": repr(model), "method": method, "the batch of x": x.shape[:-2]}

    processes.same(door)
    x = x.to(torch.promote_types(x.dtype, model.means.dtype))
    sets = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    found = [moments([(one, None)], processes) for one in sets]
    if found[0].num_points < k:
        raise ValueError(f"x has {found[0].num_points} points and at least {k} are needed")
    units = Units.of(found, per_dimension=True)
    z = ((sets - units.center.unsqueeze(1)) / units.scale.unsqueeze(1)).nan_to_num()
    if 1 < len(sets) < math.prod(batch_shape):
        # Several starts on each of several sets.
        which = torch.arange(len(sets), device=device).reshape(x.shape[:-2])
        which = which.expand(batch_shape).flatten()
        z, units = z[which], take(units, which)
    with unrounded(device.type):
        data = _Data(z, processes)
        weights, means, covariances = _start(data, math.prod(batch_shape), k, method, generator)
    unit = units.scale.unsqueeze(1)
    own = unit.unsqueeze(-1) * covariances * unit.unsqueeze(-2)
    shape = (*batch_shape, k)
    return model.set_parameters(
        weights.reshape(shape) if model.logits.requires_grad else None,
        (units.center.unsqueeze(1) + unit * means).reshape(*shape, d)
        if model.means.requires_grad
        else None,
        own.reshape(*shape, d, d) if model.raw_scale.requires_grad else None,
    )


def _checked(
    model: GaussianMixture,
    x: Tensor,
    method: str,
    missing: bool,
    generator: Any,
    processes: Alone,
) -> Tensor:
    checks.check_choice(method, "method", METHODS)
    checks.check_generator(generator)
    checks.check_flag(missing, "missing")
    return check_part(model, x, missing, processes).detach()


class _Data:
    """Points z (1 or M, N, D) of which each process has a part, numbered in the order of ranks."""

    def __init__(self, z: Tensor, processes: Alone) -> None:
        self.z, self.processes = z, processes
        counts = processes.gather(z.shape[1])
        self.num_points, self.before = sum(counts), sum(counts[: processes.rank])

    def first(self, value: Tensor) -> Tensor:
        """What the first process drew."""
        return self.processes.gather(value)[0]

    def add(self, *parts: Tensor) -> Sequence[Tensor]:
        """Sums over the points of all."""
        return self.processes.add(lambda: parts, lambda: parts)

    def at(self, index: Tensor) -> Tensor:
        """The points with numbers (M, Q): (M, Q, D)."""
        index = index - self.before
        here = (index >= 0) & (index < self.z.shape[1])
        if not self.z.shape[1]:
            return self.add(self.z.new_zeros(*index.shape, self.z.shape[2]))[0]
        index = index.clamp(0, self.z.shape[1] - 1)
        if len(self.z) == 1:
            points = self.z[0, index]
        else:
            points = self.z.gather(1, index.unsqueeze(-1).expand(-1, -1, self.z.shape[2]))
        return self.add(points.where(here.unsqueeze(-1), 0.0))[0]

    def drawn(self, mass: Tensor, uniform: Tensor) -> Tensor:
        """The numbers (M, Q) of the points that uniform (M, Q) in [0, 1) picks by mass (M, N)."""
        cumulative = mass.cumsum(-1, dtype=torch.float64)
        own = cumulative[:, -1] if mass.shape[1] else cumulative.new_zeros(len(mass))
        totals = torch.stack(self.processes.gather(own), -1)
        ends = totals.cumsum(-1)
        total = ends[:, -1:]
        wanted = uniform * total
        # The processes before those that hold what is wanted; the last one that holds anything.
        last = (totals > 0).long().cumsum(-1).argmax(-1, keepdim=True)
        owner = torch.searchsorted(ends, wanted, right=True).minimum(last)
        starts = (ends - totals).gather(-1, owner)
        place = torch.searchsorted(cumulative, wanted - starts, right=True)
        mine = place.clamp_max(max(mass.shape[1] - 1, 0)) + self.before
        number = self.add(mine.where(owner == self.processes.rank, 0))[0]
        # Where every point has been met already, any of them will do.
        return torch.where(total > 0, number, (uniform * self.num_points).long())


def _start(
    data: _Data, size: int, num_components: int, method: str, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (M, K), means (M, K, D) and covariances (M, K, D, D) of M starts, ``size`` of
    them."""
    z = data.z
    k, d = num_components, z.shape[-1]
    near = z.clamp(-OUTER, OUTER)
    second = data.add(near.mT @ near)[0] / data.num_points
    covariances = second.unsqueeze(1).expand(size, k, d, d)
    weights = z.new_full((size, k), 1 / k)
    if method in ("box", "points"):
        draw = _in_box if method == "box" else _distinct
        sets = [_Data(z[m : m + 1], data.processes) for m in range(len(z))]
        means = torch.stack([draw(sets[m % len(sets)], k, generator) for m in range(size)])
    else:
        means = _spread(data, size, k, generator)
        if method == "kmeans":
            means, labels = _lloyd(data, means)
            weights, covariances = _clusters(data, labels, means)
    ridge = max(1e-6, 10 * d * torch.finfo(z.dtype).eps)
    largest = covariances.diagonal(dim1=-2, dim2=-1).amax(-1).clamp_min(1)
    added = ridge * largest.unsqueeze(-1).expand(size, k, d)
    return weights, means, covariances + torch.diag_embed(added)


def _in_box(data: _Data, num_components: int, generator: torch.Generator | None) -> Tensor:
    """Random places in the box that holds one set of points: (K, D)."""
    z = data.z[0]
    ends = (z.amin(0), z.amax(0)) if len(z) else (z.new_full(z.shape[1:], s) for s in (inf, -inf))
    low, high = (torch.stack(end) for end in zip(*data.processes.gather(tuple(ends)), strict=True))
    low, high = low.amin(0), high.amax(0)
    uniform = data.first(checks.uniform(num_components, z.shape[1], generator=generator))
    return low + (high - low) * uniform.to(z)


def _distinct(data: _Data, num_components: int, generator: torch.Generator | None) -> Tensor:
    """Random points of one set, no two alike while there are K that differ: (K, D).

    Components that start alike stay alike, whichever way they are fitted.
    """
    num_points, device = data.num_points, data.z.device
    order = torch.randperm(num_points, generator=generator, device="cpu").to(device)
    looked_at = min(2 * num_components, num_points)
    while True:
        some = data.at(data.first(order[:looked_at]).unsqueeze(0))[0]
        kinds, kind = torch.unique(some, dim=0, return_inverse=True)
        if len(kinds) >= num_components or looked_at == num_points:
            break
        looked_at = min(2 * looked_at, num_points)
    first = torch.full((len(kinds),), looked_at, device=device)
    first.scatter_reduce_(0, kind, torch.arange(looked_at, device=device), "amin")
    rest = torch.ones(looked_at, dtype=torch.bool, device=device).index_fill_(0, first, False)
    chosen = torch.cat([first.sort().values, rest.nonzero().flatten()])[:num_components]
    return some[chosen]


def _spread(
    data: _Data, size: int, num_components: int, generator: torch.Generator | None
) -> Tensor:
    """Greedy k-means++: candidates drawn with probability proportional to their squared distance
    from the nearest point chosen so far; the one that leaves the least is chosen.

    Returns (M, K, D). As many candidates as scikit-learn draws, 2 + log K.
    """
    z, num_points = data.z, data.num_points
    tries = 2 + int(math.log(num_components))
    uniform = checks.uniform(size, 1 + (num_components - 1) * tries, generator=generator)
    uniform = data.first(uniform).to(z.device)
    first, draws = (uniform[:, :1], uniform[:, 1:].reshape(size, num_components - 1, tries))
    norms = z.square().sum(-1)
    chosen = [data.at((first * num_points).long())]
    nearest = _squared_distances(z, norms, chosen[0])[:, 0]
    for uniform in draws.unbind(1):
        candidates = data.at(data.drawn(nearest, uniform))
        left = torch.minimum(nearest.unsqueeze(1), _squared_distances(z, norms, candidates))
        best = data.add(left.sum(-1, keepdim=True))[0].argmin(1, keepdim=True)
        nearest = left.gather(1, best.expand(-1, 1, z.shape[1])).squeeze(1)
        chosen.append(candidates.gather(1, best.expand(-1, 1, z.shape[-1])))
    return torch.cat(chosen, 1)


def _squared_distances(z: Tensor, norms: Tensor, centers: Tensor) -> Tensor:
    """Of z (1 or M, N, D) from centers (M, Q, D): (M, Q, N); of a point from itself exactly 0."""
    products = centers @ z.mT
    squares = centers.square().sum(-1, keepdim=True)
    distances = norms.unsqueeze(1) - 2 * products + squares
    rounding = 8 * torch.finfo(z.dtype).eps * (norms.unsqueeze(1) + squares)
    return distances.where(distances > rounding, 0.0)


def _lloyd(data: _Data, means: Tensor, num_iterations: int = 300) -> tuple[Tensor, Tensor]:
    """k-means: assign each point to the nearest centroid, move centroids to the mean of theirs,
    until nothing changes. means (M, K, D). Returns centroids, which stay put when empty, and
    labels (M, N)."""
    z = data.z
    labels = torch.full((len(means), z.shape[1]), -1, device=z.device)
    active = torch.arange(len(means), device=z.device)
    means = means.clone()
    for _ in range(num_iterations):
        mine = z if len(z) == 1 else z[active]
        nearest = _nearest(mine, means[active])
        changed = data.add((nearest != labels[active]).any(1).long())[0] > 0
        if not bool(changed.any()):
            break
        active, nearest = active[changed], nearest[changed]
        mine = z if len(z) == 1 else z[active]
        labels[active] = nearest
        counts, sums = data.add(*_sums(mine, nearest, means.shape[1]))
        moved = sums / counts.clamp_min(1).unsqueeze(-1)
        means[active] = torch.where(counts.unsqueeze(-1) > 0, moved, means[active])
    return means, labels


def _nearest(z: Tensor, means: Tensor) -> Tensor:
    """The nearest centroid of each point: (M, N)."""
    half = 0.5 * means.square().sum(-1, keepdim=True)
    width = max(1, _BLOCK_NUMBERS // half.numel())
    parts = [(half - means @ block.mT).argmin(1) for block in z.split(width, 1)]
    return torch.cat(parts, -1)


def _sums(z: Tensor, labels: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """Number (M, K) and sum (M, K, D) of the points with each label."""
    counts = z.new_zeros(len(labels), num_components)
    sums = z.new_zeros(len(labels), num_components, z.shape[-1])
    width = max(1, _BLOCK_NUMBERS // counts.numel())
    for block, mine in zip(z.split(width, 1), labels.split(width, 1), strict=True):
        members = _members(mine, num_components, z.dtype)
        counts, sums = counts + members.sum(-1), sums + members @ block
    return counts, sums


def _members(labels: Tensor, num_components: int, dtype: torch.dtype) -> Tensor:
    """1 where a point has a label: (M, K, N)."""
    kinds = torch.arange(num_components, device=labels.device)
    return (labels.unsqueeze(1) == kinds[:, None]).to(dtype)


def _clusters(data: _Data, labels: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (M, K) and covariances (M, K, D, D) of clusters: a small cluster has its covariance
    drawn toward the average within all of them, by as much as D + 1 points of that average
    would."""
    z, num_dims = data.z, data.z.shape[-1]
    counts = z.new_zeros(means.shape[:-1])
    scatter = z.new_zeros(*means.shape, num_dims)
    width = max(1, _BLOCK_NUMBERS // means.numel())
    for block, mine in zip(z.split(width, 1), labels.split(width, 1), strict=True):
        members = _members(mine, means.shape[1], z.dtype)
        offset = (block.mT.unsqueeze(1) - means.unsqueeze(-1)).clamp(-OUTER, OUTER)
        counts = counts + members.sum(-1)
        scatter = scatter + (offset * members.unsqueeze(2)) @ offset.mT
    counts, scatter = data.add(counts, scatter)
    within = scatter.sum(1, keepdim=True) / data.num_points
    pseudo = num_dims + 1
    shrunk = (counts + pseudo)[..., None, None]
    covariances = (scatter + pseudo * within) / shrunk
    filled = counts.clamp_min(1)
    return filled / filled.sum(-1, keepdim=True), covariances

"""Time of one EM iteration, beside six peers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.contenders import CONTENDERS
from benchmarks.problems import DTYPES, OLD_FAITHFUL, load, make_start
from benchmarks.timing import Comparison, Schedule, compare

FAMILIES = ("full", "diagonal", "isotropic", "tied")
Size = tuple[int, int, int]

#: (N, D, K)
LARGE: tuple[Size, ...] = (
    (100_000, 2, 5),
    (1_000_000, 2, 3),
    (100_000, 16, 16),
    (50_000, 32, 32),
    (20_000, 64, 10),
)
MIDDLE: tuple[Size, ...] = (
    (500, 4, 3),
    (2_000, 8, 4),
    (5_000, 8, 4),
    (10_000, 8, 4),
    (10_000, 2, 10),
    (10_000, 16, 10),
    (20_000, 30, 10),
    (30_000, 64, 5),
    (1_797, 64, 10),
)
QUICK: tuple[Size, ...] = ((20_000, 2, 5), (500, 4, 3), OLD_FAITHFUL)

#: Against scikit-learn with full covariances: the geometric mean and the least.
BARS = {"large": (10.0, 4.0), "middle": (6.0, 3.0)}
#: Where its code, compiled whole, meets what Python costs.
AHEAD = {("gmmx", OLD_FAITHFUL)}
#: gmm-gpu forms N outer products of D x D for each component: beyond this many numbers an
#: iteration takes it seconds, and it is left out.
GMM_GPU_MOST = 5e7


def group(size: Size) -> str:
    return "small" if size == OLD_FAITHFUL else "middle" if size in MIDDLE else "large"


def enters(name: str, size: Size) -> bool:
    num_samples, num_dims, num_components = size
    return name != "gmm-gpu" or num_samples * num_components * num_dims**2 <= GMM_GPU_MOST


def bars(family: str, size: Size, peers: list[str]) -> dict[str, float]:
    """The least ratio wanted against each peer."""
    wanted = {peer: 1.0 for peer in peers if (peer, size) not in AHEAD}
    if family == "full" and group(size) in BARS:
        wanted["scikit-learn"] = BARS[group(size)][1]
    return wanted


def run(family: str, quick: bool = False) -> Iterator[Comparison]:
    """Every size in float32 and float64, for one family; the middle ones for full covariances."""
    everything = (*LARGE, OLD_FAITHFUL, *(MIDDLE if family == "full" else ()))
    for size in QUICK if quick else everything:
        points = load(size)
        for dtype, torch_dtype in DTYPES.items():
            x = points.to(torch_dtype)
            start = make_start(x, num_components=size[2])
            entered = [
                contender
                for contender in CONTENDERS
                if family in contender.families
                and dtype in contender.dtypes
                and enters(contender.name, size)
            ]
            yield compare(
                {each.name: partial(each.fit, family, x, start) for each in entered},
                x,
                Schedule(
                    short=10 if group(size) == "small" else 1,
                    extra={"large": 1, "middle": 5, "small": 50}[group(size)],
                    repeats=3 if quick else 7,
                ),
                family=family,
                size=size,
                dtype=dtype,
                bars=bars(family, size, [each.name for each in entered[1:]]),
            )

"""Time of one EM iteration, beside scikit-learn, pomegranate and torchgmm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.contenders import CONTENDERS
from benchmarks.problems import DTYPES, OLD_FAITHFUL, load, make_start
from benchmarks.timing import Comparison, Schedule, compare

FAMILIES = ("full", "diagonal", "isotropic", "tied")

#: (N, D, K) -> iterations timed with full covariances; the cheaper families run four times as many.
SIZES = {
    (100_000, 2, 5): 20,
    (1_000_000, 2, 3): 4,
    (100_000, 16, 16): 4,
    (50_000, 32, 32): 3,
    (20_000, 64, 10): 6,
    OLD_FAITHFUL: 400,
}
QUICK_SIZES = {(20_000, 2, 5): 10, (5_000, 16, 16): 5, OLD_FAITHFUL: 100}

#: Against scikit-learn with full covariances: at every point, and in the geometric mean.
FULL_BAR = 3.0
FULL_MEAN_BAR = 5.0


def bars(family: str, size: tuple[int, int, int]) -> dict[str, float]:
    """The least ratio wanted against each peer."""
    if size == OLD_FAITHFUL:
        return {"scikit-learn": 1.0}
    wanted = {peer.name: 1.0 for peer in CONTENDERS[1:] if family in peer.families}
    if family == "full":
        wanted["scikit-learn"] = FULL_BAR
    return wanted


def run(family: str, quick: bool = False) -> Iterator[Comparison]:
    """Every size in float32 and float64, for one family."""
    for size, iterations in (QUICK_SIZES if quick else SIZES).items():
        points = load(size)
        cheap = family != "full" and size != OLD_FAITHFUL
        schedule = Schedule(
            short=10 if size == OLD_FAITHFUL else 1,
            extra=4 * iterations if cheap else iterations,
            repeats=3 if quick else 7,
        )
        for dtype, torch_dtype in DTYPES.items():
            x = points.to(torch_dtype)
            start = make_start(x, num_components=size[2])
            yield compare(
                {
                    contender.name: partial(contender.fit, family, x, start)
                    for contender in CONTENDERS
                    if family in contender.families
                },
                x,
                schedule,
                family=family,
                size=size,
                dtype=dtype,
                bars=bars(family, size),
            )

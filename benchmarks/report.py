"""Tables, JSON and the figure."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import THREADS, em
from benchmarks.reliability import Row
from benchmarks.starts import Share
from benchmarks.timing import TOLERANCE, Comparison, Quartiles, geometric_mean

_PACKAGES = ("gmmedu", "torch", "numpy", "scipy", "scikit-learn", "pomegranate", "torchgmm")
_MARKERS = {"scikit-learn": "o", "pomegranate": "s", "torchgmm": "^"}
_COLORS = {"scikit-learn": 0, "pomegranate": 1, "torchgmm": 2}


def environment() -> dict[str, Any]:
    """What a reader needs to judge the figures; nothing that names a machine."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "threads": THREADS,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def write(folder: Path, name: str, records: Any) -> None:
    """``folder/name.json``: the environment and the records."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "records": records}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    return {
        **asdict(comparison),
        "tolerance": TOLERANCE[comparison.dtype],
        "agrees": comparison.agrees,
        "passed": {peer: comparison.passes(peer) for peer in comparison.bars},
    }


# Tables


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _quartiles(value: Quartiles, digits: int = 2) -> str:
    return f"{value.median:.{digits}f} [{value.lower:.{digits}f}, {value.upper:.{digits}f}]"


def _verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"


def comparison_table(comparisons: Iterable[Comparison]) -> str:
    """A row for each contender at each point; times in ms, ratios against gmmedu."""
    rows = [
        ("N", "D", "K", "type", "contender", "ms an iteration", "ratio", "bar", "", "|dLL|", "")
    ]
    for comparison in comparisons:
        num_samples, num_dims, num_components = comparison.size
        point = (f"{num_samples:,}", str(num_dims), str(num_components), comparison.dtype)
        for name, milliseconds in comparison.milliseconds.items():
            ratio = comparison.ratios.get(name)
            bar = comparison.bars.get(name)
            difference = comparison.differences.get(name)
            rows.append(
                (
                    *point,
                    name,
                    _quartiles(milliseconds, 3),
                    "" if ratio is None else _quartiles(ratio),
                    "" if bar is None else f"{bar:g}",
                    "" if bar is None else _verdict(comparison.passes(name)),
                    "" if difference is None else f"{difference:.0e}",
                    ""
                    if difference is None
                    else ("agree" if difference <= TOLERANCE[comparison.dtype] else "DISAGREE"),
                )
            )
            point = ("", "", "", "")
    return _aligned(rows)


def mean_table(family: str, comparisons: Sequence[Comparison]) -> str:
    """Geometric means of the ratios at the large sizes: of each number type, and of both."""
    large = [each for each in comparisons if each.size != em.OLD_FAITHFUL]
    rows: list[tuple[str, ...]] = [
        ("geometric mean of ratios", "float32", "float64", "both", "bar", "")
    ]
    for peer in large[0].ratios:
        means = [
            geometric_mean([each.ratios[peer].median for each in large if each.dtype in dtypes])
            for dtypes in (("float32",), ("float64",), ("float32", "float64"))
        ]
        barred = family == "full" and peer == "scikit-learn"
        rows.append(
            (
                peer,
                *(f"{mean:.2f}" for mean in means),
                f"{em.FULL_MEAN_BAR:g}" if barred else "",
                _verdict(means[-1] >= em.FULL_MEAN_BAR) if barred else "",
            )
        )
    return _aligned(rows)


def memory_table(figures: dict[str, Any]) -> str:
    num_samples, num_dims, num_components = figures["size"]
    return _aligned(
        [
            ("N", "D", "K", "type", "data MB", "peak MB", "sampled MB", "bar", ""),
            (
                f"{num_samples:,}",
                str(num_dims),
                str(num_components),
                figures["dtype"],
                f"{figures['data']:.0f}",
                f"{figures['peak']:.1f}",
                f"{figures['peak_sampled']:.1f}",
                f"{figures['bar_megabytes']:g}",
                _verdict(figures["passed"]),
            ),
        ]
    )


def share_table(shares: Iterable[Share]) -> str:
    rows = [
        ("fitter", "start", "mitigation", "iterations", "within", "reached", "failed", "bar", "")
    ]
    for share in shares:
        rows.append(
            (
                share.fitter,
                share.method,
                share.mitigation,
                f"{share.iterations:,}",
                f"{share.tolerance:g}",
                f"{share.reached}/{share.starts}",
                str(share.failed),
                "95 %",
                _verdict(share.passed),
            )
        )
    return _aligned(rows)


def reliability_table(rows: Sequence[Row]) -> str:
    """Fits that failed, and that were worse than the peer's, for each run and kind of data."""
    runs = dict.fromkeys((row.fitter, row.mitigation) for row in rows)
    kinds = [*dict.fromkeys(row.data for row in rows), "all"]
    table: list[tuple[str, ...]] = [
        ("fitter", "mitigation", "data", "fits", "failed", "compared", "better", "worse")
        + ("overfitted",)
    ]
    for run in runs:
        for kind in kinds:
            own = [
                row
                for row in rows
                if (row.fitter, row.mitigation) == run and kind in (row.data, "all")
            ]
            failed = sum(sum(row.failures.values()) for row in own)
            totals = (
                sum(row.fits for row in own),
                failed,
                sum(row.compared for row in own),
                sum(row.better for row in own),
                sum(row.worse for row in own),
                sum(row.overfitted for row in own),
            )
            table.append((*run, kind, *map(str, totals)))
    return _aligned(table)


def record_table(records: Sequence[dict[str, Any]]) -> str:
    """Records as they are, under their own names."""
    return _aligned([tuple(records[0]), *(tuple(map(str, r.values())) for r in records)])


# Figure


def draw(folder: Path) -> Path | None:
    """``folder/engine.svg`` from the EM records that lie there; None if there are none."""
    import matplotlib.pyplot as plt

    from gmmedu.plot import GREY, PALETTE, use_style

    records = {
        family: json.loads(path.read_text())["records"]
        for family in em.FAMILIES
        if (path := folder / f"em-{family}.json").exists()
    }
    if not records:
        return None
    use_style()
    figure, axes = plt.subplots(
        len(records), 1, figsize=(7.2, 0.9 + 2.6 * len(records)), sharex=True, squeeze=False
    )
    seen: dict[str, Any] = {}
    for ax, (family, rows) in zip(axes[:, 0], records.items(), strict=True):
        sizes = list(dict.fromkeys(tuple(row["size"]) for row in rows))
        for row in rows:
            place = sizes.index(tuple(row["size"]))
            double = row["dtype"] == "float64"
            for peer, ratio in row["ratios"].items():
                color = PALETTE[_COLORS[peer]]
                shift = 0.22 * (_COLORS[peer] - 1) + 0.09 * (1 if double else -1)
                drawn = ax.errorbar(
                    place + shift,
                    ratio["median"],
                    [[ratio["median"] - ratio["lower"]], [ratio["upper"] - ratio["median"]]],
                    fmt=_MARKERS[peer],
                    color=color,
                    markerfacecolor="none" if double else color,
                    markersize=6,
                    linewidth=1,
                )
                seen.setdefault(f"{peer}, {row['dtype']}", drawn)
        ax.axhline(1, color=GREY, linewidth=1.2)
        if family == "full":
            large = [place for place, size in enumerate(sizes) if size != em.OLD_FAITHFUL]
            color = PALETTE[_COLORS["scikit-learn"]]
            ax.hlines(em.FULL_BAR, -0.4, len(large) - 0.6, colors=color, linestyles=":", lw=1.2)
            bar = f"least wanted against scikit-learn: {em.FULL_BAR:g}"
            ax.annotate(bar, (-0.4, em.FULL_BAR), (0, 2), textcoords="offset points", fontsize=9)
        ax.set_yscale("log")
        ticks = [0.5, 1, 2, 3, 5, 10, 20, 50, 100]
        low, high = ax.get_ylim()
        ax.set_yticks([tick for tick in ticks if low <= tick <= high])
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.minorticks_off()
        ax.set_title(f"{family} covariances", loc="left")
        ax.set_ylabel("time / gmmedu's")
        labels = [f"N={n:,}\nD={d}, K={k}" for n, d, k in sizes]
        ax.set_xticks(range(len(sizes)), labels, fontsize=9)
    keys = sorted(seen, key=lambda key: (_COLORS[key.split(", ")[0]], key))
    handles = [seen[key] for key in keys]
    figure.legend(handles, keys, loc="outside lower center", ncols=len(_COLORS), fontsize=10)
    path = folder / "engine.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path

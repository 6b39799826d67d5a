"""Tables, JSON and the figure."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import THREADS, em
from benchmarks.reliability import Row
from benchmarks.timing import TOLERANCE, Comparison, Quartiles, geometric_mean

_PACKAGES = ("gmmedu", "torch", "numpy", "scipy", "scikit-learn", "pomegranate", "torchgmm")
_PEERS_FILE = Path(__file__).parent / "peers.txt"
#: peer -> its marker; its place is its color too
_MARKERS = {
    "scikit-learn": "o",
    "pomegranate": "s",
    "torchgmm": "^",
    "tgmm": "D",
    "gmmx": "v",
    "gmm-gpu": "P",
}


def environment() -> dict[str, Any]:
    """What a reader needs to judge the figures; nothing that names a machine."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    pins = (line.split("==") for line in _PEERS_FILE.read_text().split() if "==" in line)
    versions |= {name: pin for name, pin in pins if name in ("tgmm", "gmmx", "gmm-gpu", "jax")}
    return {
        "versions": versions,
        "threads": THREADS,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def write(folder: Path, name: str, records: Any) -> None:
    """``folder/name.json``: the environment and the records, one a line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(record)}" for record in records)
    head = json.dumps({"environment": environment()}, indent=1).removesuffix("\n}")
    (folder / f"{name}.json").write_text(f'{head},\n "records": [\n{lines}\n ]\n}}\n')


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    return {
        **asdict(comparison),
        "tolerance": TOLERANCE[comparison.dtype],
        "agrees": {peer: comparison.agrees_with(peer) for peer in comparison.differences},
        "passed": {peer: comparison.passes(peer) for peer in comparison.bars},
    }


ROOT = Path(__file__).resolve().parents[1]

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
                    else ("agrees" if comparison.agrees_with(name) else "DIFFERS"),
                )
            )
            point = ("", "", "", "")
    return _aligned(rows)


def mean_table(family: str, comparisons: Sequence[Comparison]) -> str:
    """Geometric mean and least of the ratios at a group of sizes, number types apart and together;
    of the peers that agree, at the sizes where they do."""
    rows: list[tuple[str, ...]] = [
        ("sizes", "peer", "mean float32", "mean float64", "mean", "bar", "", "least", "bar", "")
    ]
    for group in ("large", "middle"):
        own = [each for each in comparisons if em.group(each.size) == group]
        for peer in dict.fromkeys(peer for each in own for peer in each.ratios):
            found = {
                dtypes: [
                    each.ratios[peer].median
                    for each in own
                    if each.dtype in dtypes and peer in each.ratios and each.agrees_with(peer)
                ]
                for dtypes in (("float32",), ("float64",), ("float32", "float64"))
            }
            *_, both = found.values()
            if not both:
                continue
            mean, least = geometric_mean(both), min(both)
            barred = family == "full" and peer == "scikit-learn"
            mean_bar, least_bar = em.BARS[group] if barred else (0.0, 1.0)
            rows.append(
                (
                    group,
                    peer,
                    *(f"{geometric_mean(each):.2f}" if each else "" for each in found.values()),
                    f"{mean_bar:g}" if barred else "",
                    _verdict(mean >= mean_bar) if barred else "",
                    f"{least:.2f}",
                    f"{least_bar:g}",
                    _verdict(least >= least_bar),
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
    """Records as they are, those in a row of one kind under their own names; of a list its
    length."""

    def shown(value: Any) -> str:
        return f"{len(value)} values" if isinstance(value, list) else str(value)

    tables = [
        _aligned([names, *(tuple(map(shown, record.values())) for record in some)])
        for names, some in groupby(records, key=tuple)
    ]
    return "\n\n".join(tables)


# Figure and page


def _full(folder: Path) -> list[dict[str, Any]]:
    """The stored records of full covariances; empty if there are none."""
    path = folder / "em-full.json"
    return json.loads(path.read_text())["records"] if path.exists() else []


def _name(size: Sequence[int]) -> str:
    num_samples, num_dims, num_components = size
    return f"{num_samples:,}, {num_dims}, {num_components}"


def draw(folder: Path) -> Path | None:
    """``folder/engine.svg`` from the records that lie there; None if there are none."""
    import matplotlib.pyplot as plt

    from gmmedu.plot import GRAY, PALETTE, use_style

    records = _full(folder)
    if not records:
        return None
    use_style()
    sizes = list(dict.fromkeys(tuple(row["size"]) for row in records))
    figure, axes = plt.subplots(
        1, 2, figsize=(7.2, 1.6 + 0.36 * len(sizes)), sharex=True, sharey=True
    )
    for ax, dtype in zip(axes, ("float32", "float64"), strict=True):
        for peer, (marker, color) in zip(
            _MARKERS, zip(_MARKERS.values(), PALETTE, strict=False), strict=True
        ):
            drawn = [
                (row["ratios"][peer]["median"], sizes.index(tuple(row["size"])))
                for row in records
                if row["dtype"] == dtype and _counts(row, peer)
            ]
            ax.scatter(
                *zip(*drawn, strict=True) if drawn else ([], []),
                marker=marker,
                c=color,
                s=30,
                label=peer,
            )
        ax.axvline(1, color=GRAY, linewidth=1.2)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.grid(axis="y", linewidth=0.4)
        ax.set_title(dtype, loc="left")
        ax.set_xlabel("time of an iteration / gmmedu's")
    axes[0].set_yticks(range(len(sizes)), map(_name, sizes), fontsize=9)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("N, D, K")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=10
    )
    path = folder / "engine.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _ratio(value: float) -> str:
    """A digit after the point, two below 1."""
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _counts(row: dict[str, Any], peer: str) -> bool:
    """Whether a peer ran at this point and found what gmmedu found."""
    return peer in row["ratios"] and row["differences"][peer] <= row["tolerance"]


def tabulate(folder: Path) -> None:
    """Write the ratios of the stored records, and their means, where two pages show them."""
    records = _full(folder)
    if records:
        _write_between(ROOT / "benchmarks" / "README.md", "ratios", _ratios(records))
        _write_between(ROOT / "README.md", "means", _means(records))


def _ratios(records: list[dict[str, Any]]) -> list[str]:
    """A row for each size and type, and two for the groups."""
    peers = list(_MARKERS)
    lines = [
        "| N, D, K | type | gmmedu, ms | " + " | ".join(peers) + " |",
        "|---|---|---|" + "---|" * len(peers),
    ]
    for row in records:
        cells = [
            _ratio(row["ratios"][peer]["median"])
            if _counts(row, peer)
            else "differs"
            if peer in row["ratios"]
            else ""
            for peer in peers
        ]
        point = (_name(row["size"]), row["dtype"], f"{row['milliseconds']['gmmedu']['median']:.3g}")
        lines.append("| " + " | ".join((*point, *cells)) + " |")
    for group in ("large", "middle"):
        means = [", ".join(_mean_and_least(records, peer, group)) for peer in peers]
        lines.append("| " + " | ".join((f"{group}: mean, least", "both", "", *means)) + " |")
    return lines


def _means(records: list[dict[str, Any]]) -> list[str]:
    """A row for each peer."""
    lines = ["| peer | large: mean | least | middle: mean | least |", "|---|--:|--:|--:|--:|"]
    for peer in _MARKERS:
        cells = [_mean_and_least(records, peer, group) or ("", "") for group in ("large", "middle")]
        lines.append("| " + " | ".join((peer, *cells[0], *cells[1])) + " |")
    return lines


def _mean_and_least(records: list[dict[str, Any]], peer: str, group: str) -> tuple[str, ...]:
    """Of the ratios in a group of sizes: nothing where there are none."""
    ratios = [
        row["ratios"][peer]["median"]
        for row in records
        if em.group(tuple(row["size"])) == group and _counts(row, peer)
    ]
    return (_ratio(geometric_mean(ratios)), _ratio(min(ratios))) if ratios else ()


def _write_between(page: Path, name: str, lines: list[str]) -> None:
    begin, end = f"<!-- {name}, written by `make bench` -->", f"<!-- end of the {name} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    text = "\n".join((begin, *lines, end))
    page.write_text(before + text + after, encoding="utf-8")

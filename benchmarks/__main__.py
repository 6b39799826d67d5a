"""``python -m benchmarks [--quick] [--only NAME ...] [--output DIR]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import gmmedu
from benchmarks import (
    THREADS,
    busy,
    classifiers,
    collapse,
    density,
    descent,
    em,
    features,
    frames,
    galaxies,
    jobs,
    memory,
    race,
    rate,
    reliability,
    report,
    scale,
    segmentation,
    selection,
    starts,
)
from benchmarks.timing import Comparison
from gmmbook import lab

HERE = Path(__file__).parent
#: Where a notebook finds a study.
STUDIES = HERE.parent / "book" / "gmmbook" / "data"
EM_NAMES = tuple(f"em-{family}" for family in em.FAMILIES)
#: What says how fast the engine is. Memory first: a process started from a small one.
ENGINE = ("memory", "em-full", "rate", "descent", "jobs", "starts", "selection", "busy")
#: What is run only when it is named: the other families, and the studies that the book tells of.
STUDIED = (
    "reliability",
    "collapse",
    "galaxies",
    "race",
    "frames",
    "density",
    "features",
    "scale",
    "classifiers",
    "segmentation",
)
NAMED = (*EM_NAMES[1:], *STUDIED)
#: Those that yield plain records.
RECORDS: dict[str, Callable[[bool], Iterable[Any]]] = {
    "rate": rate.run,
    "jobs": jobs.run,
    "starts": starts.run,
    "selection": selection.run,
    "busy": busy.run,
    "classifiers": classifiers.run,
    "collapse": collapse.run,
    "galaxies": galaxies.run,
    "race": race.run,
    "frames": frames.run,
    "density": density.run,
    "features": features.run,
    "scale": scale.run,
    "segmentation": segmentation.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. 1 if contenders disagree, whatever their times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time gmmedu.")
    parser.add_argument("--quick", action="store_true", help="small sizes; proves that it runs")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*ENGINE, *NAMED),
        default=ENGINE,
        metavar="NAME",
        help=", ".join((*ENGINE, *NAMED)),
    )
    parser.add_argument("--output", type=Path, help="folder for the JSON files and the figure")
    options = parser.parse_args(arguments)
    folder = options.output or HERE / "results" / ("quick" if options.quick else "")

    torch.set_num_threads(THREADS)
    disagreements = 0
    for name in (*ENGINE, *NAMED):
        if name in options.only:
            own = name in lab.STUDIES and folder == HERE / "results"
            disagreements += _run(name, options.quick, STUDIES if own else folder)
    if "em-full" in options.only:
        print(f"Figure: {report.draw(folder)}")
        if folder == HERE / "results":
            report.tabulate(folder)
    if disagreements:
        print(f"{disagreements} comparisons in which contenders disagree", file=sys.stderr)
    return 1 if disagreements else 0


def _run(name: str, quick: bool, folder: Path) -> int:
    """One benchmark: print its table, write its JSON, return how many comparisons disagree."""
    print(f"\n{name}", flush=True)
    if name == "memory":
        figures = memory.run(quick)
        print(report.memory_table(figures), flush=True)
        report.write(folder, name, [figures])
        return 0
    if name == "reliability":
        rows = []
        for row in reliability.run(quick):
            rows.append(row)
            if row.family == list(gmmedu.MODELS)[-1]:
                done = f"{row.fitter}, {row.mitigation}, {row.data}"
                print(f"  {done} done", file=sys.stderr, flush=True)
        print(report.reliability_table(rows), flush=True)
        report.write(folder, name, [row.record() for row in rows])
        return 0
    if name in RECORDS:
        records = []
        for record in RECORDS[name](quick):
            records.append(record if isinstance(record, dict) else record.record())
            print(f"  {list(records[-1].values())[:4]} done", file=sys.stderr, flush=True)
        print(report.record_table(records), flush=True)
        report.write(folder, name, records)
        return 0
    comparisons = list(_watched(name, quick))
    print(report.comparison_table(comparisons))
    if name in EM_NAMES:
        print(report.mean_table(name.removeprefix("em-"), comparisons))
    sys.stdout.flush()
    report.write(folder, name, [report.comparison_record(each) for each in comparisons])
    return sum(not each.agrees for each in comparisons)


def _watched(name: str, quick: bool) -> Iterator[Comparison]:
    """The comparisons of one benchmark, each named on standard error as it is done."""
    results = descent.run(quick) if name == "descent" else em.run(name.removeprefix("em-"), quick)
    for comparison in results:
        print(f"  {comparison.size} {comparison.dtype} done", file=sys.stderr, flush=True)
        yield comparison


if __name__ == "__main__":
    sys.exit(main())

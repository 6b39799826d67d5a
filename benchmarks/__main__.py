"""``python -m benchmarks [--quick] [--only NAME ...] [--output DIR]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import THREADS, collapse, descent, em, frames, memory, reliability, report, starts
from benchmarks.timing import Comparison

RESULTS = Path(__file__).parent / "results"
EM_NAMES = tuple(f"em-{family}" for family in em.FAMILIES)
# Memory first: a process started from a small one.
NAMES = ("memory", *EM_NAMES, "descent", "starts", "reliability", "collapse", "frames")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. 1 if contenders disagree, whatever their times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time gmmedu.")
    parser.add_argument("--quick", action="store_true", help="small sizes; proves that it runs")
    parser.add_argument(
        "--only", nargs="+", choices=("em", *NAMES), metavar="NAME", help=", ".join(("em", *NAMES))
    )
    parser.add_argument("--output", type=Path, help="folder for the JSON files and the figure")
    options = parser.parse_args(arguments)
    folder = options.output or (RESULTS / "quick" if options.quick else RESULTS)
    chosen = options.only or NAMES

    torch.set_num_threads(THREADS)
    disagreements = 0
    for name in NAMES:
        if name in chosen or (name in EM_NAMES and "em" in chosen):
            disagreements += _run(name, options.quick, folder)
    figure = report.draw(folder)
    if figure is not None:
        print(f"Figure: {figure}")
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
    if name == "starts":
        shares = []
        for share in starts.run(quick):
            shares.append(share)
            done = f"{share.fitter} from {share.method}, mitigation {share.mitigation}"
            print(f"  {done} done", file=sys.stderr, flush=True)
        print(report.share_table(shares), flush=True)
        report.write(folder, name, [share.record() for share in shares])
        return 0
    if name == "reliability":
        rows = []
        for row in reliability.run(quick):
            rows.append(row)
            if row.family == "constant":
                done = f"{row.fitter}, {row.mitigation}, {row.data}"
                print(f"  {done} done", file=sys.stderr, flush=True)
        print(report.reliability_table(rows), flush=True)
        report.write(folder, name, [row.record() for row in rows])
        return 0
    if name in ("collapse", "frames"):
        measured = collapse.run(quick) if name == "collapse" else frames.run(quick)
        records = [each.record() for each in measured]
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

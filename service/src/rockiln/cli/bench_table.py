"""A report as a table on the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from rockiln.cli.bench_report import BenchReport


def print_table(report: BenchReport) -> None:
    """A row for each case, on standard output."""
    table = Table(caption=_caption(report), caption_justify="left")
    table.add_column("scheduler", no_wrap=True)
    for head in ("size", "steps", "seconds", "min to max", "steps/s", "peak GiB"):
        table.add_column(head, justify="right")
    for case in report.cases:
        row = [case.scheduler, f"{case.width}x{case.height}", str(case.steps)]
        seconds, speed, peak = case.picture_seconds, case.steps_per_second, case.peak_bytes
        if seconds is None:
            table.add_row(*row, "none")
            continue
        table.add_row(
            *row,
            f"{seconds.median:.3g}",
            f"{seconds.min:.3g} to {seconds.max:.3g}",
            "" if speed is None else f"{speed.median:.3g}",
            "" if peak is None else f"{peak / 2**30:.2f}",
        )
    Console().print(table)
    for case in report.cases:
        if case.failure is not None:
            what = f"{case.scheduler}, {case.width}x{case.height}, {case.steps} steps"
            print(f"rockiln: {what}: {case.failure}", file=sys.stderr)


def _caption(report: BenchReport) -> str:
    versions = ", ".join(
        f"{name} {report.versions[name]}"
        for name in ("rockiln", "rocm", "torch", "diffusers")
        if name in report.versions
    )
    return f"{report.model.id} on {report.where}; {versions}"

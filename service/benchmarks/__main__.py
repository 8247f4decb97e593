"""``nox -s bench -- first-picture``, ``load``, …: a table, and JSON on request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.result import Result

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
JsonFile = Annotated[Path | None, typer.Option("--json", help="Where to write the result.")]


@app.command()
def first_picture(model: str = "vista", pairs: int = 7, json_file: JsonFile = None) -> None:
    """Whole request against bare diffusers, memory, /livez under load."""
    from benchmarks.first_picture import measure  # noqa: PLC0415 (torch loads for seconds)

    _show(measure(model=model, pairs=pairs), json_file)


@app.command()
def bootstrap(runs: int = 3, json_file: JsonFile = None) -> None:
    """./bootstrap.sh again, on this host."""
    from benchmarks.bootstrap import measure  # noqa: PLC0415 (as above)

    _show(measure(runs=runs), json_file)


@app.command()
def overhead(
    model: str = "vista", side: int = 512, calls: int = 30, json_file: JsonFile = None
) -> None:
    """A call against the engine's own time for its picture."""
    from benchmarks.overhead import measure  # noqa: PLC0415 (as above)

    _show(measure(model=model, side=side, calls=calls), json_file)


@app.command()
def load(runs: int = 5, size: str = "sd15", json_file: JsonFile = None) -> None:
    """Load of a cached model (random weights) to ready, against reading its files once."""
    from benchmarks.models import measure_load  # noqa: PLC0415 (as above)

    _show(measure_load(runs=runs, size=size), json_file)


@app.command()
def switch(runs: int = 5, size: str = "sd15", json_file: JsonFile = None) -> None:
    """Jobs of two models in turn that both fit."""
    from benchmarks.models import measure_switch  # noqa: PLC0415 (as above)

    _show(measure_switch(runs=runs, size=size), json_file)


@app.command()
def proxy_switch(runs: int = 5, json_file: JsonFile = None) -> None:
    """Connections refused while the proxy is replaced, against a restart."""
    from benchmarks.proxy_switch import measure  # noqa: PLC0415 (it needs the host half's modules)

    _show(measure(runs=runs), json_file)


def _show(result: Result, json_file: Path | None) -> None:
    print(result.markdown())
    if json_file is not None:
        result.write(json_file)
    if any(figure.within_bound is False for figure in result.figures):
        raise typer.Exit(1)


app()

"""``rockiln models …``. Each command imports what it needs when it runs."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

from typing import Annotated

import typer

from rockiln.cli.options import URL, JsonOption, ModelArgument, UrlOption

_EXIT_CODES = (
    "Exit codes: 0 done, 2 wrong command line, 3 no service, 4 refused, 5 it failed, "
    "6 it was cancelled, 130 interrupted (a download is cancelled)."
)

app = typer.Typer(name="models", help="The models of the service.", no_args_is_help=True)


@app.command("list", epilog=_EXIT_CODES)
def models_list(url: UrlOption = URL, json_output: JsonOption = False) -> None:
    """List the models that are here and those that can be downloaded."""
    from rockiln.cli.models import run_list

    raise typer.Exit(run_list(url, json_output=json_output))


@app.command("show", epilog=_EXIT_CODES)
def models_show(
    model: ModelArgument, url: UrlOption = URL, json_output: JsonOption = False
) -> None:
    """Show all that is known of a model."""
    from rockiln.cli.models import run_show

    raise typer.Exit(run_show(url, model, json_output=json_output))


@app.command("pull", epilog=_EXIT_CODES)
def models_pull(
    model: ModelArgument,
    url: UrlOption = URL,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="You have read its licence and accept it."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Download a known model. What arrived stays if it breaks off; pull again to go on."""
    from rockiln.cli.models import run_pull

    raise typer.Exit(run_pull(url, model, accept_licence=accept_licence, json_output=json_output))


@app.command("verify", epilog=_EXIT_CODES)
def models_verify(
    model: ModelArgument, url: UrlOption = URL, json_output: JsonOption = False
) -> None:
    """Read a model's files again and compare with what is known of them."""
    from rockiln.cli.models import run_task

    raise typer.Exit(run_task(url, model, "verify", json_output=json_output))


@app.command("rm", epilog=_EXIT_CODES)
def models_rm(model: ModelArgument, url: UrlOption = URL, json_output: JsonOption = False) -> None:
    """Delete a model's files."""
    from rockiln.cli.models import run_task

    raise typer.Exit(run_task(url, model, "rm", json_output=json_output))

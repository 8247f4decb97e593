"""``rockiln jobs …``. Each command imports what it needs when it runs."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rockiln.cli.options import URL, JobArgument, JsonOption, PictureOption, UrlOption, complete_job

_EXIT_CODES = (
    "Exit codes: 0 done, 1 cannot write the file, 2 wrong command line, 3 no service, 4 refused, "
    "5 the job failed, 6 the job was cancelled, 130 interrupted."
)

app = typer.Typer(name="jobs", help="The jobs of the service.", no_args_is_help=True)


@app.command("list", epilog=_EXIT_CODES)
def jobs_list(
    url: UrlOption = URL,
    state: Annotated[
        str | None, typer.Option(help="Only jobs in this state, such as accepted or failed.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, up to 100.")] = 20,
    json_output: JsonOption = False,
) -> None:
    """List the newest jobs."""
    from rockiln.cli.jobs import run_list

    raise typer.Exit(run_list(url, state=state, limit=limit, json_output=json_output))


@app.command("show", epilog=_EXIT_CODES)
def jobs_show(job: JobArgument, url: UrlOption = URL, json_output: JsonOption = False) -> None:
    """Show what is known of a job: its place, its attempts, its pictures, why it failed."""
    from rockiln.cli.jobs import run_show

    raise typer.Exit(run_show(url, job, json_output=json_output))


@app.command("watch", epilog=_EXIT_CODES)
def jobs_watch(  # noqa: PLR0917 (typer passes them by name)
    job: JobArgument,
    url: UrlOption = URL,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Save its pictures; {seed} and {index} are filled in."),
    ] = None,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the job, too.")
    ] = False,
    picture: PictureOption = True,
    json_output: JsonOption = False,
) -> None:
    """Follow a job to its end. Ctrl-C leaves it as it is."""
    from rockiln.cli.jobs import run_watch

    code = run_watch(
        url, job, output=output, cancels=cancel_on_interrupt, picture=picture,
        json_output=json_output,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command("cancel", epilog=_EXIT_CODES)
def jobs_cancel(
    jobs: Annotated[
        list[str], typer.Argument(help="Job ids, see above.", autocompletion=complete_job)
    ],
    url: UrlOption = URL,
    json_output: JsonOption = False,
) -> None:
    """Cancel jobs: a waiting one at once, a running one at its next step."""
    from rockiln.cli.jobs import run_cancel

    raise typer.Exit(run_cancel(url, jobs, json_output=json_output))


@app.command("retry", epilog=_EXIT_CODES)
def jobs_retry(job: JobArgument, url: UrlOption = URL, json_output: JsonOption = False) -> None:
    """Send the same again as a new job, with the same seed; prints its id."""
    from rockiln.cli.jobs import run_retry

    raise typer.Exit(run_retry(url, job, json_output=json_output))


@app.command("move", epilog=_EXIT_CODES)
def jobs_move(
    job: JobArgument,
    to: Annotated[Literal["first", "up", "down"], typer.Argument(help="Among your own jobs.")],
    url: UrlOption = URL,
    json_output: JsonOption = False,
) -> None:
    """Let a waiting job run earlier or later."""
    from rockiln.cli.jobs import run_move

    raise typer.Exit(run_move(url, job, to, json_output=json_output))


@app.command("rm", epilog=_EXIT_CODES)
def jobs_rm(job: JobArgument, url: UrlOption = URL) -> None:
    """Delete a job for good, with its pictures and its log, whatever its state."""
    from rockiln.cli.jobs import run_rm

    raise typer.Exit(run_rm(url, job))

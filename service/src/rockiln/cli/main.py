"""The ``rockiln`` command. Each command imports what it needs when it runs: probes start fast."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rockiln.cli import job_commands, model_commands
from rockiln.cli.options import (
    OUTPUT,
    URL,
    JsonOption,
    OutputOption,
    PictureOption,
    UrlOption,
    complete_model,
)

KEY_NAME_MAX_CHARS = 64

app = typer.Typer(
    name="rockiln",
    help="Picture generation on AMD GPUs that does not lose work.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(name="store", help="The job store of this host.", no_args_is_help=True)
app.add_typer(store_app)
cache_app = typer.Typer(
    name="cache", help="Compiled kernels of this host's GPU.", no_args_is_help=True
)
app.add_typer(cache_app)

app.add_typer(model_commands.app)
app.add_typer(job_commands.app)
keys_app = typer.Typer(
    name="keys", help="Keys to a service that is published off loopback.", no_args_is_help=True
)
app.add_typer(keys_app)


@app.command("api")
def api() -> None:
    """Serve the HTTP API (container entry). Brings the store to this version first."""
    from rockiln.cli.processes import run_api

    run_api()


@app.command("worker")
def worker() -> None:
    """Make pictures (container entry)."""
    from rockiln.cli.processes import run_worker

    raise typer.Exit(run_worker())


@app.command("fetcher")
def fetcher() -> None:
    """Download the models that were asked for (container entry)."""
    from rockiln.cli.processes import run_fetcher

    raise typer.Exit(run_fetcher())


@app.command("serve")
def serve(
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT to serve on. Default: 127.0.0.1:8000.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Jobs and pictures. Default without root: the user's data folder."),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="A further folder of models, such as service/models.")
    ] = None,
) -> None:
    """Run api and worker as plain processes, in the foreground, until interrupted."""
    from rockiln.cli.serve import run_serve

    raise typer.Exit(run_serve(listen=listen, data_dir=data_dir, models_dir=models_dir))


@app.command(
    "generate",
    epilog="Exit codes: 0 done, 1 cannot write the file, 2 wrong command line, 3 no service, "
    "4 refused, 5 the job failed, 6 the job was cancelled, 130 interrupted (the job is cancelled).",
)
def generate(  # noqa: PLR0917 (typer passes them by name)
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    url: UrlOption = URL,
    output: OutputOption = OUTPUT,
    negative_prompt: Annotated[str | None, typer.Option(help="What it should not show.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Pull towards the prompt.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random if left out.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Sampling method.")] = None,
    num_images: Annotated[int | None, typer.Option("--num-images", "-n")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model id, see rockiln models list.", autocompletion=complete_model),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE[,scale=N][,start=N][,end=N]",
            help="A ControlNet and the map that it follows; several add up. See GET /controlnets.",
        ),
    ] = None,
    picture_format: Annotated[
        str | None,
        typer.Option("--format", help="png, jpeg or webp. Default: by the file's suffix."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the job's id and do not wait.")
    ] = False,
    picture: PictureOption = True,
    json_output: JsonOption = False,
) -> None:
    """Make pictures and print the paths of their files."""
    from rockiln.cli.generate import read_control, run_generate

    try:
        controlnets = [read_control(each) for each in control or ()]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--control") from error
    body = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "width": width,
        "height": height,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
        "scheduler": scheduler,
        "num_images": num_images,
        "model": model,
        "controlnets": controlnets or None,
        "format": picture_format,
    }
    given = {name: value for name, value in body.items() if value is not None}
    code = run_generate(
        url, given, output=output, detach=detach, picture=picture, json_output=json_output
    )
    raise typer.Exit(code)


@app.command(
    "bench",
    epilog="Exit codes: 0 done, 1 cannot write a file, 2 wrong command line, 3 no service, "
    "4 refused, 5 a job failed, 6 a job was cancelled, 130 interrupted. What was measured until "
    "then is shown and written.",
)
def bench(  # noqa: PLR0917 (typer passes them by name)
    model: Annotated[
        str | None, typer.Argument(help="Model id; the service's default if left out.")
    ] = None,
    url: UrlOption = URL,
    sizes: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT, several separated by commas.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Numbers of steps, separated by commas.")] = "10,20,50",
    schedulers: Annotated[
        str | None, typer.Option(help="Separated by commas. Default: all that the model takes.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Pictures of each case.")] = 3,
    export: Annotated[Path | None, typer.Option(help="Write the report as JSON here, too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it here; ends in .svg.")] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of the table.")
    ] = False,
) -> None:
    """Measure time, memory and steps per second of schedulers and sizes on the running service."""
    from rockiln.cli.bench import UsageError, read_wanted, run_bench

    try:
        wanted = read_wanted(model, sizes=sizes, steps=steps, schedulers=schedulers, runs=runs)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(
        run_bench(
            url,
            wanted,
            command=sys.argv[1:],
            json_output=json_output,
            export=export,
            plot=plot,
        )
    )


@app.command("wait")
def wait(
    url: UrlOption = URL,
    timeout_seconds: Annotated[float, typer.Option(min=0, help="Give up after this.")] = 300.0,
    json_output: JsonOption = False,
) -> None:
    """Wait until the service is ready. Exit code 1 with the reason when it is not."""
    from rockiln.cli.probes import run_wait

    raise typer.Exit(run_wait(url, timeout_seconds=timeout_seconds, json_output=json_output))


@app.command("health")
def health(
    process: Annotated[Literal["api", "worker"], typer.Argument(help="Which one.")],
) -> None:
    """Tell whether the api or the worker of this host is well (container health check)."""
    from rockiln.cli.probes import run_health

    raise typer.Exit(run_health(process))


@app.command("doctor", epilog="Exit codes: 0 all is well, 1 warnings, 2 blockers.")
def doctor(
    json_output: Annotated[
        bool, typer.Option("--json", help="Print facts and findings as JSON.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Of the containers' names.")] = "rockiln",
) -> None:
    """Measure this host or container and say what is wrong, why, and what to do."""
    from rockiln.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(json_output=json_output, prefix=prefix))


@app.command("report", epilog="Exit codes: 0 written, 1 the file cannot be written.")
def report(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it as JSON to this file.")
    ] = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="With the prompts of jobs that failed.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Of the containers' names.")] = "rockiln",
    json_output: JsonOption = False,
) -> None:
    """Tell how this host stands, for whoever helps: without secrets, and without prompts."""
    from rockiln.cli.report import run_report

    code = run_report(output=output, prompts=prompts, prefix=prefix, json_output=json_output)
    raise typer.Exit(code)


@app.command("version")
def version(json_output: JsonOption = False) -> None:
    """Print the version."""
    from rockiln import __version__

    print(f'{{"rockiln": "{__version__}"}}' if json_output else __version__)


@app.command("backup")
def backup(
    dest: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    json_output: JsonOption = False,
) -> None:
    """Copy jobs and pictures into a folder, while the service runs."""
    from rockiln.cli.backup import run_backup

    raise typer.Exit(run_backup(dest, json_output=json_output))


@app.command("restore")
def restore(
    src: Annotated[Path, typer.Argument(help="A folder that rockiln backup made.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move jobs and pictures that are there aside.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Put a backup back. The service must not run; the backup is verified first."""
    from rockiln.cli.restore import run_restore

    raise typer.Exit(run_restore(src, replace=replace, json_output=json_output))


@app.command("unwedge", epilog="Exit codes: 0 it works, 1 it does not, 2 there is no such worker.")
def unwedge(
    worker: Annotated[str, typer.Argument(help="Its name; every wedged one if left out.")] = "",
) -> None:
    """Let a wedged worker try its GPU now, after a reset, instead of at its next proof."""
    from rockiln.cli.configuration import load_settings
    from rockiln.cli.unwedge import run_unwedge

    raise typer.Exit(run_unwedge(load_settings(), worker))


@app.command("warmup", epilog="Exit codes: 0 all are warm, 1 one failed, 2 wrong command line.")
def warmup(
    model: Annotated[str, typer.Argument(help="Model id, see GET /models.")],
    sizes: Annotated[str, typer.Option(help="WIDTHxHEIGHT, several separated by commas.")],
    json_output: JsonOption = False,
) -> None:
    """Compile the kernels for sizes before anybody waits for them. Needs a running worker."""
    from rockiln.cli.configuration import load_settings
    from rockiln.cli.warmup import run_warmup

    raise typer.Exit(run_warmup(load_settings(), model, sizes, json_output=json_output))


@cache_app.command("export")
def cache_export(
    file: Annotated[Path, typer.Argument(help="Where to write the tar file.")],
) -> None:
    """Write this host's compiled kernels to a file, for another host with the same card."""
    from rockiln.cli.cache import run_export
    from rockiln.cli.configuration import load_settings

    raise typer.Exit(run_export(load_settings().cache_dir, file))


@cache_app.command("import")
def cache_import(
    file: Annotated[Path, typer.Argument(help="What `rockiln cache export` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Give up the kernels that are here.")
    ] = False,
) -> None:
    """Take compiled kernels of a host with the same card, ROCm and torch."""
    from rockiln.cli.cache import run_import
    from rockiln.cli.configuration import load_settings

    raise typer.Exit(run_import(load_settings().cache_dir, file, replace=replace))


@keys_app.command("create", epilog="Scopes: generate, models, admin (all, of everybody).")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose it is, at most 64 characters.")],
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="What it opens; may come again.")
    ] = None,
    max_jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs of its own that may wait.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Make a key and print it, once."""
    from rockiln.cli.configuration import load_settings
    from rockiln.cli.keys import run_create

    if len(name) > KEY_NAME_MAX_CHARS:
        raise typer.BadParameter(f"a name has at most {KEY_NAME_MAX_CHARS} characters")
    code = run_create(
        load_settings(), name, scopes or ["generate"], max_jobs, json_output=json_output
    )
    raise typer.Exit(code)


@keys_app.command("list")
def keys_list(json_output: JsonOption = False) -> None:
    """Show all keys, without their secrets."""
    from rockiln.cli.configuration import load_settings
    from rockiln.cli.keys import run_list

    raise typer.Exit(run_list(load_settings(), json_output=json_output))


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="See rockiln keys list.")],
    json_output: JsonOption = False,
) -> None:
    """Close a key for good."""
    from rockiln.cli.configuration import load_settings
    from rockiln.cli.keys import run_revoke

    raise typer.Exit(run_revoke(load_settings(), key_id, json_output=json_output))


@store_app.command("migrate")
def store_migrate() -> None:
    """Bring the store to this version. Safe to run at any time, any number of times."""
    from rockiln.cli.processes import migrate_store

    migrate_store()


def main() -> None:
    """The console script."""
    app(prog_name="rockiln")  # also as python -m rockiln: completion goes by the name

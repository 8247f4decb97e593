"""``rockiln generate``: a job over HTTP, its progress, its pictures as files."""

from __future__ import annotations

import base64
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from rockiln.cli import exit_codes
from rockiln.cli.calls import CommandEndError, Document, accepted, run_calls
from rockiln.cli.client import Client
from rockiln.cli.terminal_picture import show_picture
from rockiln.cli.watch import follow, raise_for_failure

STANDARD_OUTPUT = "-"
_CONTROL_SETTINGS = ("scale", "start", "end")
FORMAT_BY_SUFFIX = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def run_generate(
    url: str, body: dict[str, Any], *, output: str, detach: bool, picture: bool, json_output: bool
) -> int:
    """Makes the pictures; returns the exit code.

    Args:
        detach: return once the job is accepted.
        picture: whether a terminal that can is shown the pictures.
    """

    def work(client: Client) -> None:
        if output == STANDARD_OUTPUT and body.get("num_images", 1) != 1:
            raise CommandEndError(
                exit_codes.USAGE, "standard output takes one picture; use -o FILE"
            )
        job = submit(client, _formatted(body, output))
        if detach:
            print(json.dumps(job) if json_output else job["id"])
            return
        try:
            job = follow(client, job)
        except KeyboardInterrupt:
            client.call("DELETE", job["href"])
            raise CommandEndError(
                exit_codes.INTERRUPTED, "interrupted; the job is cancelled"
            ) from None
        raise_for_failure(job)
        hand_over(client, job, output, picture=picture, json_output=json_output)

    return run_calls(url, work)


def read_control(text: str) -> dict[str, Any]:
    """NAME=FILE[,scale=N][,start=N][,end=N] as an entry of ``controlnets``.

    Raises:
        ValueError: it is not of that form, or the file cannot be read; the text says which.
    """
    name, _, rest = text.partition("=")
    file, *settings = rest.split(",")
    if not name or not file:
        raise ValueError(f"{text!r} is not NAME=FILE")
    said: dict[str, Any] = {"name": name}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in _CONTROL_SETTINGS:
            raise ValueError(f"{setting!r} is none of {', '.join(_CONTROL_SETTINGS)}")
        try:
            said[key] = float(value)
        except ValueError:
            raise ValueError(f"{setting!r}: {value!r} is no number") from None
    try:
        said["image"] = base64.b64encode(Path(file).read_bytes()).decode("ascii")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    return said


def submit(client: Client, body: dict[str, Any]) -> Document:
    """The accepted job."""
    headers = {"Prefer": "respond-async", **once()}
    return accepted(client.call("POST", "/generate", body=body, headers=headers))


def once() -> dict[str, str]:
    """The header that makes it safe to send a request again when its answer gets lost."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def _formatted(body: dict[str, Any], output: str) -> dict[str, Any]:
    suffix = Path(output).suffix.lower()
    if "format" in body or suffix not in FORMAT_BY_SUFFIX:
        return body
    return {**body, "format": FORMAT_BY_SUFFIX[suffix]}


def hand_over(
    client: Client, job: Document, output: str, *, picture: bool, json_output: bool
) -> None:
    """Writes the pictures of a job that is done, and tells where they are."""
    for warning in job["warnings"]:
        print(f"rockiln: warning: {warning}", file=sys.stderr)
    paths = []
    for each in job["pictures"]:
        reply = client.call("GET", each["href"], headers={"Accept": "*/*"})
        if not reply.ok:
            raise CommandEndError(exit_codes.JOB_FAILED, reply.told())
        if output == STANDARD_OUTPUT:
            sys.stdout.buffer.write(reply.body)
            continue
        path = output_path(output, each, count=len(job["pictures"]))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reply.body)
        except OSError as error:
            raise CommandEndError(
                exit_codes.FAILED, f"{path} cannot be written: {error.strerror}; the picture is "
                f"still at {client.url}{each['href']}",
            ) from error  # fmt: skip
        paths.append(str(path))
        if not json_output:
            if picture:
                show_picture(reply.body, os.environ)
            print(path)
    if json_output:
        print(json.dumps({**job, "files": paths}))


def output_path(template: str, picture: dict[str, Any], *, count: int) -> Path:
    """The file of one picture. Several pictures never share a name."""
    index = picture["index"]
    path = Path(template.replace("{seed}", str(picture["seed"])).replace("{index}", str(index)))
    if count > 1 and "{index}" not in template and "{seed}" not in template:
        path = path.with_stem(f"{path.stem}-{index}")
    return path

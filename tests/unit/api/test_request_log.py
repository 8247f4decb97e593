"""What is logged of a request, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from rockiln.api.server import gunicorn_command
from rockiln.settings import Settings
from rockiln.telemetry.logs import configure_logging
from support.front import Front

SECRET = "a prompt that nobody else should read"


def test_a_line_has_the_route_and_the_job_and_nothing_that_was_said(front: Front) -> None:
    with capture_logs() as logged:
        job_id = front.submit(prompt=SECRET)
        front.client.get(f"/jobs/{job_id}")
        front.client.post("/generate", json={"prompt": SECRET, "width": 7})
        front.client.post("/generate", data=SECRET, content_type=SECRET)
        front.client.get(f"/{SECRET}")
    answered = [line for line in logged if line["event"] == "request.answered"]
    assert [line["status"] for line in answered] == [202, 200, 400, 415, 404]
    assert answered[1]["route"] == "/jobs/<job_id>"
    assert answered[0]["job_id"] == answered[1]["job_id"] == job_id
    assert SECRET not in json.dumps(logged, default=repr)


def test_probes_do_not_fill_the_log(front: Front) -> None:
    with capture_logs() as logged:
        front.client.get("/livez")
    assert [line["log_level"] for line in logged] == ["debug"]


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_as_before")
def test_ours_and_a_librarys_events_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    structlog.get_logger("rockiln.test").info("job.done", job_id="1")
    structlog.get_logger("rockiln.test").debug("not.shown")
    logging.getLogger("library").warning("%s happened", "it")
    try:
        raise ValueError("the reason")
    except ValueError:
        structlog.get_logger("rockiln.test").exception("job.broken")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["job.done", "it happened", "job.broken"]
    assert lines[0]["job_id"] == "1"
    assert "the reason" in lines[2]["exception"]
    assert all(line["timestamp"].endswith("Z") and line["level"] for line in lines)


def test_the_server_has_more_threads_than_calls_may_wait() -> None:
    settings = Settings()
    command = gunicorn_command(settings)
    assert f"--threads={settings.api_threads}" in command
    assert "--workers=1" in command
    assert settings.api_threads > settings.waiting_slots

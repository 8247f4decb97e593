"""The other commands, as a person or a container runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rockiln import __version__
from rockiln.cli.main import app
from rockiln.cli.serve import default_data_dir, serve_settings
from rockiln.settings import Settings
from rockiln.store.records import WorkerState
from support.command import rockiln
from support.front import SOURCE, ServedFront
from support.service import eventually, free_port

pytestmark = pytest.mark.slow

COMMANDS = ["api", "worker", "serve", "generate", "wait", "health", "version", "store"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["version"]).stdout.strip() == __version__


def test_wait_ends_when_the_service_is_ready_and_says_why_it_is_not(tmp_path: Path) -> None:
    with ServedFront(tmp_path) as fresh:
        ended = rockiln(fresh, "wait", "--timeout-seconds", "0.1")
        assert ended.returncode == 1
        assert "no worker has reported yet" in ended.stderr
        waiting = subprocess.Popen(
            [sys.executable, "-m", "rockiln", "wait"], env=fresh.environment()
        )
        eventually(lambda: ended_meanwhile(fresh, waiting), "wait has ended")
    assert waiting.returncode == 0


def test_answers_come_as_json_on_request(served: ServedFront) -> None:
    def said(*words: str) -> Any:
        return json.loads(rockiln(served, *words, "--json").stdout)

    assert said("version") == {"rockiln": __version__}
    served.hand.report()
    assert said("wait", "--timeout-seconds", "5") == {"ready": True, "reason": None}
    away = said("wait", "--timeout-seconds", "0", "--url", "http://127.0.0.1:1")
    assert (away["ready"], "refused" in away["reason"]) == (False, True)
    assert served.store.keys.find(said("keys", "create", "lab")["key"]) is not None
    (key,) = said("keys", "list")
    assert said("keys", "revoke", key["id"])["revoked_at"] is not None


def ended_meanwhile(front: ServedFront, waiting: subprocess.Popen[bytes]) -> bool:
    front.hand.report()  # a worker reports again and again
    return waiting.poll() is not None


def test_wait_without_a_service_says_so(served: ServedFront) -> None:
    ended = rockiln(served, "wait", "--timeout-seconds", "0", "--url", "http://127.0.0.1:1")
    assert ended.returncode == 1
    assert "refused" in ended.stderr


def test_health_tells_of_either_process(served: ServedFront) -> None:
    assert rockiln(served, "health", "api").returncode == 0
    served.hand.report(WorkerState.FAILED, detail="no device")
    ended = rockiln(served, "health", "worker")
    assert (ended.returncode, ended.stderr) == (1, "rockiln: worker: failed: no device\n")
    served.hand.report()
    assert rockiln(served, "health", "worker").returncode == 0


def test_health_of_nothing_is_bad(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "ROCKILN_DATA_DIR": str(tmp_path),
        "ROCKILN_API_BIND": f"127.0.0.1:{free_port()}",
    }
    for process in ("api", "worker"):
        ended = subprocess.run(
            [sys.executable, "-m", "rockiln", "health", process],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (ended.returncode, ended.stderr.count("Traceback")) == (1, 0)


@pytest.mark.parametrize("command", ["api", "worker", "fetcher", "store migrate", "keys list"])
def test_a_data_folder_that_cannot_be_is_refused_in_words(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "ROCKILN_DATA_DIR": str(tmp_path / "file" / "data"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "rockiln", *command.split()],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr.count("Traceback")) == (1, 0)
    assert "ROCKILN_DATA_DIR" in ended.stdout + ended.stderr


def test_migrate_can_be_run_again(served: ServedFront) -> None:
    for _ in range(2):
        assert rockiln(served, "store", "migrate").returncode == 0


def test_a_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKILN_LOG_LEVEL", "loud")
    ended = CliRunner().invoke(app, ["store", "migrate"])
    assert ended.exit_code == 1
    assert "ROCKILN_LOG_LEVEL" in ended.stderr


def test_settings_that_do_not_go_together_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKILN_WAITING_SLOTS", "48")
    ended = CliRunner().invoke(app, ["api"])
    assert ended.exit_code == 1
    assert "must be less than api_threads" in ended.stderr


def serve(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rockiln", "serve", "--data-dir", str(data_dir), *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_serve_refuses_a_port_in_use_before_it_starts_anything(
    served: ServedFront, tmp_path: Path
) -> None:
    ended = serve("--listen", f"127.0.0.1:{served.port}", data_dir=tmp_path)
    assert ended.returncode == 1
    assert re.search(r"in use\nnext: .*--listen", ended.stderr)
    assert not (tmp_path / "store/rockiln.db").exists()


@pytest.mark.parametrize("address", ["0.0.0.0:8000", "192.0.2.1:8000", "8000", "127.0.0.1:0"])
def test_serve_refuses_an_address_it_may_not_use(address: str, tmp_path: Path) -> None:
    ended = serve("--listen", address, data_dir=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("rockiln: --listen: ")
    assert "Traceback" not in ended.stderr


def test_serve_refuses_https_for_everybody_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKILN_TLS_ADDRESS", "0.0.0.0:8443")
    ended = serve("--listen", f"127.0.0.1:{free_port()}", data_dir=tmp_path)
    assert (ended.returncode, ended.stderr.count("ROCKILN_TLS_ADDRESS: 0.0.0.0:8443")) == (1, 1)


def test_serve_refuses_a_folder_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = serve("--listen", f"127.0.0.1:{free_port()}", data_dir=tmp_path / "file")
    assert ended.returncode == 1
    assert "--data-dir" in ended.stderr


def test_serve_refuses_a_folder_that_another_one_uses(served: ServedFront, tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "rockiln", "serve", "--data-dir", str(tmp_path), "--listen",
         f"127.0.0.1:{free_port()}"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert first.stderr is not None
        assert b"rockiln starts" in first.stderr.readline()  # it has the lock by then
        ended = serve("--listen", f"127.0.0.1:{free_port()}", data_dir=tmp_path)
        assert (ended.returncode, "another rockiln serve" in ended.stderr) == (1, True)
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_the_data_folder_is_the_option_then_the_setting_then_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert default_data_dir(Settings()) == tmp_path / "share" / "rockiln"
    monkeypatch.setenv("ROCKILN_DATA_DIR", str(tmp_path / "set"))
    assert default_data_dir(Settings()) == tmp_path / "set"
    chosen = serve_settings(listen=None, data_dir=tmp_path / "option", models_dir=None)
    assert chosen.data_dir == tmp_path / "option"


def test_listen_is_where_it_binds_and_what_it_answers_to(tmp_path: Path) -> None:
    settings = serve_settings(listen="[::1]:8123", data_dir=tmp_path, models_dir=Path("models"))
    assert settings.api_bind == settings.published_address == "[::1]:8123"
    assert settings.bundled_models_dir == Path("models").absolute()

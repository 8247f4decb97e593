"""A PostgreSQL of the distribution, started in a folder of its own: durable, never as root."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from support.service import eventually

ACCOUNT = "postgres"
START_SECONDS = 60
# Everything that makes a commit survive a power cut is on, as in production.
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "logging_collector": "off",
}


def find_binaries() -> Path:
    """The newest version that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(re.sub(r"\D", "", path.parts[-3])),
    )
    if not found:
        raise FileNotFoundError("no /usr/lib/postgresql/*/bin/postgres: install postgresql")
    return found[-1].parent


class PostgresServer:
    """One server, reached by a socket in its folder."""

    def __init__(self) -> None:
        self._binaries = find_binaries()
        # Below /tmp: the test runner's own temporary folders are closed to other accounts.
        self.folder = Path(tempfile.mkdtemp(prefix="rockiln-pg-", dir="/tmp"))
        self._names = (f"test{number}" for number in itertools.count())
        self._process: subprocess.Popen[bytes] | None = None
        self._as_account: list[str] = []
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as_account = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}",
                                "--init-groups"]  # fmt: skip
        subprocess.run(
            [*self._as_account, self._binaries / "initdb", "--auth=trust", "--encoding=UTF8",
             "--locale=C.UTF-8", f"--username={ACCOUNT}", "--pgdata", self.folder / "data"],
            check=True, capture_output=True, cwd=self.folder,
        )  # fmt: skip
        self.start()

    @property
    def socket_file(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def start(self) -> None:
        """Returns when it answers."""
        settings = _SETTINGS | {"unix_socket_directories": str(self.folder)}
        command = [*self._as_account, str(self._binaries / "postgres")]
        command += ["-D", str(self.folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        log.close()
        eventually(self._answers, "PostgreSQL answers", seconds=START_SECONDS)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order, cutting connections; SIGQUIT as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def address(self, database: str) -> str:
        return f"postgresql://{ACCOUNT}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The address of a fresh, empty database."""
        name = next(self._names)
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def cut_connections(self) -> int:
        """Ends every connection of the service, in whatever it is. Returns how many."""
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'rockiln'"
            ).fetchone()
        return int(row[0]) if row else 0

"""Connections to PostgreSQL that end: by the server's clocks, the kernel's, and at last ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # processes on SQLite do not load the driver
    from psycopg import Connection

# Longer than the server's own limit of a statement, which tells more.
ANSWER_SECONDS = 25.0
# Nothing here runs for seconds: a server or a line that stalls is left for another connection.
CONNECT_ARGUMENTS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "rockiln",
    "options": " ".join(
        f"-c {setting}"
        for setting in (
            "synchronous_commit=on",  # a commit is on disk before 202 is sent
            "statement_timeout=20s",
            "lock_timeout=10s",
            "idle_in_transaction_session_timeout=15s",
            "default_transaction_isolation=read\\ committed",
        )
    ),
}


def bounded_connect(answer_seconds: float) -> Callable[..., Connection[Any]]:
    """A listener that opens connections which give a silent server up.

    The kernel notices a host that is gone. It does not notice a proxy, or a server, that keeps the
    line open and says nothing: that would be waited for without end.
    """

    def connect(
        _dialect: Any, _record: Any, arguments: list[Any], named: dict[str, Any]
    ) -> Connection[Any]:
        from psycopg import Connection, OperationalError  # noqa: PLC0415 (see above)

        class BoundedConnection(Connection[Any]):
            """Closed by the wait that was in vain: nobody takes it up again."""

            def wait(self, *given: Any, **kept: Any) -> Any:
                kept["timeout"] = kept.get("timeout") or answer_seconds
                try:
                    return super().wait(*given, **kept)
                except OperationalError as error:
                    if error.sqlstate is None:  # not the server's word
                        self.pgconn.finish()
                    raise

        return BoundedConnection.connect(*arguments, **named)

    return connect

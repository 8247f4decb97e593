"""gunicorn's thread worker, with problem documents for what never reaches the app.

``/livez`` has threads of its own: a disk that stalls holds every thread that stores a job, and the
process must not look dead for it.

gunicorn's master loads this module and never answers a request: the app's modules are imported
only where an answer is made, which keeps the master at a third of the size.
"""

# ruff: noqa: PLC0415 (see above)

from __future__ import annotations

import selectors
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from rockiln.api.problems import ProblemKind

log = structlog.get_logger("rockiln.api")

_PROBE = b"GET /livez"
_PROBE_THREADS = 2


def kind_of_exception(error: BaseException) -> ProblemKind:
    """The row of what gunicorn raised."""
    from rockiln.api.problems import KINDS

    if isinstance(error, LimitRequestLine):
        return KINDS["address-too-long"]
    if isinstance(error, LimitRequestHeaders):
        return KINDS["headers-too-large"]
    return KINDS["bad-request" if isinstance(error, ParseException) else "internal-error"]


def unread_answer(error: BaseException) -> bytes:
    """The whole answer to a request that could not be read."""
    from rockiln.api.guards import HEADERS
    from rockiln.api.problems import PROBLEM_TYPE, problem

    kind = kind_of_exception(error)
    detail = "the HTTP parser refused it" if kind.status < 500 else "the answer could not be sent"  # noqa: PLR2004
    document = problem(kind, f"{detail} ({type(error).__name__})", instance="")
    body = document.model_dump_json(exclude_none=True).encode()
    headers = {
        "Content-Type": PROBLEM_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "x-should-retry": "false",
        **HEADERS,
    }
    lines = [f"HTTP/1.1 {kind.status} {kind.title}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class ProblemWorker(ThreadWorker):  # type: ignore[misc]
    """Differs in the form of its errors, the threads of ``/livez``, and lets go of streams."""

    def init_process(self) -> None:
        self.probe_pool = ThreadPoolExecutor(_PROBE_THREADS, thread_name_prefix="probe")
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """Called with each connection that is new or has something to be read."""
        try:
            start = conn.sock.recv(len(_PROBE), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not conn.initialized:
                self._await_request(conn)
                return
            start = b""  # what it sent is in the parser already
        except OSError:
            start = b""  # the handler meets the same error, and closes
        pool = self.probe_pool if start == _PROBE else self.tpool
        pool.submit(self.handle, conn).add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def _await_request(self, conn: Any) -> None:
        """Without a thread: as gunicorn does with one that has said nothing for 5 s."""
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
        )

    def finish_request(self, conn: Any, fs: Any) -> None:
        if conn.sock.fileno() < 0:  # handed over: it is a stream now, with a cap of its own
            self.nr_conns -= 1
            return
        super().finish_request(conn, fs)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Called for what cannot be parsed, and for an app that raised through its last handler."""
        kind = kind_of_exception(exc)
        if kind.slug == "internal-error":
            log.error("request.failed", exc_info=exc)
        else:  # without the request's own text: it may hold a prompt
            log.info("request.unreadable", reason=type(exc).__name__, status=kind.status)
        try:
            client.sendall(unread_answer(exc))
        except OSError:
            log.debug("client.left")

"""Plain HTTP to the service: the standard library is enough, and starts in no time."""

from __future__ import annotations

import http.client
import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

KEY_VARIABLE = "ROCKILN_KEY"


class UnreachableError(Exception):
    """Nobody answers at the address."""


class AddressError(Exception):
    """The address is not one of a service."""


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty one if it is something else."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def told(self) -> str:
        """A problem document as a person would put it: the cause, the fields, the next step."""
        content = self.json()
        if "detail" not in content:
            return f"the answer is {self.status}, without a reason"
        lines = [str(content["detail"])]
        errors = content.get("errors") or []
        if len(errors) > 1:
            lines += [f"  {each['field']}: {each['message']}" for each in errors]
        hints = [each["hint"] for each in errors if each.get("hint")]
        hint = "; ".join(dict.fromkeys(hints)) or content.get("hint")
        if hint:
            lines.append(f"next: {hint}")
        return "\n".join(lines)


class Client:
    """Calls to one service.

    Raises:
        AddressError: the address is no http or https address.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            port = parts.port
        except ValueError as error:
            raise AddressError(f"{url!r}: {error}") from error
        if parts.scheme not in kinds or not parts.hostname:
            raise AddressError(f"{url!r} is not http://HOST:PORT")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._connection = kinds[parts.scheme](parts.hostname, port, timeout=timeout_seconds)
        self._stream_socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One call.

        Raises:
            UnreachableError: no connection, or it broke before the end of the answer.
        """
        sent = {"Accept": "application/json", **_key(), **(headers or {})}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, data, sent)
            response = self._connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next call opens it anew
            raise UnreachableError(f"{self.url}: {error or type(error).__name__}") from error
        except KeyboardInterrupt:
            self._connection.close()  # half a call is on it, and the job is to be cancelled
            raise

    def open(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """An answer to be read as it comes; reading it may raise OSError or HTTPException.

        Raises:
            UnreachableError: no connection.
        """
        self._connection.close()
        try:
            self._connection.connect()
            self._stream_socket = self._connection.sock  # which an answer takes over
            self._connection.request("GET", path, headers={**_key(), **headers})
            answer: http.client.HTTPResponse = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{self.url}: {error or type(error).__name__}") from error
        return answer

    def abort(self) -> None:
        """Ends whatever another thread reads from this client."""
        if self._stream_socket is not None:
            with suppress(OSError):  # it is closed already
                self._stream_socket.shutdown(socket.SHUT_RDWR)


def _key() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}

"""The Hugging Face hub over HTTP: what a repository holds, and its files from any byte on.

The standard library is enough, honours the proxy and certificate variables, and adds nothing to the
image.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

from rockiln.domain.errors import RockilnError

_LISTING_MAX_BYTES = 32 << 20
_PATH = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OK, _PARTIAL, _RANGE_REFUSED = 200, 206, 416
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class HubError(RockilnError):
    """The hub does not give what was asked; trying again changes nothing."""


class HubGatedError(HubError):
    """The licence has not been accepted by the token's account, or there is no token."""


class HubUnreachableError(HubError):
    """No answer, or half of one: trying again may help."""


@dataclass(frozen=True)
class HubFile:
    """One file at a commit.

    Attributes:
        sha256: of large files; None for those that git itself holds.
        blob_id: git's own digest of the small ones.
    """

    path: str
    size_bytes: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True)
class Listing:
    """A repository at a commit."""

    commit: str
    files: dict[str, HubFile]


class Hub:
    """One hub.

    Args:
        endpoint: its address.
        token: sent to that address alone, never to where it redirects.
        stall_seconds: without a byte, and the connection is given up.
    """

    def __init__(self, endpoint: str, token: str | None, *, stall_seconds: float) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token = token
        self._stall_seconds = stall_seconds
        self._opener = urllib.request.build_opener(_Redirects())

    def listing(self, repository: str, revision: str) -> Listing:
        """What the repository holds. Raises HubError."""
        path = f"/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
        with self._open(path, {"Accept": "application/json"}) as response:
            said = _read_listing(response)
        commit = said.get("sha")
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            raise HubError(f"{repository}: the hub names no commit")
        files = [_file(entry) for entry in said.get("siblings") or []]
        return Listing(commit, {file.path: file for file in files if file is not None})

    def open(self, repository: str, commit: str, path: str, *, start: int) -> HubBody:
        """A file from byte ``start`` on, or from its first where the hub does not do parts.

        Raises:
            HubError: there is no such file, or it is not given.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            response = self._open(f"/{repository}/resolve/{commit}/{quote(path)}", headers)
        except _RangeRefusedError:
            return HubBody(None, 0)
        begins = start if response.status == _PARTIAL else 0
        if response.status == _PARTIAL:
            said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            begins = int(said[1]) if said else -1
            if begins != start:
                response.close()
                raise HubError(f"{path}: the hub sent another part than the one asked for")
        return HubBody(response, begins)

    def _open(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(  # noqa: S310 (the setting's own scheme is checked)
            self._endpoint + path,
            headers={"User-Agent": "rockiln", "Accept-Encoding": "identity", **headers},
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            response: http.client.HTTPResponse = self._opener.open(
                request, timeout=self._stall_seconds
            )
        except urllib.error.HTTPError as error:
            with error:
                _raise_for(error, path)
        except (OSError, http.client.HTTPException) as error:
            raise HubUnreachableError(f"{self._endpoint} does not answer: {error}") from error
        return response


class HubBody:
    """The bytes of a file.

    Attributes:
        begins: at which byte of the file; 0, and no bytes, where less is there than was asked for.
    """

    def __init__(self, response: http.client.HTTPResponse | None, begins: int) -> None:
        self._response = response
        self.begins = begins

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._response is not None:
            self._response.close()

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end. Raises HubUnreachableError."""
        if self._response is None:
            return b""
        try:
            return self._response.read1(count)
        except (OSError, http.client.HTTPException) as error:
            raise HubUnreachableError(f"the connection broke: {error}") from error


class _RangeRefusedError(Exception):
    """More bytes are here than the hub has."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The token stays with the host it is for; https stays https."""

    def redirect_request(  # noqa: PLR0917 (the library's signature)
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in {"http", "https"} or (before.scheme, after.scheme) == (
            "https", "http",
        ):  # fmt: skip
            raise urllib.error.URLError(f"refused to go on to {after.scheme}://{after.netloc}")
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            found.remove_header("Authorization")
        return found


def _raise_for(error: urllib.error.HTTPError, path: str) -> NoReturn:
    code = error.headers.get("X-Error-Code", "")
    told = error.headers.get("X-Error-Message", "")[:300]
    if error.code == _RANGE_REFUSED:
        raise _RangeRefusedError from error
    if error.code in _RETRY_STATUSES:
        raise HubUnreachableError(f"the hub answers {error.code}") from error
    if code == "GatedRepo" or (error.code in {401, 403} and code != "RepoNotFound"):
        raise HubGatedError(told or f"the hub answers {error.code}") from error
    raise HubError(f"the hub answers {error.code} for {path} {code} {told}".rstrip()) from error


def _read_listing(response: http.client.HTTPResponse) -> dict[str, Any]:
    try:
        content = response.read(_LISTING_MAX_BYTES + 1)
        said = json.loads(content) if len(content) <= _LISTING_MAX_BYTES else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HubUnreachableError(f"half an answer: {error}") from error
    if not isinstance(said, dict):
        raise HubError("the hub's answer is no listing of files")
    return said


def _file(entry: Any) -> HubFile | None:
    """A file of a listing; None for one whose name or size is not plain."""
    try:
        path, size_bytes = entry["rfilename"], entry["size"]
        sha256 = (entry.get("lfs") or {}).get("sha256")
        blob_id = entry.get("blobId")
    except (KeyError, TypeError, AttributeError):
        return None
    if not isinstance(path, str) or _PATH.fullmatch(path) is None:
        return None
    if type(size_bytes) is not int or size_bytes < 0:
        return None
    for digest in (sha256, blob_id):
        if digest is not None and (
            not isinstance(digest, str) or re.fullmatch(r"[0-9a-f]{40,64}", digest) is None
        ):
            return None
    return HubFile(path, size_bytes, sha256, blob_id)

"""``rockiln keys``: who may call a service that is published off loopback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast, get_args

from rockiln.cli.exit_codes import FAILED
from rockiln.settings import Settings
from rockiln.store.keys import Scope, UnknownKeyError
from rockiln.store.schema import StoreRefusedError
from rockiln.store.store import Store

_USAGE = 2


def run_create(
    settings: Settings,
    name: str,
    scopes: Sequence[str],
    max_jobs: int | None,
    *,
    json_output: bool,
) -> int:
    """Prints the new key, once."""
    unknown = set(scopes) - set(get_args(Scope))
    if unknown:
        known = ", ".join(get_args(Scope))
        print(f"rockiln: no scope {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return _USAGE
    with _opened(settings) as store:
        key = store.keys.create(name, cast("Sequence[Scope]", scopes), max_jobs)
    print(json.dumps({"key": key}) if json_output else key)
    print("It is shown this once. Send it as Authorization: Bearer KEY.", file=sys.stderr)
    return 0


def run_list(settings: Settings, *, json_output: bool) -> int:
    """Prints every key without its secret."""
    with _opened(settings) as store:
        keys = store.keys.all()
    if json_output:
        print(json.dumps([asdict(key) for key in keys]))
        return 0
    for key in keys:
        made = datetime.fromtimestamp(key.created_at, UTC).date().isoformat()
        state = "" if key.revoked_at is None else "  revoked"
        print(f"{key.id}  {made}  {','.join(key.scopes)}  {key.name}{state}")
    return 0


def run_revoke(settings: Settings, key_id: str, *, json_output: bool) -> int:
    """Takes effect with the next call."""
    with _opened(settings) as store:
        try:
            key = store.keys.revoke(key_id)
        except UnknownKeyError as error:
            print(f"rockiln: {error}\nnext: rockiln keys list", file=sys.stderr)
            return FAILED
    told = f"{key.id} ({key.name}) opens nothing any more"
    print(json.dumps(asdict(key)) if json_output else told)
    return 0


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    with closing(Store(settings)) as store:
        try:
            store.prepare()
        except StoreRefusedError as error:
            print(f"rockiln: {error}", file=sys.stderr)
            raise SystemExit(FAILED) from error
        yield store

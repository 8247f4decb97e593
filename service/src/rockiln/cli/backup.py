"""``rockiln backup``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rockiln.cli.configuration import load_settings
from rockiln.cli.exit_codes import FAILED
from rockiln.store.backup import back_up
from rockiln.store.schema import StoreRefusedError
from rockiln.store.store import Store


def run_backup(target: Path, *, json_output: bool) -> int:
    """Returns the exit status: 1 if nothing was made, or if a picture is damaged."""
    store = Store(load_settings())
    try:
        store.prepare()
        report = back_up(store, target)
    except (OSError, StoreRefusedError) as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return FAILED
    finally:
        store.close()
    if json_output:
        print(json.dumps({"folder": str(target), **asdict(report)}))
    else:
        print(f"{target}: {report.jobs} jobs, {report.files} files, {report.total_bytes} bytes")
    for line in report.damaged:
        print(f"rockiln: damaged, not in the backup: {line}", file=sys.stderr)
    return FAILED if report.damaged else 0

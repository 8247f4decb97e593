"""``rockiln restore``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rockiln.cli.configuration import load_settings
from rockiln.cli.exit_codes import FAILED
from rockiln.store.restore import restore
from rockiln.store.schema import StoreRefusedError


def run_restore(source: Path, *, replace: bool, json_output: bool) -> int:
    """Returns the exit status: 1 if nothing was restored."""
    settings = load_settings()
    try:
        manifest = restore(settings, source, replace=replace)
    except (OSError, StoreRefusedError) as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return FAILED
    jobs, files = manifest["jobs"], len(manifest["files"])
    told = f"{settings.data_dir}: {jobs} jobs, {files} files restored"
    folder = str(settings.data_dir)
    print(json.dumps({"folder": folder, "jobs": jobs, "files": files}) if json_output else told)
    return 0

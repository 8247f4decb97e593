"""``rockiln restore``."""

from __future__ import annotations

import sys
from pathlib import Path

from rockiln.cli.configuration import load_settings
from rockiln.cli.exit_codes import FAILED
from rockiln.store.restore import restore
from rockiln.store.schema import StoreRefusedError


def run_restore(source: Path, *, replace: bool) -> int:
    """Returns the exit status: 1 if nothing was restored."""
    settings = load_settings()
    try:
        manifest = restore(settings, source, replace=replace)
    except (OSError, StoreRefusedError) as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return FAILED
    print(f"{settings.data_dir}: {manifest['jobs']} jobs, {len(manifest['files'])} files restored")
    return 0

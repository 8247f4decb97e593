"""ansible-playbook, as a user of this checkout would call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A host that is this machine.
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def run_play(playbook: Path, *options: str, roles: Path | None = None) -> tuple[int, str]:
    """Exit code and words, white space folded."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    if roles:
        environment["ANSIBLE_ROLES_PATH"] = str(roles)
    program = str(Path(sys.executable).parent / "ansible-playbook")
    done = subprocess.run(
        [program, "-e", "ansible_become=false", str(playbook), *options],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.split())

"""The pure helpers are found as the collection ``rockiln.host``, as Ansible finds them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "ansible" / "collections"))
sys.path.insert(0, str(ROOT / "ansible" / "roles" / "inference_service" / "files"))

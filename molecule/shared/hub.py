#!/usr/bin/env python3
"""A hub with one small model, for the fetcher of the host that it runs on.

    hub.py PORT ELSEWHERE

By the host's own rockiln. The model is sd15, for who has the token "a-token"; ELSEWHERE is another
address of the host, where redirects lead.
"""

import signal
import sys
import tempfile
from pathlib import Path

from rockiln.registry.known_models import known_models

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.hub import FakeHub
from support.paper_model import write_paper_model

sd15 = known_models()["sd15"]
name = sd15.repository or ""
with tempfile.TemporaryDirectory() as folder:
    model = Path(folder) / "paper"
    write_paper_model(model)
    (model / "rockiln.json").unlink()
    files = {
        path.relative_to(model).as_posix(): path.read_bytes()
        for path in model.rglob("*")
        if path.is_file()
    }
with FakeHub(
    {name: files},
    commit=sd15.commit or "",
    gated={name},
    address=("", int(sys.argv[1])),
    elsewhere=sys.argv[2],
):
    signal.pause()

"""Environment variables of an engine child, set before torch is imported. No torch."""

from __future__ import annotations

import os
from pathlib import Path

from rockiln.platforms.backend import Backend


def prepare_environment(backend: Backend, cache_dir: Path) -> None:
    """Keeps the libraries off the network and their caches on the volume."""
    os.environ |= {
        # Weights come from the model folder alone; the child has no route out anyway.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
        # One prompt at a time; the tokenizer's own threads would only warn about forks.
        "TOKENIZERS_PARALLELISM": "false",
        # The home folder of a container user is read-only or missing.
        "HF_HOME": str(cache_dir / "huggingface"),
        "XDG_CACHE_HOME": str(cache_dir / "xdg"),
    }
    # How long an OpenMP thread spins before it sleeps. With the default one busy neighbour stalls
    # every barrier: on 2 cores of an AMD EPYC, torch 2.13.0, one UNet forward of vista took 1961 ms
    # in the median beside other load, and 323 ms with this; alone a whole request takes 0.66 to
    # 0.73 s and 0.70 s. Less spinning gains more beside load and loses more alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if backend == "rocm":
        # Compiled kernels outlive the container.
        os.environ |= {
            "MIOPEN_USER_DB_PATH": str(cache_dir / "miopen" / "db"),
            "MIOPEN_CUSTOM_CACHE_DIR": str(cache_dir / "miopen" / "kernels"),
        }

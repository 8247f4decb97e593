"""Environment variables of an engine child, set before torch is imported. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rockiln.domain.engine_variables import check_variables
from rockiln.domain.kernel_cache import CURRENT_NAME, FOLDER, KEY_NAME
from rockiln.platforms.backend import Backend
from rockiln.platforms.cache_key import read_cache_key


def prepare_environment(
    backend: Backend, cache_dir: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Keeps the libraries off the network and their caches on the volume.

    Args:
        variables: of the ROCm release and of the rungs.

    Raises:
        ValueError: one of ``variables`` is not documented.
    """
    check_variables(variables)
    os.environ |= dict(variables) | {
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
    if backend != "cpu":
        os.environ |= _kernel_caches(cache_dir)


def _kernel_caches(cache_dir: Path) -> dict[str, str]:
    """Compiled kernels outlive the container, and never meet those of another card or ROCm."""
    public_dir = os.environ.get("ROCKILN_PUBLIC_DIR")
    key = read_cache_key(None if public_dir is None else Path(public_dir) / "host.json")
    folder = cache_dir / FOLDER / key.folder
    folder.mkdir(parents=True, exist_ok=True)
    said = json.dumps(key.as_dict(), indent=2) + "\n"
    for path in (folder / KEY_NAME, cache_dir / FOLDER / CURRENT_NAME):
        # Another worker of this host may read it meanwhile.
        written = path.with_name(f".{path.name}.{os.getpid()}")
        written.write_text(said, encoding="utf-8")
        written.replace(path)
    return {
        # ROCm/MIOpen src/db_path.cpp.in and src/binary_cache.cpp.
        "MIOPEN_USER_DB_PATH": str(folder / "miopen" / "db"),
        "MIOPEN_CUSTOM_CACHE_DIR": str(folder / "miopen" / "kernels"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }

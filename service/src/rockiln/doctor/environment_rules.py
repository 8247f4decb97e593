"""Environment variables around ROCm, MIOpen and torch: which exist, which only seem to.

Standard library only: the Ansible collection links this file. Each rule has its source; what no
rule knows is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MIOPEN = "ROCm/MIOpen @2d1fd997"
CLR = "ROCm/clr rocclr @f9f995c6"

# Name → (why it does nothing, what to use instead or empty, source).
WITHOUT_EFFECT: dict[str, tuple[str, str, str]] = {
    "MIOPEN_FIND_TIME_LIMIT": (
        "MIOpen has no such variable",
        "MIOPEN_FIND_MODE=FAST",
        "rocm-libraries projects/miopen/docs/reference/env_variables.rst does not have it",
    ),
    "MIOPEN_CACHE_DIR": (
        "it is an option of MIOpen's build",
        "MIOPEN_CUSTOM_CACHE_DIR",
        f"{MIOPEN} include/miopen/config.h.in, src/binary_cache.cpp",
    ),
    "MIOPEN_DEBUG_COMGR_HIP_PCH_ENFORCE": ("MIOpen has no such variable", "", MIOPEN),
    "MIOPEN_CONVOLUTION_MAX_WORKSPACE": ("MIOpen has no such variable", "", MIOPEN),
    "GPU_MAX_ALLOC_PERCENT": ("the HIP runtime has no such variable", "", CLR),
    "GPU_FORCE_64BIT_PTR": ("the HIP runtime has no such variable", "", CLR),
    "GPU_USE_SYNC_OBJECTS": ("the HIP runtime has no such variable", "", CLR),
    "ROC_ENABLE_PRE_VEGA": ("the HIP runtime has no such variable", "", CLR),
    "GPU_MAX_HEAP_SIZE": ("its default is the quoted 100 already", "", CLR),
    "GPU_SINGLE_ALLOC_PERCENT": ("the runtime sets it for each class of device", "", CLR),
    "AMDGPU_VISIBLE_DEVICES": (
        "it is no variable of ROCm",
        "ROCR_VISIBLE_DEVICES",
        f"{CLR}; ROCm/container-toolkit docs",
    ),
    "PYTORCH_ROCM_ARCH": ("it matters only when torch is built", "", "pytorch build scripts"),
    "AMDGPU_TARGETS": ("it matters only when torch is built", "", "pytorch build scripts"),
    "HCC_AMDGPU_TARGET": ("it matters only when torch is built", "", "pytorch build scripts"),
    "FLASH_ATTENTION_USE_TRITON_ROCM": (
        "only another program reads it",
        "FLASH_ATTENTION_TRITON_AMD_ENABLE",
        "vladmandic/sdnext modules/rocm.py",
    ),
}
# Name → values that it takes.
VALUES = {
    "MIOPEN_FIND_MODE": (
        r"NORMAL|FAST|HYBRID|DYNAMIC_HYBRID|TRUST_VERIFY|TRUST_VERIFY_FULL|[1235-7]"
    ),
    "MIOPEN_FIND_ENFORCE": r"NONE|DB_UPDATE|SEARCH|SEARCH_DB_UPDATE|DB_CLEAN|[1-5]",
    "HSA_OVERRIDE_GFX_VERSION": r"\d+\.\d+\.\d+",
    "HSA_ENABLE_SDMA": r"[01]",
}
ALLOC_CONF_TORCH = (2, 9)


def lint_environment(
    environment: Mapping[str, str], *, torch_version: str = "", gfx: str = "", row: Any = None
) -> list[dict[str, str]]:
    """Findings about variables that do nothing, or not what they seem to, for what is pinned.

    Args:
        torch_version: such as ``2.9.1+rocm7.2.4``; empty if not known.
        gfx: target of the GPU in use; empty if there is none.
        row: the catalogue row, for targets and overrides.

    Returns:
        Each ``name``, ``value``, ``why``, ``instead`` and ``source``.
    """
    found = []
    for name, value in sorted(environment.items()):
        if name in WITHOUT_EFFECT:
            why, instead, source = WITHOUT_EFFECT[name]
            found.append(finding(name, value, why, instead, source))
        elif name in VALUES and not re.fullmatch(VALUES[name], value):
            found.append(finding(name, value, f"{value!r} is none of its values", "", VALUES[name]))
    found += allocator(environment, torch_version)
    found += override(environment.get("HSA_OVERRIDE_GFX_VERSION"), gfx, row or {})
    return found


def allocator(environment: Mapping[str, str], torch_version: str) -> list[dict[str, str]]:
    numbers = tuple(int(part) for part in re.findall(r"\d+", torch_version.partition("+")[0])[:2])
    if not numbers:
        return []
    new, old = "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"
    source = "pytorch c10 AllocatorConfig.cpp"
    if numbers >= ALLOC_CONF_TORCH and old in environment:
        return [finding(old, environment[old], f"torch {torch_version} deprecates it", new, source)]
    if numbers < ALLOC_CONF_TORCH and new in environment:
        return [
            finding(new, environment[new], f"torch {torch_version} does not read it", old, source)
        ]
    return []


def override(value: str | None, gfx: str, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """An override is for a target that the image lacks, and then the one the catalogue names."""
    name, source = "HSA_OVERRIDE_GFX_VERSION", "ROCm/ROCR-Runtime libhsakmt/src/topology.c"
    if not value or not gfx or not row.get("gfx"):
        return []
    if gfx in row["gfx"]:
        return [finding(name, value, f"the image has kernels for {gfx} itself", "", source)]
    named = row.get("hsa_override", {}).get(gfx)
    if named is None or str(named) == value:
        return []
    return [finding(name, value, f"the catalogue names another value for {gfx}", f"{name}={named}",
                    source)]  # fmt: skip


def finding(name: str, value: str, why: str, instead: str, source: str) -> dict[str, str]:
    return {"name": name, "value": value, "why": why, "instead": instead, "source": source}

"""The environment variables that an engine may be given: documented ones, each with its source.

Advice of the field names variables that no library reads. Such a one does nothing, and whoever set
it believes that it helped; so an unknown name is refused. What is known of the much quoted ones is
the doctor's table: the Ansible collection links it, so it may import nothing of ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from rockiln.doctor.environment_rules import WITHOUT_EFFECT

_MIOPEN = "rocm-libraries projects/miopen/docs/reference/env_variables.rst"
_MIOPEN_LOG = "ROCm/MIOpen docs/how-to/debug-log.rst"
_TORCH_HIP = "pytorch docs notes/hip.rst"
_HIP = "ROCm/clr rocclr/utils/flags.hpp"
_TUNABLE = "pytorch aten/src/ATen/cuda/tunable/README.md"

DOCUMENTED_VARIABLES: dict[str, str] = {
    "MIOPEN_FIND_MODE": _MIOPEN,
    "MIOPEN_FIND_ENFORCE": _MIOPEN,
    "MIOPEN_SEARCH_CUTOFF": _MIOPEN,
    "MIOPEN_NAIVE_TIMEOUT": _MIOPEN,
    "MIOPEN_NAIVE_TIMEOUT_FACTOR": _MIOPEN,
    "MIOPEN_DEBUG_DISABLE_FIND_DB": _MIOPEN,
    "MIOPEN_DEBUG_CONV_DIRECT_NAIVE_CONV_FWD": _MIOPEN,
    "MIOPEN_DEBUG_CONV_FFT": _MIOPEN_LOG,
    "MIOPEN_DEBUG_CONV_DIRECT": _MIOPEN_LOG,
    "MIOPEN_DEBUG_CONV_GEMM": _MIOPEN_LOG,
    "MIOPEN_DEBUG_CONV_WINOGRAD": _MIOPEN_LOG,
    "MIOPEN_DEBUG_CONV_IMPLICIT_GEMM": _MIOPEN_LOG,
    "MIOPEN_DEBUG_CONV_IMMED_FALLBACK": "ROCm/MIOpen src/ocl/convolutionocl.cpp",
    "MIOPEN_LOG_LEVEL": _MIOPEN_LOG,
    "MIOPEN_SYSTEM_DB_PATH": "ROCm/MIOpen src/db_path.cpp.in",
    "MIOPEN_DISABLE_CACHE": "ROCm/MIOpen docs/conceptual/cache.rst",
    "PYTORCH_ALLOC_CONF": "pytorch c10 AllocatorConfig.cpp, since torch 2.9",
    "PYTORCH_HIP_ALLOC_CONF": f"{_TORCH_HIP}, before torch 2.9",
    "PYTORCH_NO_HIP_MEMORY_CACHING": _TORCH_HIP,
    "PYTORCH_TUNABLEOP_ENABLED": _TUNABLE,
    "PYTORCH_TUNABLEOP_TUNING": _TUNABLE,
    "PYTORCH_TUNABLEOP_FILENAME": _TUNABLE,
    "PYTORCH_TUNABLEOP_VERBOSE": _TUNABLE,
    "PYTORCH_TUNABLEOP_MAX_TUNING_DURATION_MS": _TUNABLE,
    "PYTORCH_TUNABLEOP_MAX_TUNING_ITERATIONS": _TUNABLE,
    "PYTORCH_TUNABLEOP_NUMERICAL_CHECK": _TUNABLE,
    "PYTORCH_TUNABLEOP_HIPBLASLT_ENABLED": _TUNABLE,
    "PYTORCH_TUNABLEOP_ROCBLAS_ENABLED": _TUNABLE,
    "PYTORCH_TUNABLEOP_ICACHE_FLUSH_ENABLED": _TUNABLE,
    "PYTORCH_TUNABLEOP_ROTATING_BUFFER_SIZE": _TUNABLE,
    "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": "pytorch PR 134498",
    "TORCH_BLAS_PREFER_HIPBLASLT": "pytorch issue 138067",
    "FLASH_ATTENTION_TRITON_AMD_ENABLE": "Dao-AILab/flash-attention README",
    "HSA_ENABLE_SDMA": "rocm-systems rocr docs env_variables.rst",
    "HSA_OVERRIDE_GFX_VERSION": "ROCm/ROCR-Runtime libhsakmt/src/topology.c",
    "ROCR_VISIBLE_DEVICES": "ROCm docs gpu-isolation.md",
    "HIP_VISIBLE_DEVICES": "ROCm docs gpu-isolation.md",
    "HIP_FORCE_DEV_KERNARG": _HIP,
    "GPU_MAX_HW_QUEUES": _HIP,
    "AMD_SERIALIZE_KERNEL": _HIP,
    "AMD_LOG_LEVEL": _HIP,
}
# One node's own override of the graphics version.
_NODE_OVERRIDE = re.compile(r"HSA_OVERRIDE_GFX_VERSION_\d{1,2}")


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuses what no documented library reads.

    Raises:
        ValueError: the first such name, with what it is or what was meant.
    """
    for name, value in variables.items():
        if name not in DOCUMENTED_VARIABLES and _NODE_OVERRIDE.fullmatch(name) is None:
            raise ValueError(f"{name} is not a variable an engine may be given: {_why(name)}")
        if "\0" in value or "\n" in value:
            raise ValueError(f"{name}: its value holds a line end or a zero byte")


def _why(name: str) -> str:
    if name in WITHOUT_EFFECT:
        why, instead, _ = WITHOUT_EFFECT[name]
        return f"{why}; use {instead}" if instead else why
    if name.startswith("MIOPEN_") and name.endswith(("USER_DB_PATH", "CUSTOM_CACHE_DIR")):
        return "the service sets it itself, below its cache folder"
    near = difflib.get_close_matches(name, DOCUMENTED_VARIABLES, n=1)
    return f"did you mean {near[0]}?" if near else "no source documents it"

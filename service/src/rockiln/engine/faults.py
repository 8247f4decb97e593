"""Which fault an exception of the engine is."""

from __future__ import annotations

import errno

import torch

from rockiln.domain.errors import BrokenModelError, InvalidRequestError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.engine.postprocess import BadOutputError
from rockiln.worker.classify import classify_text

# The host allocator raises a plain RuntimeError.
_HOST_MEMORY_WORDS = ("can't allocate memory", "not enough memory")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def fault_of(error: Exception) -> Fault:
    """The fault that the supervisor is told; ``detail`` is for the person who sent the job."""
    match error:
        case InvalidRequestError():
            return Fault(FaultCode.REQUEST_BUG, error.detail)
        case BrokenModelError():
            return Fault(FaultCode.BROKEN_MODEL, error.detail)
        case BadOutputError():
            return Fault(FaultCode.BAD_OUTPUT, error.detail)
    said = f"{type(error).__name__}: {error}"
    return Fault(_code_of(error, said), said)


def _code_of(error: Exception, said: str) -> FaultCode:
    if isinstance(error, torch.OutOfMemoryError):
        return FaultCode.GPU_OOM
    if isinstance(error, MemoryError) or any(words in said for words in _HOST_MEMORY_WORDS):
        return FaultCode.HOST_OOM
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return FaultCode.STORAGE_FULL
    # torch passes on what MIOpen and HIP say as the words of a RuntimeError.
    known = classify_text(said) if isinstance(error, RuntimeError) else None
    return known or FaultCode.ENGINE_ERROR


def needs_fresh_process(error: Exception, code: FaultCode) -> bool:
    """Whether no further work of this process can be trusted.

    The GPU refuses it after such an error; after running out of memory the exception's own frames
    keep tensors alive, and other rungs need other placements.
    """
    return isinstance(error, torch.AcceleratorError) or code in {
        FaultCode.GPU_OOM, FaultCode.HOST_OOM,
    }  # fmt: skip

"""What makes two requests the same kind of work for a device."""

from __future__ import annotations

import hashlib
import json

from rockiln.domain.request import GenerationParameters

# What a picture shows does not decide whether a device survives making it.
_IRRELEVANT = ("prompt", "negative_prompt", "seed", "format")


def fingerprint(parameters: GenerationParameters) -> str:
    """SHA-256 in hex over model, size, steps, scheduler, guidance, number of pictures, features."""
    kind = {key: value for key, value in parameters.as_dict().items() if key not in _IRRELEVANT}
    kind |= {name: True for name in ("image", "mask") if name in kind}
    return hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()

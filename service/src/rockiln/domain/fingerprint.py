"""What makes two requests the same kind of work for a device."""

from __future__ import annotations

import hashlib
import json

from rockiln.domain.request import GenerationParameters

# What a picture shows does not decide whether a device survives making it.
_IRRELEVANT = ("prompt", "negative_prompt", "seed", "format")


def fingerprint(parameters: GenerationParameters) -> str:
    """SHA-256 in hex over model, size, steps, scheduler, guidance and number of pictures."""
    kind = {key: value for key, value in parameters.as_dict().items() if key not in _IRRELEVANT}
    return hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()

"""What A1111 calls options. One of them counts here: which model a request means."""

from __future__ import annotations

from typing import Any

from rockiln.api.services import services
from rockiln.domain.errors import UnknownModelError
from rockiln.domain.model import ModelProfile

CHECKPOINT = "sd_model_checkpoint"
_FACT = "a1111_checkpoint"


def title_of(profile: ModelProfile) -> str:
    """What a client shows and sends back."""
    return profile.id


def model_named(spoken: Any = None) -> str | None:
    """The id of a model by its title, name or hash; for None the one that was chosen.

    Raises:
        UnknownModelError
    """
    held = services()
    catalogue = held.catalogue
    if spoken is None:
        chosen = held.store.facts.get(_FACT)
        if chosen in catalogue.models:
            return chosen
        default = catalogue.default(held.settings.default_model)
        return None if default is None else default.id
    name = str(spoken).partition(" [")[0].removesuffix(".safetensors")
    if name not in catalogue.models:
        raise UnknownModelError(
            f"no checkpoint {name[:64]!r} on this host", known=sorted(catalogue.models)
        )
    return name


def options() -> dict[str, Any]:
    """The whole object, as it is sent and taken back."""
    return {
        CHECKPOINT: model_named(),
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "samples_save": False,
        "enable_pnginfo": True,
        "live_previews_enable": True,
    }


def set_options(given: dict[str, Any]) -> None:
    """Follows the choice of a model; what else is sent changes nothing.

    Raises:
        UnknownModelError
    """
    if given.get(CHECKPOINT) is not None:
        model = model_named(given[CHECKPOINT])
        if model is not None:
            services().store.facts.put(_FACT, model)

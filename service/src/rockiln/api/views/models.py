"""The models of this host."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response
from pydantic import BaseModel, Field

from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.json_answers import answer
from rockiln.api.services import services
from rockiln.domain.model import ModelDefaults, ModelProfile
from rockiln.domain.request import SIDE_GRID_PX

blueprint = Blueprint("models", __name__)


class Sides(BaseModel):
    """What width and height may be."""

    min_px: int
    max_px: int
    multiple_of_px: int = SIDE_GRID_PX


class ModelDocument(BaseModel):
    """One model folder. A broken one has a reason and nothing else."""

    id: str
    state: Literal["ready", "broken"]
    reason: str | None = Field(default=None, description="Why it is broken.")
    default: bool = Field(default=False, description="Used where a request names no model.")
    title: str | None = None
    family: str | None = None
    licence: str | None = None
    weights_bytes: int | None = None
    defaults: ModelDefaults | None = None
    sides: Sides | None = None
    schedulers: list[str] | None = Field(default=None, description="What it is sampled with.")
    features: list[str] | None = Field(
        default=None, description="What else a request may ask of it, such as image or loras."
    )


class ModelList(BaseModel):
    """Every model folder, sound ones first."""

    models: list[ModelDocument]


@blueprint.get("/models")
@describe(
    Operation(
        summary="The models of this host, with their defaults and limits",
        answers={200: Answered("The models.", {"application/json": ModelList})},
    )
)
def list_models() -> Response:
    held = services()
    default = held.catalogue.default(held.settings.default_model)
    ready = [
        _ready(profile, is_default=profile is default)
        for _, profile in sorted(held.catalogue.models.items())
    ]
    broken = [
        ModelDocument(id=model_id, state="broken", reason=reason)
        for model_id, reason in sorted(held.catalogue.broken.items())
    ]
    return answer(ModelList(models=ready + broken))


def _ready(profile: ModelProfile, *, is_default: bool) -> ModelDocument:
    return ModelDocument(
        id=profile.id,
        state="ready",
        default=is_default,
        title=profile.title,
        family=profile.family,
        licence=profile.licence,
        weights_bytes=profile.weights_bytes,
        defaults=profile.defaults,
        sides=Sides(min_px=profile.min_side_px, max_px=profile.max_side_px),
        schedulers=list(profile.schedulers),
        features=list(profile.features),
    )

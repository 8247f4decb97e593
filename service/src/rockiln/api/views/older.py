"""The routes of before: ``POST /api/image`` is ``POST /generate``; ``GET /api/models`` is short."""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic import BaseModel, RootModel

from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.json_answers import answer
from rockiln.api.services import services
from rockiln.api.views.generate import generate

blueprint = Blueprint("older", __name__, url_prefix="/api")
blueprint.add_url_rule("/image", "image", generate, methods=["POST"])


class OlderModel(BaseModel):
    """Whether a model can draw, and on what."""

    ready: bool
    type: str = "diffusers"
    execution_type: str


class OlderModels(RootModel[dict[str, OlderModel]]):
    """By model id."""


@blueprint.get("/models")
@describe(
    Operation(
        summary="The older form of GET /models",
        answers={200: Answered("The models.", {"application/json": OlderModels})},
        problems=("store-unavailable",),
    )
)
def list_models() -> Response:
    held = services()
    devices = held.store.workers.devices()
    kind = str(devices[0]["kind"]) if devices else held.settings.backend
    ready = dict.fromkeys(held.catalogue.models, True) | dict.fromkeys(held.catalogue.broken, False)
    found = {name: OlderModel(ready=ready[name], execution_type=kind) for name in ready}
    return answer(OlderModels(found))

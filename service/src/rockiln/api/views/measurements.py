"""``GET /metrics``: numbers for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response

from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.services import services
from rockiln.telemetry.metrics import CONTENT_TYPE

blueprint = Blueprint("measurements", __name__)


@blueprint.get("/metrics")
@describe(
    Operation(
        summary="Numbers for Prometheus",
        description="Answers also when the store cannot be read: rockiln_store_up is 0 then.",
        answers={200: Answered("The text format.", {"text/plain": None})},
    )
)
def get_metrics() -> Response:
    return Response(services().metrics.exposition(), content_type=CONTENT_TYPE)

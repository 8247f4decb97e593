"""The models of this host: what there is, and getting, checking and removing them."""

from __future__ import annotations

import re
import shutil
from typing import Annotated

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.access import owner_of_request
from rockiln.api.body import read_json_object
from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.json_answers import answer
from rockiln.api.model_states import (
    ModelDocument,
    ModelList,
    licence_refusal,
    model_document,
    model_documents,
    pull_command,
)
from rockiln.api.services import services
from rockiln.api.validation import validate
from rockiln.domain.errors import (
    GatedModelError,
    ModelBusyError,
    ModelElsewhereError,
    ModelInstalledError,
    ModelInUseError,
    NoSpaceForModelError,
    NothingToCancelError,
    UnknownModelError,
    UnsupportedModelError,
)
from rockiln.domain.request import MODEL_ID_PATTERN
from rockiln.registry.checkpoint import files_of_checkpoint
from rockiln.registry.known_models import KnownModel, known_models
from rockiln.store.model_tasks import TaskKind

blueprint = Blueprint("models", __name__)

_TASK_PROBLEMS = ("unknown-model", "model-busy", "model-elsewhere", "store-unavailable")


class PullRequest(BaseModel):
    """What a pull needs to know."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    accept_licence: Annotated[
        bool,
        Field(description="You have read the licence at licence_page and accept it; written down."),
    ] = False


@blueprint.get("/models")
@describe(
    Operation(
        summary="The models of this host and the known ones, with state, defaults and limits",
        answers={200: Answered("The models.", {"application/json": ModelList})},
        problems=("store-unavailable",),
    )
)
def list_models() -> Response:
    return answer(ModelList(models=model_documents(services())))


@blueprint.get("/models/<model_id>")
@describe(
    Operation(
        summary="One model, with the progress of its download",
        answers={200: Answered("The model.", {"application/json": ModelDocument})},
        problems=("unknown-model", "store-unavailable"),
    )
)
def get_model(model_id: str) -> Response:
    return answer(_document(model_id))


@blueprint.post("/models/<model_id>/pull")
@describe(
    Operation(
        summary="Download a known model, or go on with a download that ended",
        description="The fetcher does it. GET the model for its progress; it is served once every "
        "file has the digest that the hub or the catalogue gives, and the safety gate let it pass.",
        body=PullRequest,
        answers={202: Answered("It was asked for.", {"application/json": ModelDocument})},
        problems=(
            *_TASK_PROBLEMS, "invalid-request", "gated-model", "unsupported-model",
            "model-installed", "no-space-for-model",
        ),
    )
)  # fmt: skip
def pull_model(model_id: str) -> Response:
    asked = validate(PullRequest, read_json_object() if request.content_length else {})
    return pull(model_id, accept_licence=asked.accept_licence)


def pull(model_id: str, *, accept_licence: bool) -> Response:
    """Asks for a download. Raises what the route answers with."""
    held, document = services(), _document(model_id)
    known = _known(model_id)
    if document.state == "ready":
        raise ModelInstalledError(
            f"model {model_id} is here already; rockiln models verify {model_id} checks its files"
        )
    tasks = held.store.model_tasks
    if accept_licence:
        tasks.accept_licence(
            model_id,
            licence=known.licence,
            page=known.licence_page or known.page,
            commit=document.commit,
            owner=owner_of_request(),
        )
    if known.gated:
        refused = licence_refusal(known, tasks.acceptances().get(model_id), tasks.fetcher())
        if refused:
            raise GatedModelError(
                f"model {model_id}: {refused}",
                licence=known.licence,
                licence_page=known.licence_page,
                command=pull_command(known),
            )
    _check_space(known)
    return _asked(model_id, "pull")


@blueprint.delete("/models/<model_id>/pull")
@describe(
    Operation(
        summary="Cancel a download",
        description="What was downloaded of it is deleted.",
        answers={202: Answered("It ends.", {"application/json": ModelDocument})},
        problems=("unknown-model", "nothing-to-cancel", "store-unavailable"),
    )
)
def cancel_pull(model_id: str) -> Response:
    _document(model_id)
    if services().store.model_tasks.cancel(model_id) is None:
        raise NothingToCancelError(f"nothing is being done with model {model_id}")
    return answer(_document(model_id), 202)


@blueprint.post("/models/<model_id>/verify")
@describe(
    Operation(
        summary="Read every file of a model again and compare with what is known of it",
        answers={202: Answered("It was asked for.", {"application/json": ModelDocument})},
        problems=_TASK_PROBLEMS,
    )
)
def verify_model(model_id: str) -> Response:
    _own(model_id)
    return _asked(model_id, "verify")


@blueprint.delete("/models/<model_id>")
@describe(
    Operation(
        summary="Delete a model's files",
        answers={202: Answered("It was asked for.", {"application/json": ModelDocument})},
        problems=(*_TASK_PROBLEMS, "model-in-use"),
    )
)
def remove_model(model_id: str) -> Response:
    _own(model_id)
    jobs = services().store.jobs.open_jobs_of(model_id)
    if jobs:
        raise ModelInUseError(f"{jobs} jobs that are not done use model {model_id}", jobs=jobs)
    return _asked(model_id, "remove")


def _document(model_id: str) -> ModelDocument:
    document = model_document(services(), model_id)
    if document is None:
        raise UnknownModelError(
            f"no model {model_id[:64]!r} is here or known", known=sorted(known_models())
        )
    return document


def _known(model_id: str) -> KnownModel:
    known = known_models().get(model_id)
    if known is None or known.bundled:
        raise ModelElsewhereError(
            f"model {model_id} is not one that can be downloaded; its folder is all there is"
        )
    if known.unsupported:
        raise UnsupportedModelError(f"model {model_id}: {known.unsupported}")
    return known


def _own(model_id: str) -> None:
    """Raises ModelElsewhereError for what is not in this service's own models folder."""
    document, own = _document(model_id), services().settings.own_models_dir
    if re.fullmatch(MODEL_ID_PATTERN, model_id) is None:
        raise ModelElsewhereError(f"{model_id[:64]!r} is no model id; rename or delete it there")
    there = (own / model_id).is_dir() or bool(files_of_checkpoint(own, model_id))
    if not there and document.state in {"ready", "broken"} and document.task is None:
        raise ModelElsewhereError(f"model {model_id} is not in {own}; it is left alone")
    if not there and document.task is None:
        raise ModelElsewhereError(f"model {model_id} has no files here")


def _check_space(known: KnownModel) -> None:
    """Where the size is known; the fetcher looks again with the hub's own figures."""
    settings = services().settings
    free_bytes = services().store.artefacts.free_bytes()
    if settings.own_models_dir.is_dir():
        free_bytes = shutil.disk_usage(settings.own_models_dir).free
    needed_bytes = (known.download_bytes or 0) + settings.min_free_disk_bytes
    if known.download_bytes is not None and needed_bytes > free_bytes:
        raise NoSpaceForModelError(
            f"model {known.id} takes about {known.download_bytes} bytes, and "
            f"{settings.min_free_disk_bytes} stay free; the disk has {free_bytes}",
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


def _asked(model_id: str, kind: TaskKind) -> Response:
    task = services().store.model_tasks.ask(model_id, kind, owner=owner_of_request())
    if task.kind != kind:
        raise ModelBusyError(
            f"a {task.kind} of model {model_id} is not done yet", task_kind=task.kind
        )
    return answer(_document(model_id), 202)

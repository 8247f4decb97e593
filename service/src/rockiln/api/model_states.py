"""What becomes of each model on this host: the folders, the known models and the store together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from rockiln.api.services import Services
from rockiln.domain.model import DeviceFacts, ModelDefaults, ModelProfile
from rockiln.domain.plan import admit
from rockiln.domain.request import SIDE_GRID_PX
from rockiln.domain.residency import usual_parameters
from rockiln.registry.checkpoint import configs_owner
from rockiln.registry.known_models import KnownModel, known_models
from rockiln.store.model_tasks import Acceptance, FetcherSign, ModelLock, ModelTask
from rockiln.store.records import Worker

ModelState = Literal["ready", "downloadable", "gated", "downloading", "broken", "unsupported"]
# A fetcher that said nothing for this long is not there.
_FETCHER_STALE_SECONDS = 30.0
_ORDER: tuple[ModelState, ...] = (
    "ready", "downloading", "broken", "downloadable", "gated", "unsupported",
)  # fmt: skip


class Sides(BaseModel):
    """What width and height may be."""

    min_px: int
    max_px: int
    multiple_of_px: int = SIDE_GRID_PX


class Quantisation(BaseModel):
    """How the weights of one part are held in few bits."""

    kind: str = Field(description="Type that most of them have: GGUF's name, or f8_e4m3.")
    exact: Literal[False] = Field(description="Pictures differ from those of the full weights.")
    weight_error: float = Field(
        description="Root mean square error of a weight, relative to the weights', measured on "
        "normal ones; of K and IQ4 kinds at most."
    )


class Fit(BaseModel):
    """Whether a device holds the model at its default size, and on which rungs."""

    worker: str
    fits: bool
    quantisation: dict[str, str] = Field(
        default={}, description="Part, then kind: what is held in few bits. Empty: exact."
    )
    denoise_rung: str | None = None
    decode_rung: str | None = None
    predicted_bytes: int = Field(description="At the peak; on the most frugal rungs if none fit.")
    largest_width: int | None = Field(default=None, description="Of what fits, where it does not.")
    largest_height: int | None = None


class TaskDocument(BaseModel):
    """The last thing that was asked of the fetcher for this model."""

    kind: Literal["pull", "verify", "remove"]
    state: Literal["asked", "running", "done", "failed", "cancelled"]
    detail: str = Field(description="How it ended, or what it waits for.")
    bytes_done: int
    bytes_total: int | None
    asked_at: str


class LicenceAcceptance(BaseModel):
    """Who accepted the licence."""

    owner: str
    commit: str | None
    at: str


class ModelDocument(BaseModel):
    """A model of this host, or one that can be downloaded."""

    id: str
    state: ModelState
    reason: str | None = Field(default=None, description="Why it is not ready, where there is one.")
    default: bool = Field(default=False, description="Used where a request names no model.")
    title: str | None = None
    family: str | None = None
    licence: str | None = None
    licence_page: str | None = None
    licence_accepted: LicenceAcceptance | None = None
    gated: bool = Field(default=False, description="The hub wants the licence accepted there.")
    repository: str | None = None
    commit: str | None = Field(default=None, description="Pinned by the catalogue or a first pull.")
    lacks: list[str] = Field(
        default=[], description="What no source gives; it is read at the first pull, then pinned."
    )
    weights_bytes: int | None = None
    component_bytes: dict[str, dict[str, int]] | None = Field(
        default=None, description="dtype, then part: bytes in memory."
    )
    defaults: ModelDefaults | None = None
    sides: Sides | None = None
    schedulers: list[str] | None = Field(default=None, description="What it is sampled with.")
    features: list[str] | None = Field(
        default=None, description="What else a request may ask of it, such as image or loras."
    )
    configs: str | None = Field(
        default=None,
        description="Of a model in one file: whose configs and tokenizers it is read with, "
        "rockiln's own or those of another model of this host.",
    )
    quantisation: dict[str, Quantisation] = Field(
        default={}, description="By part; parts that are not named are exact."
    )
    fits: list[Fit] = Field(default=[], description="One for each device that has reported.")
    task: TaskDocument | None = None


class ModelList(BaseModel):
    """Every model of this host and every known model, those first that can be used."""

    models: list[ModelDocument]


def model_documents(services: Services) -> list[ModelDocument]:
    """All of them."""
    view = _View(services)
    found = [view.document(model_id) for model_id in view.ids()]
    return sorted(found, key=lambda each: (_ORDER.index(each.state), each.id))


def model_document(services: Services, model_id: str) -> ModelDocument | None:
    """One of them; None if nothing is known by that id."""
    view = _View(services)
    return view.document(model_id) if model_id in view.ids() else None


class _View:
    """One look at folders and store."""

    def __init__(self, services: Services) -> None:
        tasks = services.store.model_tasks
        self._services = services
        self._catalogue = services.models.current(at_once=True)
        self._default = self._catalogue.default(services.settings.default_model)
        self._known = known_models()
        self._tasks: dict[str, ModelTask] = tasks.latest()
        self._locks: dict[str, ModelLock] = tasks.locks()
        self._acceptances: dict[str, Acceptance] = tasks.acceptances()
        self._fetcher = tasks.fetcher()
        self._now = services.clock()
        self._workers = services.store.workers.all()

    def ids(self) -> set[str]:
        known = (model.id for model in self._known.values() if not model.bundled)
        return {*self._catalogue.models, *self._catalogue.broken, *known}

    def document(self, model_id: str) -> ModelDocument:
        profile = self._catalogue.models.get(model_id)
        known, task = self._known.get(model_id), self._tasks.get(model_id)
        state, reason = self._state(model_id, task)
        said: dict[str, Any] = {}
        if known is not None:
            said |= self._of_known(known)
        if profile is not None:
            said |= _of_profile(profile)
        profile = profile or (known.profile() if known else None)
        return ModelDocument(
            **said,
            id=model_id,
            state=state,
            reason=reason,
            default=profile is not None and profile is self._default,
            fits=[] if profile is None else _fits(self._services, profile, self._workers),
            task=None if task is None else self._task_document(task),
        )

    def _state(self, model_id: str, task: ModelTask | None) -> tuple[ModelState, str | None]:
        if task is not None and task.kind == "pull" and not task.ended:
            return "downloading", self._waits_for(task) or None
        if model_id in self._catalogue.models:
            return "ready", None
        if model_id in self._catalogue.broken:
            return "broken", self._catalogue.broken[model_id]
        return self._state_of_absent(self._known[model_id], task)

    def _state_of_absent(
        self, known: KnownModel, task: ModelTask | None
    ) -> tuple[ModelState, str | None]:
        if known.unsupported:
            return "unsupported", known.unsupported
        if task is not None and task.kind != "remove" and task.state == "failed":
            return ("gated" if task.reason == "gated" else "broken"), task.detail
        refused = None
        if known.gated:
            refused = licence_refusal(known, self._acceptances.get(known.id), self._fetcher)
        return ("gated", refused) if refused else ("downloadable", None)

    def _of_known(self, known: KnownModel) -> dict[str, Any]:
        lock = self._locks.get(known.repository or "")
        accepted = self._acceptances.get(known.id)
        return {
            "title": known.title,
            "family": known.family,
            "licence": known.licence,
            "licence_page": known.licence_page,
            "licence_accepted": None if accepted is None else LicenceAcceptance(
                owner=accepted.owner, commit=accepted.commit, at=_time(accepted.at)
            ),
            "gated": known.gated,
            "repository": known.repository,
            "commit": known.commit or (lock.commit if lock else None),
            "lacks": known.lacks,
            "weights_bytes": known.download_bytes,
            "component_bytes": known.component_bytes if known.parameters else None,
            "defaults": known.defaults and known.defaults.as_model_defaults(),
            "sides": known.limits and Sides(
                min_px=known.limits.min_side_px, max_px=known.limits.max_side_px
            ),
        }  # fmt: skip

    def _task_document(self, task: ModelTask) -> TaskDocument:
        return TaskDocument(
            kind=task.kind,
            state=task.state,
            detail=task.detail if task.ended else self._waits_for(task),
            bytes_done=task.bytes_done,
            bytes_total=task.bytes_total,
            asked_at=_time(task.asked_at),
        )

    def _waits_for(self, task: ModelTask) -> str:
        sign = self._fetcher
        if sign is None or self._now - sign.at > _FETCHER_STALE_SECONDS:
            return "it waits for the fetcher, which does not run here: rockiln fetcher"
        return "" if task.state == "running" else "it waits for its turn"


def licence_refusal(
    known: KnownModel, accepted: Acceptance | None, fetcher: FetcherSign | None
) -> str | None:
    """Why a gated model cannot be pulled yet; None if the hub may be asked."""
    if accepted is None:
        return f"its licence is to be read and accepted first: {known.licence_page}"
    if fetcher is not None and not fetcher.has_token:
        return (
            f"the hub gives it only to accounts that accepted its licence ({known.page}); the "
            "fetcher has no token: set ROCKILN_HUB_TOKEN or hub_token_file for it alone"
        )
    return None


def pull_command(known: KnownModel) -> str:
    """What a person types to get it."""
    return f"rockiln models pull {known.id}" + (" --accept-licence" if known.gated else "")


def _of_profile(profile: ModelProfile) -> dict[str, Any]:
    return {
        "title": profile.title,
        "family": profile.family,
        "licence": profile.licence,
        "weights_bytes": profile.weights_bytes,
        "component_bytes": {
            "float16": profile.loaded_bytes(2), "float32": profile.loaded_bytes(4),
        },
        "defaults": profile.defaults,
        "sides": Sides(
            min_px=profile.min_side_px,
            max_px=profile.max_side_px,
            multiple_of_px=profile.side_grid_px,
        ),
        "schedulers": list(profile.schedulers),
        "features": list(profile.features),
        "configs": configs_owner(profile),
        "quantisation": {
            name: Quantisation(**held.as_dict()) for name, held in profile.quantised.items()
        },
    }  # fmt: skip


def _fits(services: Services, profile: ModelProfile, workers: list[Worker]) -> list[Fit]:
    """As admission judges a request that leaves everything open."""
    return [
        _fit(profile, worker.name, services.device_for(profile, worker.device))
        for worker in workers
        if worker.device is not None
    ]


def _fit(profile: ModelProfile, worker: str, device: DeviceFacts) -> Fit:
    found = admit(usual_parameters(profile), profile, device)
    return Fit(
        worker=worker,
        fits=found.fits,
        quantisation=found.quantisation,
        denoise_rung=None if found.rungs is None else found.rungs.denoise.value,
        decode_rung=None if found.rungs is None else found.rungs.decode.value,
        predicted_bytes=found.predicted.device_bytes,
        largest_width=None if found.largest is None else found.largest[0],
        largest_height=None if found.largest is None else found.largest[1],
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")

"""What the views work with. Made once by the factory, kept on the app, one object for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import current_app

from rockiln.api.estimates import Estimator
from rockiln.api.model_list import ModelList
from rockiln.api.streams import Streams
from rockiln.api.waiting import WaitingRoom
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.residency import beside_pinned
from rockiln.registry import Catalogue
from rockiln.settings import Settings
from rockiln.store.store import Store
from rockiln.telemetry.metrics import Metrics

EXTENSION = "rockiln"


@dataclass(frozen=True)
class Services:
    """Attributes: ``document`` gives the OpenAPI document, ``clock`` seconds since the epoch."""

    settings: Settings
    store: Store
    models: ModelList
    waiting_room: WaitingRoom
    streams: Streams
    metrics: Metrics
    estimator: Estimator
    document: Callable[[], dict[str, Any]]
    clock: Callable[[], float] = time.time

    @property
    def catalogue(self) -> Catalogue:
        return self.models.current()

    def device_for(self, model: ModelProfile, device: dict[str, Any]) -> DeviceFacts:
        """What a worker's device has for a job of that model, beside the pinned ones."""
        return beside_pinned(
            DeviceFacts(**device), self.catalogue.pinned(self.settings.pinned_ids), model
        )


def services() -> Services:
    """The services of the app that handles this request."""
    held: Services = current_app.extensions[EXTENSION]
    return held

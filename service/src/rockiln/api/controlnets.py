"""The ControlNets of this host, and which of its models each was made for."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from rockiln.api.services import Services
from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.registry.controlnets import ControlNet, controlnet_paths, of_model, read_controlnet
from rockiln.registry.revision import signature


class ControlNetDocument(BaseModel):
    """A ControlNet of this host."""

    name: str
    state: Literal["ready", "broken"]
    reason: str | None = Field(default=None, description="Why it is broken.")
    parameters: int | None = Field(default=None, description="How many numbers it holds.")
    models: list[str] = Field(default=[], description="Those of this host that it was made for.")


class ControlNetList(BaseModel):
    """Every ControlNet of this host."""

    controlnets: list[ControlNetDocument]


def controlnet_documents(
    services: Services, models: Collection[ModelProfile] | None = None
) -> list[ControlNetDocument]:
    """Each, judged against ``models``: all of this host by default."""
    if models is None:
        models = services.catalogue.models.values()
    documents = []
    for name, path in sorted(controlnet_paths(services.settings.model_dirs).items()):
        try:
            found = _read(path, signature(path))
        except BrokenModelError as error:
            documents.append(ControlNetDocument(name=name, state="broken", reason=error.detail))
            continue
        documents.append(
            ControlNetDocument(
                name=name,
                state="ready",
                parameters=found.facts.parameters,
                models=sorted(model.id for model in models if _fits(found, model)),
            )
        )
    return documents


def controlnets_for(services: Services, model: ModelProfile) -> list[str]:
    """Names of those that were made for a model."""
    return [each.name for each in controlnet_documents(services, [model]) if each.models]


@lru_cache(maxsize=64)
def _read(path: Path, found_signature: str) -> ControlNet:
    """A form asks again and again; what a job is admitted by is read anew."""
    del found_signature  # it stands for the content
    return read_controlnet(path)


def _fits(found: ControlNet, model: ModelProfile) -> bool:
    if "controlnets" not in model.features:
        return False
    try:
        of_model(found, model)
    except BrokenModelError:  # a request for the two together says why
        return False
    return True

"""The ControlNets of this host, and which of its models each was made for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel, Field

from rockiln.api.services import Services
from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.registry.controlnets import ControlNet, check_fits, controlnet_paths, read_controlnet


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
            found = read_controlnet(path)
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


def _fits(found: ControlNet, model: ModelProfile) -> bool:
    if "controlnets" not in model.features:
        return False
    try:
        check_fits(found, model)
    except BrokenModelError:  # a request for the two together says why
        return False
    return True

"""The ControlNets of this host: our list, and what clients of A1111's extension ask for."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from pydantic import BaseModel

from rockiln.api.controlnets import ControlNetList, controlnet_documents
from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.json_answers import answer
from rockiln.api.services import services
from rockiln.domain.request import CONTROLNETS_MAX

blueprint = Blueprint("controlnets", __name__)

# Of the extension's interface that is spoken here.
_EXTENSION_VERSION = 2


class ExtensionVersion(BaseModel):
    """Of the extension's interface."""

    version: int


class ExtensionModels(BaseModel):
    """What ``model`` of a unit may be."""

    model_list: list[str]


class ExtensionModules(BaseModel):
    """What ``module`` of a unit may be."""

    module_list: list[str]
    module_detail: dict[str, Any]


class ExtensionSettings(BaseModel):
    """How many units a request may have."""

    control_net_unit_count: int


@blueprint.get("/controlnets")
@describe(
    Operation(
        summary="The ControlNets of this host, and the models that each was made for",
        answers={200: Answered("All of them.", {"application/json": ControlNetList})},
        problems=("store-unavailable",),
    )
)
def list_controlnets() -> Response:
    return answer(ControlNetList(controlnets=controlnet_documents(services())))


@blueprint.get("/controlnet/version")
@describe(
    Operation(
        summary="A1111's ControlNet extension: the version of its interface",
        answers={200: Answered("The version.", {"application/json": ExtensionVersion})},
    )
)
def extension_version() -> Response:
    return answer(ExtensionVersion(version=_EXTENSION_VERSION))


@blueprint.get("/controlnet/model_list")
@describe(
    Operation(
        summary="A1111's ControlNet extension: the ControlNets that can be used",
        answers={200: Answered("Their names.", {"application/json": ExtensionModels})},
        problems=("store-unavailable",),
    )
)
def extension_models() -> Response:
    found = controlnet_documents(services(), models=())
    return answer(ExtensionModels(model_list=[each.name for each in found if not each.reason]))


@blueprint.get("/controlnet/module_list")
@describe(
    Operation(
        summary="A1111's ControlNet extension: its preprocessors; there are none here",
        answers={200: Answered("None.", {"application/json": ExtensionModules})},
    )
)
def extension_modules() -> Response:
    detail = {"none": {"model_free": False, "sliders": []}}
    return answer(ExtensionModules(module_list=["none"], module_detail=detail))


@blueprint.get("/controlnet/settings")
@describe(
    Operation(
        summary="A1111's ControlNet extension: how many units a request may have",
        answers={200: Answered("The number.", {"application/json": ExtensionSettings})},
    )
)
def extension_settings() -> Response:
    return answer(ExtensionSettings(control_net_unit_count=CONTROLNETS_MAX))

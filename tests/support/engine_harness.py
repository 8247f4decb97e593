"""The engine in this process on the CPU: jobs in, events and pixels out."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan, plan
from rockiln.domain.request import GenerationParameters
from rockiln.engine.engine import Engine
from rockiln.engine.model_shelf import ModelShelf
from rockiln.engine.record import Surroundings
from rockiln.engine.torch_settings import apply_torch_settings
from rockiln.platforms.cpu import CpuDevice
from rockiln.platforms.interface import Device
from rockiln.platforms.selection import select
from rockiln.registry import load_catalogue
from rockiln.store.artefacts import ArtefactStore
from rockiln.worker import protocol

# One: on a busy host two threads wait for each other longer than they work.
THREADS = 1
Kind = TypeVar("Kind")


def read_profile(folder: Path) -> ModelProfile:
    """The registry's profile of one model folder."""
    return load_catalogue([folder.parent]).models[folder.name]


class EngineHarness:
    """An engine whose events are kept in ``events``."""

    def __init__(
        self, work_dir: Path, *, total_bytes: int | None = None, **shelf_options: Any
    ) -> None:
        found = select("cpu", "auto", threads=THREADS)
        if total_bytes is not None:
            found = CpuDevice(replace(found.facts, total_bytes=total_bytes))
        self.device: Device = found
        apply_torch_settings("cpu", THREADS)
        self.surroundings = Surroundings(
            device="cpu",
            capability=self.device.capability,
            threads=THREADS,
            versions={"rockiln": "0", "torch": str(torch.__version__)},
        )
        self.shelf = ModelShelf(self.device, work_dir / "cache", **shelf_options)
        self.artefacts = ArtefactStore(work_dir / "artefacts")
        self.events: list[protocol.Progress] = []
        self.engine = Engine(
            self.device, self.shelf, self.artefacts, self.surroundings, self.events.append
        )

    def plan(self, parameters: GenerationParameters, model: ModelProfile, **changes: Any) -> Plan:
        return replace(plan(parameters, model, self.device.facts), **changes)

    def submit(
        self,
        parameters: GenerationParameters,
        model: ModelProfile,
        *,
        job_id: str = "job",
        pictures: Iterable[protocol.PictureTask] | None = None,
        chosen: Plan | None = None,
        purpose: Literal["picture", "warm_up"] = "picture",
        lora_files: dict[str, str] | None = None,
        embedding_files: dict[str, str] | None = None,
        controlnet_files: dict[str, str] | None = None,
    ) -> None:
        if pictures is None:
            pictures = [protocol.PictureTask(index=n) for n in range(parameters.num_images)]
        self.engine.submit(
            protocol.Run(
                job_id=job_id,
                attempt=1,
                parameters=parameters,
                plan=chosen or self.plan(parameters, model),
                model=model,
                pictures=list(pictures),
                lora_files=lora_files or {},
                embedding_files=embedding_files or {},
                controlnet_files=controlnet_files or {},
                purpose=purpose,
            )
        )

    def finish(self) -> list[protocol.PictureEncoded]:
        """Works until nothing is left; the pictures made so far, in order."""
        while not self.engine.idle:
            self.engine.advance()
        return self.encoded()

    def run(
        self, parameters: GenerationParameters, model: ModelProfile, **options: Any
    ) -> list[protocol.PictureEncoded]:
        """One job alone, from an empty list of events."""
        self.events.clear()
        self.submit(parameters, model, **options)
        return self.finish()

    def encoded(self, job_id: str | None = None) -> list[protocol.PictureEncoded]:
        return [
            event
            for event in self.events
            if isinstance(event, protocol.PictureEncoded) and job_id in (None, event.job_id)
        ]

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def names(self, job_id: str | None = None) -> list[str]:
        """The events' names, in order."""
        return [event.event for event in self.events if job_id in (None, event.job_id)]

    def failure(self) -> protocol.JobFailed:
        """The last event, which has to be a failure."""
        last = self.events[-1]
        assert isinstance(last, protocol.JobFailed), last
        return last

    def data(self, event: protocol.PictureEncoded) -> bytes:
        parameters = event.details["parameters"]
        assert isinstance(parameters, dict)
        return self.artefacts.picture_path(event.digest, parameters["format"]).read_bytes()

    def pixels(self, event: protocol.PictureEncoded) -> npt.NDArray[np.uint8]:
        return read_pixels(self.data(event))


def read_pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """A picture file's pixels [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def largest_difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    """Over all pixels and channels, in steps of 1/255."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())

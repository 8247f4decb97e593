"""From a Start command to an engine that has proven itself."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory

from transformers.utils import logging as transformers_logging

from rockiln import __version__
from rockiln.domain.errors import BrokenModelError, RockilnError
from rockiln.domain.fault import Fault
from rockiln.domain.ladder import Rungs
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import plan
from rockiln.domain.request import GenerationParameters
from rockiln.domain.residency import beside_pinned, usual_parameters
from rockiln.engine.engine import Engine, UnfitDeviceError
from rockiln.engine.model_shelf import ModelShelf
from rockiln.engine.record import Surroundings
from rockiln.engine.torch_settings import apply_torch_settings
from rockiln.platforms.interface import Device
from rockiln.platforms.selection import select
from rockiln.platforms.threads import usable_threads
from rockiln.store.artefacts import ArtefactStore
from rockiln.worker import protocol

PROOF_STEPS = 2
# Libraries whose version can change a pixel or a byte of the file.
_RECORDED_LIBRARIES = (
    "diffusers", "numpy", "pillow", "safetensors", "tokenizers", "torch", "transformers", "zlib-ng",
)  # fmt: skip


class ProofError(RockilnError):
    """The device or the model did not make a picture."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


def start_engine(
    start: protocol.Start, send: Callable[[protocol.Event], None]
) -> tuple[Engine, protocol.Ready]:
    """Takes the device, loads the model, makes a small picture with it.

    Raises:
        ProofError: no picture came out.
        DeviceUnavailableError: there is no such device.
    """
    # Their bars and advice are for a person at a terminal.
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    threads = start.torch_threads or usable_threads()
    device = select(start.backend, start.compute_device, threads=threads)
    device = device.reserve(start.reserved_vram_bytes)
    apply_torch_settings(device.facts.kind, threads)
    surroundings = Surroundings(
        device=device.facts.kind,
        capability=device.capability,
        threads=threads,
        versions=_versions(device),
    )
    shelf = ModelShelf(
        device,
        Path(start.cache_dir),
        pinned=[model.id for model in start.pinned],
        idle_seconds=start.model_idle_seconds,
        on_change=lambda models: send(protocol.ModelsInMemory(models=models)),
    )
    begun = time.monotonic()
    floor = None if start.plan is None else start.plan.rungs
    _prove(device, shelf, surroundings, start.model, floor)
    _load_pinned(device, shelf, start)
    ready = protocol.Ready(
        device=device.facts,
        versions={**surroundings.versions, "python": python_version()},
        proof_seconds=round(time.monotonic() - begun, 3),
    )
    artefacts = ArtefactStore(Path(start.artefacts_dir))
    try:
        artefacts.make_picture_folders()
    except OSError as error:  # whoever stores a picture makes its folder, or says why not
        sys.stderr.write(f"no folders ahead of their pictures: {error}\n")
    return Engine(device, shelf, artefacts, surroundings, send), ready


def _prove(
    device: Device,
    shelf: ModelShelf,
    surroundings: Surroundings,
    model: ModelProfile,
    floor: Rungs | None,
) -> None:
    """Runs the smallest real job through an engine of its own, files and all.

    Args:
        floor: the rungs of the job that waits, so that the weights lie as it wants them.
    """
    parameters = GenerationParameters(
        prompt="a proof",
        negative_prompt="",
        width=model.min_side_px,
        height=model.min_side_px,
        num_inference_steps=PROOF_STEPS,
        guidance_scale=model.defaults.guidance_scale,
        seed=0,
        scheduler=model.defaults.scheduler,
        num_images=1,
        model=model.id,
        format="png",
    )
    failures: list[protocol.JobFailed] = []

    def note(event: protocol.Progress) -> None:
        if isinstance(event, protocol.JobFailed):
            failures.append(event)

    with TemporaryDirectory(prefix="rockiln-proof-") as folder:
        engine = Engine(device, shelf, ArtefactStore(Path(folder)), surroundings, note)
        proof = protocol.Run(
            job_id="proof",
            attempt=0,
            parameters=parameters,
            plan=plan(parameters, model, device.facts, floor=floor),
            model=model,
            pictures=[protocol.PictureTask(index=0)],
        )
        with suppress(UnfitDeviceError):  # said in its failure already
            engine.submit(proof)
            while not engine.idle:
                engine.advance()
    if failures:
        raise ProofError(Fault(failures[0].code, failures[0].detail, failures[0].stage))


def _load_pinned(device: Device, shelf: ModelShelf, start: protocol.Start) -> None:
    """One that is broken is told when a job wants it; the others are not kept waiting."""
    for model in start.pinned:
        room = beside_pinned(device.facts, start.pinned, model)
        if model.id != start.model.id:
            try:
                shelf.take(model, plan(usual_parameters(model), model, room))
            except BrokenModelError as error:
                sys.stderr.write(f"pinned: {error.detail}\n")


def _versions(device: Device) -> dict[str, str]:
    return {
        "rockiln": __version__,
        **{name: version(name) for name in _RECORDED_LIBRARIES},
        **device.versions(),
    }

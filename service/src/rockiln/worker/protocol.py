"""Lines of JSON between the supervisor and its engine child.

Commands go to the child's standard input, events come back on a pipe of their own (its descriptor
number is the child's only argument), so that nothing a library prints can be taken for an event.
Bulk data never travels here: latents and pictures are files, an event carries their names.
End of input tells the child to leave at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from rockiln.domain.fault import FaultCode, Stage
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import Plan
from rockiln.domain.request import GenerationParameters


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Line):
    """First command: take the device, load ``model``, prove it with a small picture, say Ready.

    Attributes:
        plan: how the weights are to lie from the beginning; None: as the model's proof needs it.
        reserved_vram_bytes: of the device, left to others.
        environment: variables of the release and of the plan, to be set before torch is loaded.
        pinned: models that are loaded before Ready, too, and never leave memory.
        model_idle_seconds: another one that no job used for it leaves; None: only for another.
    """

    op: Literal["start"] = "start"
    backend: Literal["cpu", "rocm", "cuda"]
    compute_device: Literal["auto", "gpu", "cpu"]
    torch_threads: int
    artefacts_dir: str
    cache_dir: str
    model: ModelProfile
    plan: Plan | None = None
    reserved_vram_bytes: int = 0
    environment: dict[str, str] = Field(default_factory=dict)
    pinned: list[ModelProfile] = Field(default_factory=list)
    model_idle_seconds: float | None = None


class PictureTask(_Line):
    """One picture of a job. With ``latents`` set (file name) only decoding is left to do."""

    index: int
    latents: str | None = None


class Run(_Line):
    """Make the named pictures of a job. A warm-up makes them to fill the kernel caches.

    Attributes:
        lora_files, embedding_files, controlnet_files: name → path of each that the parameters name.
    """

    op: Literal["run"] = "run"
    job_id: str
    attempt: int
    parameters: GenerationParameters
    plan: Plan
    model: ModelProfile
    pictures: list[PictureTask]
    lora_files: dict[str, str] = Field(default_factory=dict)
    embedding_files: dict[str, str] = Field(default_factory=dict)
    controlnet_files: dict[str, str] = Field(default_factory=dict)
    purpose: Literal["picture", "warm_up"] = "picture"


class Cancel(_Line):
    """Drop the job's rows at the next step boundary."""

    op: Literal["cancel"] = "cancel"
    job_id: str


class Ready(_Line):
    """The device works: a small picture was made and was a picture."""

    event: Literal["ready"] = "ready"
    device: DeviceFacts
    versions: dict[str, str]
    proof_seconds: float


class ModelInMemory(_Line):
    """A model that the child has loaded, and what it holds while it does nothing."""

    id: str
    plan: Plan
    device_bytes: int
    host_bytes: int
    pinned: bool


class ModelsInMemory(_Line):
    """All models that are loaded now, the one unused longest first; sent when that changes."""

    event: Literal["models_in_memory"] = "models_in_memory"
    models: list[ModelInMemory]


class JobTaken(_Line):
    """The child has read the Run; whatever it dies of from here on may be the job's doing."""

    event: Literal["job_taken"] = "job_taken"
    job_id: str


class DenoiseStarted(_Line):
    """The prompts are encoded and the model is where the plan wants it."""

    event: Literal["denoise_started"] = "denoise_started"
    job_id: str


class StepDone(_Line):
    """Picture ``index`` has done ``step`` of its ``steps``."""

    event: Literal["step_done"] = "step_done"
    job_id: str
    index: int
    step: int
    steps: int


class PreviewMade(_Line):
    """A preview of a picture in the making is in its place (``ArtefactStore.preview_path``)."""

    event: Literal["preview_made"] = "preview_made"
    job_id: str
    index: int
    step: int


class LatentsStored(_Line):
    """The final latents of a picture are on disk under ``latents``; denoising is never repeated."""

    event: Literal["latents_stored"] = "latents_stored"
    job_id: str
    index: int
    latents: str


class DecodeStarted(_Line):
    """The decoder has begun on a picture."""

    event: Literal["decode_started"] = "decode_started"
    job_id: str
    index: int


class EncodeStarted(_Line):
    """The decoder is through with a picture; its file is being made."""

    event: Literal["encode_started"] = "encode_started"
    job_id: str
    index: int


class PictureEncoded(_Line):
    """The picture file is on disk under its digest.

    Attributes:
        details: what the picture's own JSON chunk says (parameters, plan, policies, versions).
        warnings: sentences for the person, such as a prompt longer than the model reads.
        seconds: time per stage.
        memory: peak bytes on the device per stage, where the device counts them.
    """

    event: Literal["picture_encoded"] = "picture_encoded"
    job_id: str
    index: int
    digest: str
    size_bytes: int
    details: dict[str, object]
    warnings: list[str]
    seconds: dict[str, float]
    memory: dict[str, int] = Field(default_factory=dict)


class JobEnded(_Line):
    """No row of the job is left in the child: all encoded, or cancelled."""

    event: Literal["job_ended"] = "job_ended"
    job_id: str
    outcome: Literal["encoded", "cancelled"]


class JobFailed(_Line):
    """The job raised; the child is still fit to work unless it leaves right after."""

    event: Literal["job_failed"] = "job_failed"
    job_id: str
    code: FaultCode
    detail: str
    stage: Stage | None = None


class StartFailed(_Line):
    """The child cannot work and leaves. ``detail`` says why and what to do."""

    event: Literal["start_failed"] = "start_failed"
    code: FaultCode
    detail: str


Progress = (
    JobTaken
    | DenoiseStarted
    | StepDone
    | PreviewMade
    | LatentsStored
    | DecodeStarted
    | EncodeStarted
    | PictureEncoded
    | JobEnded
    | JobFailed
)
Command = Annotated[Start | Run | Cancel, Field(discriminator="op")]
Event = Annotated[Ready | StartFailed | ModelsInMemory | Progress, Field(discriminator="event")]
_COMMANDS: TypeAdapter[Command] = TypeAdapter(Command)
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


def encode(message: _Line) -> bytes:
    """One message as one line."""
    return message.model_dump_json().encode() + b"\n"


def decode_command(line: bytes) -> Command:
    """Raises pydantic.ValidationError on anything but a command."""
    return _COMMANDS.validate_json(line)


def decode_event(line: bytes) -> Event:
    """Raises pydantic.ValidationError on anything but an event."""
    return _EVENTS.validate_json(line)

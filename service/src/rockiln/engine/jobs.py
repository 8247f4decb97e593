"""Jobs in hand: their pictures, and what is reported of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rockiln.domain.errors import InvalidRequestError
from rockiln.engine.controls import Control
from rockiln.engine.embeddings import ReadTexts
from rockiln.engine.families.interface import Conditioning
from rockiln.engine.latents_file import FinalLatents
from rockiln.engine.loras import AppliedLora
from rockiln.engine.model_shelf import ShelvedModel
from rockiln.engine.passes import Pass
from rockiln.engine.rows import Row
from rockiln.engine.start_picture import StartPicture
from rockiln.platforms.interface import Device
from rockiln.worker.protocol import Run

_SHOWN_TEXT_CHARS = 200


class Stopwatch:
    """Seconds and peak device memory per stage.

    Attributes:
        seconds: monotonic.
        peak_bytes: in use on the device at most, where the device counts that.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to ``stage``; several may watch one block."""
        begun = time.monotonic()
        self._device.begin_stage()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - begun
            peak_bytes = self._device.stage_peak_bytes()
            if peak_bytes:
                self.peak_bytes[stage] = max(self.peak_bytes.get(stage, 0), peak_bytes)


@dataclass(eq=False)
class Job:
    """One Run.

    Attributes:
        open_pictures: those not encoded yet.
        passes, prompts: what each picture goes through, and the conditioning of each pass.
        start: what they start from, if not from noise.
        loras: on the model's weights while it works for this job.
        controlnets, controls: beside the model, and what they follow in each pass.
    """

    run: Run
    shelved: ShelvedModel
    watch: Stopwatch
    warnings: list[str] = field(default_factory=list)
    open_pictures: int = 0
    passes: list[Pass] = field(default_factory=list)
    prompts: list[Prompts] = field(default_factory=list)
    start: StartPicture | None = None
    loras: tuple[AppliedLora, ...] = ()
    controlnets: tuple[Path, ...] = ()
    controls: list[tuple[Control, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.warnings += _rounding_warnings(self.run)

    @property
    def id(self) -> str:
        return self.run.job_id


@dataclass(eq=False)
class Picture:
    """One picture of a job: first a row for each pass, then final latents, then a file."""

    job: Job
    index: int
    watch: Stopwatch
    row: Row | None = None
    passes_done: int = 0
    previewed_monotonic: float = field(default_factory=time.monotonic)
    latents: FinalLatents | None = None

    @property
    def steps_done(self) -> int:
        """Denoising steps, of all passes so far."""
        before = sum(work.steps for work in self.job.passes[: self.passes_done])
        return before + (0 if self.row is None else self.row.steps_done)

    @property
    def seconds(self) -> dict[str, float]:
        """Per stage; what a job does once is counted in each of its pictures."""
        return {
            stage: round(seconds, 6)
            for stage, seconds in {**self.job.watch.seconds, **self.watch.seconds}.items()
        }

    @property
    def memory(self) -> dict[str, int]:
        """Peak bytes on the device per stage, likewise."""
        return {**self.job.watch.peak_bytes, **self.watch.peak_bytes}


@dataclass(frozen=True)
class Prompts:
    """Conditioning of a job's pictures."""

    positive: Conditioning
    negative: Conditioning | None


def check_inputs(run: Run, device: Device) -> None:
    """What the front cannot have let through.

    Raises:
        InvalidRequestError, ValueError: it did.
    """
    parameters = run.parameters
    if run.plan.device != device.facts.kind:
        raise ValueError(
            f"the plan is for a {run.plan.device}, this engine computes on a {device.facts.kind}"
        )
    if parameters.scheduler not in run.model.schedulers:
        raise InvalidRequestError(
            f"scheduler {parameters.scheduler!r} does not sample model {run.model.id}"
        )
    if parameters.total_steps < 1:
        raise InvalidRequestError(f"{parameters.total_steps} steps are none")


def text_warnings(job: Job, read: ReadTexts) -> list[str]:
    """A sentence for each text that the model does not read, or not to its end."""
    model = job.shelved.model
    parameters = job.run.parameters
    texts = {"prompt": parameters.prompt}
    warnings = []
    if not model.components.unconditional_forward:
        if parameters.negative_prompt:
            warnings.append("This model takes no negative prompt; it had no effect.")
    elif parameters.guided:
        texts["negative prompt"] = parameters.negative_prompt
    if parameters.prompt_syntax == "weighted":
        return warnings  # texts of any length are read
    for what, text in texts.items():
        dropped = model.family.dropped_text(read.components, read.spelt(text))
        if dropped is not None:
            rest = read.named(dropped.text)
            shown = rest[:_SHOWN_TEXT_CHARS]
            more = "…" if len(rest) > _SHOWN_TEXT_CHARS else ""
            warnings.append(
                f"The {what} is {dropped.tokens} tokens longer than the {dropped.window_tokens} "
                f"this model reads; not read: “{shown}{more}”"
            )
    return warnings


def _rounding_warnings(run: Run) -> list[str]:
    """A sentence where the planner rounded weights that nobody asked to round."""
    names = [name for name in run.plan.quantisation if name not in run.model.quantised]
    if not names:
        return []
    return [
        f"The weights of {' and '.join(names)} were rounded to 8 bits, since the job fits this "
        "device in no exact way (quantisation_allowed)."
    ]

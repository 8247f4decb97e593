"""What ``rockiln bench`` measured, as one document: the JSON file that a public table takes.

Its JSON Schema is ``service/docs/bench-report.schema.json``.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

# Waiting for weights that another job may have pushed out says nothing of a scheduler or a size.
UNCOUNTED_STAGES = frozenset({"load"})
Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Document):
    """A quantity over all runs of a case."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median=statistics.median(values), min=min(values), max=max(values))


class Run(_Document):
    """One picture."""

    seconds: dict[str, Seconds] = Field(description="Time per stage, as the job tells it.")
    peak_bytes: dict[str, Bytes] = Field(
        description="Memory of the device at the peak of each stage, where it is counted; of the "
        "whole process on a CPU."
    )

    @property
    def picture_seconds(self) -> float:
        return sum(s for stage, s in self.seconds.items() if stage not in UNCOUNTED_STAGES)


class Case(_Document):
    """One scheduler at one size and number of steps."""

    scheduler: str
    width: int
    height: int
    steps: int
    runs: list[Run]
    picture_seconds: Spread | None = Field(
        description="From the prompt to the file: all stages but load."
    )
    steps_per_second: Spread | None = Field(description="Of the denoise stage alone.")
    peak_bytes: Bytes | None = Field(description="The most of all runs and stages.")
    rungs: dict[str, str] | None = Field(description="The way of working that fitted the device.")
    policies: list[str] = Field(description="Optimisations that were in force.")
    failure: str | None = Field(description="Why there are no figures, or not of all runs.")

    @classmethod
    def of(
        cls,
        *,
        scheduler: str,
        size: tuple[int, int],
        steps: int,
        runs: list[Run],
        rungs: dict[str, str] | None = None,
        policies: Sequence[str] = (),
        failure: str | None = None,
    ) -> Self:
        peaks = [peak for run in runs for peak in run.peak_bytes.values()]
        denoised = [run.seconds["denoise"] for run in runs if run.seconds.get("denoise")]
        return cls(
            scheduler=scheduler,
            width=size[0],
            height=size[1],
            steps=steps,
            runs=runs,
            picture_seconds=Spread.of([run.picture_seconds for run in runs]) if runs else None,
            steps_per_second=Spread.of([steps / each for each in denoised]) if denoised else None,
            peak_bytes=max(peaks) if peaks else None,
            rungs=rungs,
            policies=list(policies),
            failure=failure,
        )


class Device(_Document):
    """One device of the service."""

    worker: str
    kind: Literal["gpu", "cpu"]
    name: str
    backend: str
    capability: str = Field(description="gfx id, sm_…, or the CPU's instruction set.")
    total_bytes: Bytes
    reserved_bytes: Bytes
    host_bytes: Bytes
    threads: int


class Model(_Document):
    """What was measured."""

    id: str
    family: str
    revision: str | None = Field(description="SHA-256 over its files; null without a picture.")
    dtype: str | None


class BenchReport(_Document):
    """One measurement: on what, of what, how, and the figures."""

    schema_version: Literal[1] = 1
    made_at: datetime
    command: str
    devices: list[Device] = Field(
        description="Those that may have made the pictures; none for a key that may not see them."
    )
    release: str | None = Field(description="ROCm release of the host, where it was provisioned.")
    versions: dict[str, str] = Field(description="Libraries that the pictures were made with.")
    model: Model
    prompt: str
    guidance_scale: float
    seed: int
    cases: list[Case]

    @property
    def where(self) -> str:
        """Its devices by name."""
        return ", ".join(f"{each.name} ({each.backend})" for each in self.devices) or "its device"

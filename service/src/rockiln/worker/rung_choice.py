"""Which rungs an attempt stands on, and where the next one goes after a fault."""

from __future__ import annotations

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.ladder import (
    PROBE_EVERY_JOBS,
    Capabilities,
    RungKey,
    Rungs,
    climb,
    descend,
    size_bucket,
)
from rockiln.domain.memory import capabilities, guides_by_pairs
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import FRUGAL_RUNGS, plan
from rockiln.domain.request import GenerationParameters
from rockiln.registry.revision import signature_of
from rockiln.store.records import Job
from rockiln.store.store import Store
from rockiln.worker import protocol
from rockiln.worker.attempt import Attempt, Choice
from rockiln.worker.clocks import KeyTimes


def choose(job: Job, model: ModelProfile, ready: protocol.Ready, store: Store) -> Choice:
    """The plan of an attempt: the rungs that the job climbed to, else those that worked before."""
    parameters, device = job.parameters, ready.device
    predicted = plan(parameters, model, device)
    key = RungKey(
        revision="+".join(
            [signature_of(model), *(str(each.parameters) for each in model.controlnets)]
        ),
        size_bucket=size_bucket(*parameters.largest_size),
        batch=parameters.num_images,
        dtype=predicted.dtype,
        gpu=device.name,
        release="/".join(ready.versions.get(name, "") for name in ("rocm", "torch")),
    ).text
    known = store.rungs.get(key)
    # A job that a newer version left on a rung of its own goes on at the frugal end.
    climbed = (Rungs.known(job.rungs) or FRUGAL_RUNGS) if job.rungs else None
    remembered = known.rungs if known is not None else None
    trial = False
    wanted = climbed or remembered
    if known is not None and climbed is None and (known.successes + 1) % PROBE_EVERY_JOBS == 0:
        up = descend(known.rungs, available=_available(parameters, model, device))
        trial, wanted = up != known.rungs, up
    return Choice(
        plan=predicted
        if wanted in (None, predicted.rungs)
        else plan(parameters, model, device, remembered=wanted),
        key=key,
        remembered=remembered,
        trial=trial,
        times=KeyTimes(
            step=known.step_seconds if known is not None else None,
            decode=known.decode_seconds if known is not None else None,
        ),
    )


def next_rungs(
    attempt: Attempt, fault: Fault, device: DeviceFacts, *, max_killed: int
) -> Rungs | None:
    """The rungs for the job's next attempt; None: the same again, or the ladder is used up.

    Args:
        max_killed: attempts that may kill their engine before the job is quarantined.
    """
    choice, job = attempt.choice, attempt.job
    if not fault.climbs or _same_once_more(attempt, fault):
        return None
    available = _available(job.parameters, attempt.model, device)
    higher = climb(choice.plan.rungs, fault, available=available)
    if fault.kills_engine and job.killed_attempts + 2 >= max_killed:
        # The attempt after this one is the last before quarantine: it takes the safest rung.
        while higher is not None and (next_one := climb(higher, fault, available=available)):
            higher = next_one
    return higher


def _same_once_more(attempt: Attempt, fault: Fault) -> bool:
    """A later step that hangs gets its rung once more; it may have been the device."""
    return (
        fault.code is FaultCode.HANG
        and fault.stage == "denoise"
        and attempt.limit is not None
        and attempt.limit.clock == "step"
        and attempt.job.killed_attempts == 0
    )


def _available(
    parameters: GenerationParameters, model: ModelProfile, device: DeviceFacts
) -> Capabilities:
    paired = parameters.guided and guides_by_pairs(model)
    samples = parameters.num_images * (2 if paired else 1)
    return capabilities(model, device, samples=samples)

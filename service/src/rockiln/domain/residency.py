"""Which models may stay in memory beside a job. Pure, and by prediction: never over the budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from rockiln.domain.memory import Estimate, fits, weights_at_rest
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import Plan, plan
from rockiln.domain.request import GenerationParameters, GenerationRequest
from rockiln.domain.resolution import resolve


@dataclass(frozen=True)
class Held:
    """What a model holds while it does nothing; on a CPU both are the same memory."""

    device_bytes: int
    host_bytes: int
    pinned: bool = False


Kept = TypeVar("Kept")


def held_by(model: ModelProfile, chosen: Plan, *, pinned: bool = False) -> Held:
    """What ``model``, loaded by that plan, holds between two jobs."""
    on_device, on_host = weights_at_rest(
        model.rounded(chosen.quantisation),
        chosen.dtype,
        chosen.decode_dtype or chosen.dtype,
        resident=chosen.placement == "resident",
        device=chosen.device,
    )
    # Of parts that left the device for a decode the host keeps a copy.
    parked = chosen.unload_before_decode or chosen.decode_device == "cpu"
    return Held(on_device, max(on_host, on_device) if parked else on_host, pinned)


def to_evict(kept: Sequence[tuple[Kept, Held]], chosen: Plan, device: DeviceFacts) -> list[Kept]:
    """Those that have to go before a job starts; a pinned one never does.

    Args:
        kept: the other models in memory, the one unused longest first.
        chosen: the job's plan, with its predicted peaks.
    """
    staying, going = list(kept), []
    while not _all_fit(chosen, [held for _, held in staying], device):
        loose = next((each for each in staying if not each[1].pinned), None)
        if loose is None:
            break
        staying.remove(loose)
        going.append(loose[0])
    return going


def beside_pinned(
    device: DeviceFacts, pinned: Iterable[ModelProfile], model: ModelProfile
) -> DeviceFacts:
    """The device as a job of ``model`` may use it: the other pinned models keep what they hold."""
    held = [
        held_by(other, plan(usual_parameters(other), other, device))
        for other in pinned
        if other.id != model.id
    ]
    on_host = sum(each.host_bytes for each in held)
    return replace(
        device,
        reserved_bytes=device.reserved_bytes + sum(each.device_bytes for each in held),
        # 0 means not known; what is used up is one byte.
        host_bytes=max(1, device.host_bytes - on_host) if device.host_bytes else 0,
    )


def usual_parameters(model: ModelProfile) -> GenerationParameters:
    """Of a request that leaves everything open."""
    request = GenerationRequest(prompt="a picture", model=model.id)
    return resolve(request, model, seed=0, picture_format="png")


def _all_fit(chosen: Plan, others: Iterable[Held], device: DeviceFacts) -> bool:
    held = list(others)
    peak = Estimate(
        chosen.predicted_bytes + sum(each.device_bytes for each in held),
        chosen.predicted_host_bytes + sum(each.host_bytes for each in held),
    )
    return fits(peak, device)

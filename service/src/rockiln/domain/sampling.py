"""Sampling methods by their names in a request, and the names other tools have for them."""

from __future__ import annotations

from typing import Literal, get_args

DiffusionScheduler = Literal[
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_karras",
    "dpmpp_sde",
    "dpmpp_sde_karras",
    "ddim",
    "euler",
    "euler_karras",
    "euler_ancestral",
    "heun",
    "unipc",
    "lcm",
]
FlowScheduler = Literal["flow_euler", "flow_heun"]
SchedulerName = Literal[DiffusionScheduler, FlowScheduler]
# Which of them a model takes depends on what its network predicts: noise, or a flow.
DIFFUSION_SCHEDULERS: tuple[str, ...] = get_args(DiffusionScheduler)
FLOW_SCHEDULERS: tuple[str, ...] = get_args(FlowScheduler)
SCHEDULER_NAMES = DIFFUSION_SCHEDULERS + FLOW_SCHEDULERS

# A1111's sampler and schedule type.
A1111_NAMES: dict[str, tuple[str, str]] = {
    "dpmpp_2m": ("DPM++ 2M", "Uniform"),
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "dpmpp_2m_sde": ("DPM++ 2M SDE", "Uniform"),
    "dpmpp_2m_sde_karras": ("DPM++ 2M SDE", "Karras"),
    "dpmpp_sde": ("DPM++ SDE", "Uniform"),
    "dpmpp_sde_karras": ("DPM++ SDE", "Karras"),
    "ddim": ("DDIM", "Uniform"),
    "euler": ("Euler", "Uniform"),
    "euler_karras": ("Euler", "Karras"),
    "euler_ancestral": ("Euler a", "Uniform"),
    "heun": ("Heun", "Uniform"),
    "unipc": ("UniPC", "Uniform"),
    "lcm": ("LCM", "Uniform"),
    "flow_euler": ("Euler", "Simple"),
    "flow_heun": ("Heun", "Simple"),
}
# Most steps of a method that cannot take any number of them.
STEPS_LIMITS = {"lcm": 50}
_KARRAS = "karras"
# Older names of A1111 and k-diffusion's own.
_OTHER_NAMES = {
    "k_euler": "euler",
    "k_euler_a": "euler_ancestral",
    "euler_a": "euler_ancestral",
    "euler ancestral": "euler_ancestral",
    "k_dpmpp_2m": "dpmpp_2m",
    "k_dpmpp_2m_ka": "dpmpp_2m_karras",
    "k_dpmpp_sde": "dpmpp_sde",
    "k_heun": "heun",
    "flowmatch euler": "flow_euler",
    "flowmatch heun": "flow_heun",
}


def _spoken() -> dict[str, str]:
    names = {name: name for name in SCHEDULER_NAMES} | _OTHER_NAMES
    for name, (sampler, schedule) in A1111_NAMES.items():
        if name in DIFFUSION_SCHEDULERS:
            suffix = f" {_KARRAS}" if schedule.lower() == _KARRAS else ""
            names[sampler.lower() + suffix] = name
    return names


_SPOKEN = _spoken()


def scheduler_named(sampler: str, schedule: str | None = None) -> str | None:
    """Our name of a sampling method in the words of the field; None if there is none such.

    Args:
        sampler: our own name, or A1111's ("DPM++ 2M Karras", "Euler a"), in any case.
        schedule: A1111's schedule type, where it is said apart; "Automatic" and the schedules that
            a sampler has anyway change nothing.
    """
    spoken = " ".join(sampler.lower().split())
    if schedule is not None and schedule.strip().lower() == _KARRAS and _KARRAS not in spoken:
        apart = spoken.replace(" ", "_") if spoken in SCHEDULER_NAMES else spoken
        spoken = f"{apart}_{_KARRAS}" if spoken in SCHEDULER_NAMES else f"{spoken} {_KARRAS}"
    return _SPOKEN.get(spoken)

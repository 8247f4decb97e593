"""Two models in one engine: there and back without a restart, seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.service import Service, eventually
from support.tiny_sd1 import make_tiny_sd1


def in_memory(service: Service) -> dict[str, bool]:
    """Model → whether it is pinned, as the worker says."""
    (worker,) = service.get("/system").json()["workers"]
    health: dict[str, Any] = worker["health"] or {}
    return {model["id"]: model["pinned"] for model in health.get("models", [])}


def draw(service: Service, model: str) -> str:
    """The picture's SHA-256."""
    job_id = service.submit(prompt="a boat", seed=1, num_inference_steps=2, model=model)
    digest: str = service.wait_for(job_id, "done", "failed")["pictures"][0]["sha256"]
    return digest


def test_a_switch_there_and_back_needs_no_other_engine_and_idle_models_leave(
    new_service: Callable[..., Service], tmp_path: Path
) -> None:
    make_tiny_sd1(tmp_path / "data" / "models" / "other", seed=1)
    service = new_service(default_model="other", pinned_models="tiny", model_idle_seconds=2)
    engine = service.engine().pid
    assert eventually(lambda: in_memory(service), "the worker tells")["tiny"] is True
    first = [draw(service, model) for model in ("tiny", "other", "tiny", "other")]
    assert first[:2] == first[2:]
    assert first[0] != first[1]
    eventually(lambda: in_memory(service) == {"tiny": True}, "the idle one leaves")
    metrics = service.get("/metrics").text
    assert 'rockiln_worker_models{pinned="true",worker="cpu0"} 1.0' in metrics
    assert draw(service, "other") == first[1]
    assert service.engine().pid == engine

"""GET /metrics: what is counted, and that it stays small."""

from __future__ import annotations

import itertools
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.telemetry.metrics import SERIES_MAX, Metrics
from rockiln.telemetry.store_metrics import StoreMetrics
from support.front import Front


def samples(front: Front) -> dict[str, float]:
    """Every sample, by its name and labels in Prometheus' own words."""
    answer = front.client.get("/metrics")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    return parse(answer.text)


def parse(exposition: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_calls_are_counted_by_route_and_not_by_address(front: Front) -> None:
    job_id = front.submit()
    for address in (f"/jobs/{job_id}", f"/jobs/{'0' * 32}", "/nowhere/at/all"):
        front.client.get(address)
    front.client.open("/livez", method="MADE-UP")
    found = samples(front)
    calls = 'rockiln_http_requests_total{method="%s",route="%s",status="%d"}'
    assert found[calls % ("GET", "/jobs/<job_id>", 200)] == 1
    assert found[calls % ("GET", "/jobs/<job_id>", 404)] == 1
    assert found[calls % ("other", "none", 404)] == 1
    assert found[calls % ("other", "none", 405)] == 1
    assert found['rockiln_http_request_seconds_count{route="/jobs/<job_id>"}'] == 2
    assert not any(job_id in name or "MADE-UP" in name for name in found)


@pytest.fixture
def metrics(front: Front) -> Metrics:
    """The store's numbers alone, read anew at every look."""
    metrics = Metrics()
    tens = itertools.count(step=10)
    metrics.add(StoreMetrics(front.settings, front.store, monotonic=lambda: next(tens)))
    return metrics


def test_what_the_store_knows_is_shown(front: Front, metrics: Metrics) -> None:
    front.hand.report()
    metrics.exposition()  # pictures are counted from the first look on
    front.submit()
    front.hand.finish(front.hand.lease())
    front.submit()
    front.hand.fail(front.hand.lease(), Fault(FaultCode.GPU_OOM, "no room", "decode"))
    front.submit()
    found = parse(metrics.exposition().decode())
    assert found["rockiln_store_up{}"] == 1
    assert found['rockiln_jobs{state="done"}'] == 1
    assert found['rockiln_queue_jobs{part="waiting"}'] == 1
    assert found['rockiln_failed_attempts{code="gpu_oom"}'] == 1
    assert found['rockiln_stage_seconds_count{stage="denoise"}'] == 1
    assert found['rockiln_worker_state{state="ready",worker="cpu0"}'] == 1
    assert found['rockiln_worker_device_bytes{worker="cpu0"}'] == 8 << 30
    info = next(name for name in found if name.startswith("rockiln_worker_info"))
    assert 'torch="0"' in info
    assert found['rockiln_clock_seconds{clock="step"}'] == front.settings.step_seconds


def test_kinds_of_jobs_tell_their_memory_and_whether_kernels_were_there(
    front: Front, metrics: Metrics
) -> None:
    for key, peak in (("a", 5 << 30), ("a", 4 << 30), ("b", 3 << 30)):
        front.store.rungs.record_success(
            key,
            Rungs(DenoiseRung.FULL, DecodeRung.TILED),
            step_seconds=1.0,
            decode_seconds=1.0,
            peak_bytes=peak,
        )
    found = parse(metrics.exposition().decode())
    assert found["rockiln_memory_peak_bytes{}"] == 5 << 30
    assert found['rockiln_kernel_cache_jobs{result="hit"}'] == 1
    assert found['rockiln_kernel_cache_jobs{result="miss"}'] == 2
    assert found['rockiln_rung_keys{ladder="decode",rung="tiled"}'] == 2


def test_a_store_that_cannot_be_read_is_told_and_the_rest_stays(front: Front) -> None:
    with front.store.database.write() as session:
        session.execute(text("DROP TABLE attempt"))
    found = samples(front)
    assert found["rockiln_store_up{}"] == 0
    assert 'rockiln_clock_seconds{clock="step"}' in found


def test_series_are_bounded_however_many_jobs_there_are(front: Front, metrics: Metrics) -> None:
    def shown() -> int:
        return len(parse(metrics.exposition().decode()))

    front.hand.report()
    front.submit()
    front.hand.finish(front.hand.lease())
    before = shown()
    for _ in range(5):
        front.submit()
        front.hand.finish(front.hand.lease())
    assert before <= shown() <= before + 100 < SERIES_MAX


def test_every_name_is_ours_and_has_its_unit(front: Front) -> None:
    for name in samples(front):
        assert re.match(r"rockiln_[a-z_]+\{", name), name
        assert "_created" not in name

"""GET /metrics: what is counted, and that it stays small."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from support.front import Front


def samples(front: Front) -> dict[str, float]:
    """Every sample, by its name and labels in Prometheus' own words."""
    answer = front.client.get("/metrics")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.text):
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


def test_every_name_is_ours_and_has_its_unit(front: Front) -> None:
    for name in samples(front):
        assert re.match(r"rockiln_[a-z_]+\{", name), name
        assert "_created" not in name

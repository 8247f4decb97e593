"""The board and the alert rules of the role monitoring, against a real Prometheus."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jinja2
import pytest
import yaml

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from support.front import ServedFront
from support.service import eventually, free_port

ROLE = Path(__file__).resolve().parents[3] / "ansible" / "roles" / "monitoring"
ALERTS = ROLE / "files" / "rockiln-alerts.yml"
BOARD = json.loads((ROLE / "files" / "rockiln-board.json").read_text())
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in BOARD["panels"]
    for target in panel["targets"]
]
# What makes each alert fire, and how long it must last.
FIRES: dict[str, tuple[str, str]] = {
    "RockilnDown": ('up{job="rockiln"}', "0"),
    "RockilnStoreUnreadable": ("rockiln_store_up", "0"),
    "RockilnWorkerWedged": ('rockiln_worker_state{worker="gpu0",state="wedged"}', "1"),
    "RockilnWorkerFailed": ('rockiln_worker_state{worker="gpu0",state="failed"}', "1"),
    "RockilnNoWorker": ('rockiln_worker_heartbeat_age_seconds{worker="gpu0"}', "90"),
    "RockilnEnginesDie": ('rockiln_worker_recent_deaths{worker="gpu0"}', "5"),
    "RockilnRefusals": ("rockiln_refusals", "1"),
    "RockilnQueueLong": ('rockiln_queue_estimated_seconds{part="waiting"}', "3601"),
    "RockilnDiskLow": ("rockiln_disk_free_bytes", "4e9"),
    "RockilnUnexpectedError": (
        'rockiln_http_requests_total{status="500",route="/generate",method="POST"}',
        "counted",
    ),
}
HEALTHY = {
    'up{job="rockiln"}': "1",
    "rockiln_store_up": "1",
    'rockiln_worker_state{worker="gpu0",state="wedged"}': "0",
    'rockiln_worker_state{worker="gpu0",state="failed"}': "0",
    'rockiln_worker_heartbeat_age_seconds{worker="gpu0"}': "2",
    'rockiln_worker_recent_deaths{worker="gpu0"}': "4",
    "rockiln_refusals": "0",
    'rockiln_queue_estimated_seconds{part="waiting"}': "3600",
    "rockiln_disk_free_bytes": "9e9",
}


def rendered(template: str, **changes: Any) -> str:
    values: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    environment = jinja2.Environment(  # noqa: S701 (no HTML)
        loader=jinja2.FileSystemLoader(ROLE / "templates"), trim_blocks=True
    )
    environment.filters["to_json"] = json.dumps
    known = {"ansible_managed": "x", "__monitoring_alerts": str(ALERTS), **values, **changes}
    return environment.get_template(template).render(known)


def promtool(*arguments: str | Path) -> None:
    subprocess.run(["promtool", *arguments], check=True, stdout=subprocess.PIPE)


class Prometheus:
    """One that scrapes ``target`` every second."""

    def __init__(self, folder: Path, target: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        configuration = folder / "prometheus.yml"
        configuration.write_text(
            rendered("prometheus.yml.j2", monitoring_target=target, monitoring_scrape_seconds=1)
        )
        promtool("check", "config", configuration)
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=warn",
            ]
        )

    def found(self, query: str) -> list[Any]:
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return []
        if answer.status_code == 503:  # it is starting
            return []
        assert answer.status_code == 200, answer.text
        series: list[Any] = answer.json()["data"]["result"]
        return [each for each in series if each["value"][1] != "NaN"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Watches a front at which all has happened that a panel can show."""
    folder = tmp_path_factory.mktemp("monitoring")
    with ServedFront(folder) as front:
        prometheus = Prometheus(folder, front.url.removeprefix("http://"))
        try:
            eventually(lambda: prometheus.found("rockiln_store_up"), "it scrapes", seconds=60)
            front.hand.report()
            make_history(front)
            rate = "rate(rockiln_stage_seconds_count[5m]) > 0"
            eventually(lambda: prometheus.found(rate), "two scrapes saw it", seconds=60)
            yield prometheus
        finally:
            prometheus.stop()


def make_history(front: ServedFront) -> None:
    def submit() -> None:
        answer = httpx.post(
            f"{front.url}/generate", json={"prompt": "x"}, headers={"Prefer": "respond-async"}
        )
        assert answer.status_code == 202

    submit()
    front.hand.finish(front.hand.lease())
    submit()
    front.hand.fail(front.hand.lease(), Fault(FaultCode.GPU_OOM, "no room", "decode"))
    front.store.rungs.record_success(
        "key",
        Rungs(DenoiseRung.FULL, DecodeRung.TILED),
        step_seconds=1.0,
        decode_seconds=1.0,
        peak_bytes=1 << 30,
    )


@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_has_data(prometheus: Prometheus, query: str) -> None:
    eventually(lambda: prometheus.found(query), f"{query} shows something", seconds=30)


def test_a_healthy_service_raises_no_alert(prometheus: Prometheus) -> None:
    assert prometheus.found('ALERTS{alertname!="RockilnDiskLow"}') == []


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == set(FIRES)
    assert all(rule["annotations"]["next"] for rule in rules)


@pytest.mark.parametrize("alert", FIRES)
def test_an_alert_fires_and_no_other(alert: str, tmp_path: Path) -> None:
    series, value = FIRES[alert]
    ill = {**HEALTHY, series: value}
    case = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {
                        "series": name,
                        "values": "0+1x30" if level == "counted" else f"{level}+0x30",
                    }
                    for name, level in (HEALTHY if fires is None else ill).items()
                ],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "25m",
                        "exp_samples": []
                        if fires is None
                        else [{"labels": f'{{alertname="{fires}"}}', "value": 1}],
                    }
                ],
            }
            for fires in (None, alert)
        ],
    }
    file = tmp_path / "case.yml"
    file.write_text(yaml.safe_dump(case))
    promtool("test", "rules", file)


@pytest.mark.parametrize("key_file", ["", "/etc/prometheus/key"])
def test_the_configuration_is_valid(key_file: str, tmp_path: Path) -> None:
    """Also with a key: Prometheus checks that the file is there."""
    key = ""
    if key_file:
        key = str(tmp_path / "key")
        Path(key).write_text("secret")
    file = tmp_path / "prometheus.yml"
    file.write_text(rendered("prometheus.yml.j2", monitoring_key_file=key))
    promtool("check", "config", file)
    assert "secret" not in file.read_text()

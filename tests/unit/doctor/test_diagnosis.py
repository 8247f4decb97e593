"""Every finding is made by a host that has the fault; a healthy host gives none."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rockiln.cli.main import app
from rockiln.doctor.__main__ import table
from rockiln.doctor.alignment import LAYERS
from rockiln.doctor.diagnosis import diagnose, exit_code
from rockiln.doctor.gpu_facts import Roots, gpu_facts
from rockiln.doctor.kinds import KINDS
from rockiln.doctor.measure import measure, mount_of
from rockiln.doctor.report import document, show
from rockiln.settings import Settings
from support.host_tree import load_host, plant

Facts = dict[str, Any]
GIB = 1 << 30
ROOT = Path(__file__).resolve().parents[3]
WORKER = {
    "name": "gpu0",
    "state": "ready",
    "detail": "",
    "heartbeat_age_seconds": 0.4,
    "working": True,
    "on_gpu": True,
    "health": {"restarts": {"deaths_in_window": 0, "budget": 10}},
}
CONTAINER = {"status": "running", "health": "healthy", "restarts": 0, "image": "sha256:1"}
ALIGNED = [
    {"layer": layer, "expected": "a", "actual": "a", "verdict": "aligned", "fix": ""}
    for layer in LAYERS
]


def card(tmp_path: Path, name: str) -> Facts:
    facts: Facts = gpu_facts(Roots.below(plant(tmp_path / name, load_host(name))))
    return facts


@pytest.fixture
def healthy(tmp_path: Path) -> Facts:
    """A host with an RX 9070 XT on which everything is as it should be."""
    return {
        "in_container": False,
        "settings_fault": "",
        "stale_seconds": 5.0,
        "waiting_jobs_limit": 200,
        "data_floor_bytes": GIB,
        "compute_device": "auto",
        "backend": "rocm",
        "host_file": "read",
        "host_file_path": "/etc/rockiln/public/host.json",
        "row": {"host_os": [{"name": "debian", "version": "12"}]},
        "gpu": card(tmp_path, "rx9070xt"),
        "os": "debian 12",
        "architecture": "x86_64",
        "kernel": "6.8.0-60-generic",
        "uid": 1000,
        "user_gids": [993, 1000],
        "python": "3.11.2",
        "memory_bytes": 64 * GIB,
        "memory_available_bytes": 40 * GIB,
        "swap_bytes": 0,
        "memlock_bytes": -1,
        "cgroup_version": 2,
        "shm_bytes": GIB,
        "data_dir": "/var/lib/rockiln",
        "data_total_bytes": 500 * GIB,
        "data_free_bytes": 200 * GIB,
        "data_free_inodes": 10_000_000,
        "data_mount": {"point": "/", "type": "ext4", "options": ["rw"]},
        "engine_free_bytes": 200 * GIB,
        "visible_devices": None,
        "engine_version": "29.7.2",
        "containers": {"rockiln-worker": dict(CONTAINER)},
        "recorded_images": {"rockiln-worker": "sha256:1"},
        "store": "ok",
        "store_path": "/var/lib/rockiln/store/rockiln.db",
        "store_is_sqlite": True,
        "artefacts_fault": "",
        "workers": [copy.deepcopy(WORKER)],
        "waiting_jobs": 0,
        "refusals": 0,
        "last_fault": None,
        "fault_age_seconds": None,
        "service_fault": "",
        "not_ready": "",
        "clock_skew_seconds": 0.2,
        "wheel_fault": "",
        "alignment": copy.deepcopy(ALIGNED),
        "kernel_caches": 1,
    }


def changed(**values: Any) -> Callable[[Facts, Path], None]:
    return lambda facts, _: facts.update(values)


def on(name: str, **values: Any) -> Callable[[Facts, Path], None]:
    """The host's cards are those of a fixture."""

    def change(facts: Facts, tmp_path: Path) -> None:
        facts["gpu"] = card(tmp_path, name)
        facts.update(values)

    return change


def worker(**values: Any) -> Callable[[Facts, Path], None]:
    return lambda facts, _: facts["workers"][0].update(values)


def container(**values: Any) -> Callable[[Facts, Path], None]:
    return lambda facts, _: facts["containers"]["rockiln-worker"].update(values)


def misaligned(layer: str) -> Callable[[Facts, Path], None]:
    def change(facts: Facts, _: Path) -> None:
        facts["alignment"] = [
            {"layer": layer, "expected": "a", "actual": "b", "verdict": "mismatch", "fix": "do it"}
        ]

    return change


def without_wanted(facts: Facts, _: Path) -> None:
    facts["gpu"]["problems"].append({"id": "wanted_gpu_missing", "detail": "no GPU GPU-1"})


HOSTS: dict[str, Callable[[Facts, Path], None]] = {
    "host.os": changed(os="fedora 44"),
    "host.architecture": changed(architecture="aarch64"),
    "host.wsl": on("wsl", compute_device="cpu"),
    "host.memory": changed(memory_bytes=4 * GIB, swap_bytes=GIB),
    "host.memory_available": changed(memory_available_bytes=GIB // 2),
    "host.swap": changed(memory_bytes=8 * GIB),
    "host.shm": changed(shm_bytes=1 << 20),
    "host.memlock": changed(memlock_bytes=8 << 20),
    "host.cgroup": changed(cgroup_version=1),
    "host.clock": changed(clock_skew_seconds=-120.0),
    "disk.data_full": changed(data_free_bytes=GIB // 2),
    "disk.data_low": changed(data_free_bytes=2 * GIB),
    "disk.engine_low": changed(engine_free_bytes=GIB),
    "disk.inodes": changed(data_free_inodes=12),
    "disk.network": changed(data_mount={"point": "/var", "type": "nfs4", "options": ["rw"]}),
    "disk.read_only": changed(data_mount={"point": "/", "type": "ext4", "options": ["ro"]}),
    "gpu.none": on("no_gpu"),
    "gpu.driver_not_loaded": on("driver_not_loaded"),
    "gpu.dkms_not_loaded": on("rx7800xt"),
    "gpu.kfd_missing": on("kfd_missing"),
    "gpu.render_node_missing": on("kfd_missing"),
    "gpu.node_permissions": on("broken_permissions"),
    "gpu.node_hidden": on("hidden_node"),
    "gpu.wanted_missing": without_wanted,
    "gpu.integrated_visible": on("ryzen_igpu_first"),
    "gpu.not_used": on("rx7900xtx", backend="cpu"),
    "gpu.group_missing": lambda facts, _: facts["gpu"]["groups"].update(render_gid=None),
    "gpu.membership": changed(user_gids=[1000]),
    "gpu.iommu_off": on("strix_halo"),
    "gpu.memory": lambda facts, _: facts["gpu"]["gpus"][0].update(vram_bytes=4 * GIB),
    "engine.missing": changed(engine_version=None),
    "engine.container_missing": changed(containers={"rockiln-worker": None}),
    "engine.container_stopped": container(status="exited"),
    "engine.container_unhealthy": container(health="unhealthy"),
    "engine.restarting": container(restarts=3),
    "engine.image": container(image="sha256:2"),
    "install.missing": changed(host_file="missing", row=None, alignment=None),
    "install.unreadable": changed(host_file="host.json: Expecting value"),
    "install.settings": changed(settings_fault="api_bind: no port"),
    "service.unreachable": changed(service_fault="nobody answers at 127.0.0.1:8000"),
    "service.not_ready": changed(not_ready="worker: starting"),
    "worker.missing": changed(workers=[]),
    "worker.stale": worker(heartbeat_age_seconds=60.0, working=False),
    "worker.failed": worker(state="failed", detail="no torch", working=False),
    "worker.wedged": worker(state="wedged", detail="not reaped", working=False),
    "worker.restarts": worker(health={"restarts": {"deaths_in_window": 6, "budget": 10}}),
    "worker.on_cpu": worker(on_gpu=False),
    "worker.wheels": changed(wheel_fault="nvidia-cublas-cu12 12.1 belongs to CUDA"),
    "faults.recent": changed(fault_age_seconds=60.0, last_fault="gpu_reset: ring gfx timeout"),
    "queue.nearly_full": changed(waiting_jobs=190),
    "queue.stuck": changed(waiting_jobs=1, workers=[]),
    "refusals.active": changed(refusals=1),
    "store.missing": changed(store="missing"),
    "store.unreadable": changed(store="unreadable"),
    "store.corrupt": changed(store="database disk image is malformed"),
    "store.artefacts": changed(artefacts_fault="artefacts belongs to store 1"),
    "cache.empty": changed(kernel_caches=0),
    **{f"alignment.{layer}": misaligned(layer) for layer in ("container", *LAYERS)},
}


def test_a_healthy_host_gives_no_finding(healthy: Facts) -> None:
    assert diagnose(healthy) == []
    assert exit_code([]) == 0


def test_every_kind_has_a_host() -> None:
    assert set(HOSTS) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_host_with_the_fault_is_told_so(name: str, healthy: Facts, tmp_path: Path) -> None:
    HOSTS[name](healthy, tmp_path)
    found = diagnose(healthy)
    named = [each for each in found if each.id == name]
    assert named, found
    assert named[0].evidence
    assert named[0].next_step
    assert exit_code(found) == (2 if "blocker" in {each.severity for each in found} else 1)


def test_a_processors_graphics_that_are_hidden_are_no_finding(
    healthy: Facts, tmp_path: Path
) -> None:
    on("ryzen_igpu_first", visible_devices="GPU-6677889900112233")(healthy, tmp_path)
    assert diagnose(healthy) == []


def test_the_page_has_the_table_of_the_program() -> None:
    page = (ROOT / "service/docs/doctor.md").read_text(encoding="utf-8")
    assert table() in page, "python -m rockiln.doctor prints the table for service/docs/doctor.md"


def test_measured_facts_have_the_names_that_the_rules_read(healthy: Facts, tmp_path: Path) -> None:
    facts = measure(Settings(data_dir=tmp_path, public_dir=tmp_path), prefix="rockiln-none")
    assert set(facts) == set(healthy)
    assert len(facts) >= 30
    diagnose(facts)


def test_the_json_form_is_stable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKILN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ROCKILN_PUBLIC_DIR", str(tmp_path))
    answer = CliRunner().invoke(app, ["doctor", "--json", "--prefix", "rockiln-none"])
    told = json.loads(answer.stdout)
    assert set(told) == {"schema", "verdict", "findings", "facts"}
    assert {"install.missing", "store.missing"} <= {each["id"] for each in told["findings"]}
    assert answer.exit_code == {"ok": 0, "warning": 1, "blocker": 2}[told["verdict"]]


def test_wrong_settings_are_a_finding_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKILN_API_BIND", "nowhere")
    answer = CliRunner().invoke(app, ["doctor", "--json", "--prefix", "rockiln-none"])
    assert answer.exit_code == 2
    assert "install.settings" in answer.stdout


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(width: int, healthy: Facts, tmp_path: Path) -> None:
    misaligned("driver")(healthy, tmp_path)
    console = Console(width=width, record=True, file=io.StringIO())
    findings = diagnose(healthy)
    show(healthy, findings, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "alignment.driver" in text
    assert document(healthy, findings)["verdict"] == "blocker"


def test_the_longest_mount_point_counts() -> None:
    mounts = "/dev/sda / ext4 rw 0 0\nnas:/x /var/lib nfs4 rw,noatime 0 0\n"
    assert mount_of(Path("/var/lib/rockiln"), mounts) == {
        "point": "/var/lib",
        "type": "nfs4",
        "options": ["rw", "noatime"],
    }

"""From measured facts to findings. Pure: the same facts give the same findings, in one order.

A fact that could not be measured is None and gives no finding, except where its absence is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rockiln.doctor.alignment import MISMATCH, WARNING, told
from rockiln.doctor.kinds import KINDS, Finding, finding

Facts = dict[str, Any]
GIB = 1 << 30
LITTLE_MEMORY_BYTES = 7 * GIB  # of 8 GiB the kernel shows a little less
SWAP_NEEDED_BELOW_BYTES = 15 * GIB
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"})
SKEW_SECONDS = 30.0
RECENT_SECONDS = 3600.0
GPU_PROBLEMS = {
    "driver_not_loaded": "gpu.driver_not_loaded",
    "dkms_not_loaded": "gpu.dkms_not_loaded",
    "kfd_missing": "gpu.kfd_missing",
    "render_node_missing": "gpu.render_node_missing",
    "node_permissions": "gpu.node_permissions",
    "node_hidden": "gpu.node_hidden",
    "wanted_gpu_missing": "gpu.wanted_missing",
}


def diagnose(facts: Facts) -> list[Finding]:
    """Blockers first, then in the order of the kinds; one finding for one id and evidence."""
    found = {(each.id, each.evidence): each for rule in RULES for each in rule(facts)}
    order = {name: place for place, name in enumerate(KINDS)}
    return sorted(
        found.values(), key=lambda each: (each.severity != "blocker", order[each.id], each.evidence)
    )


def exit_code(findings: list[Finding]) -> int:
    """0 all is well, 1 warnings, 2 blockers."""
    severities = {each.severity for each in findings}
    return 2 if "blocker" in severities else 1 if severities else 0


def host(facts: Facts) -> Iterator[Finding]:
    row = facts["row"] or {}
    systems = [f"{each['name']} {each['version']}" for each in row.get("host_os", [])]
    if not facts["in_container"] and systems and facts["os"] not in systems:
        yield finding("host.os", f"{facts['os']}; the release names {', '.join(systems)}")
    if facts["architecture"] != "x86_64":
        yield finding("host.architecture", facts["architecture"])
    if facts["gpu"]["wsl"]:
        yield finding("host.wsl", facts["kernel"])
    if facts["cgroup_version"] == 1:
        yield finding("host.cgroup", "cgroup v1")
    if abs(facts["clock_skew_seconds"] or 0.0) > SKEW_SECONDS:
        yield finding("host.clock", f"{facts['clock_skew_seconds']:.0f} s apart from the service")


def memory(facts: Facts) -> Iterator[Finding]:
    if facts["memory_bytes"] < LITTLE_MEMORY_BYTES:
        yield finding("host.memory", size(facts["memory_bytes"]))
    if facts["memory_available_bytes"] < GIB:
        yield finding("host.memory_available", size(facts["memory_available_bytes"]))
    if facts["memory_bytes"] < SWAP_NEEDED_BELOW_BYTES and not facts["swap_bytes"]:
        yield finding("host.swap", f"{size(facts['memory_bytes'])} of memory, no swap")
    if facts["shm_bytes"] is not None and facts["shm_bytes"] < GIB // 16:
        yield finding("host.shm", f"{size(facts['shm_bytes'])} in /dev/shm")
    if on_gpu(facts) and (facts["memlock_bytes"] or 0) > 0 and facts["memlock_bytes"] < GIB // 16:
        yield finding("host.memlock", f"limit {facts['memlock_bytes']} bytes")


def disk(facts: Facts) -> Iterator[Finding]:
    free, floor = facts["data_free_bytes"], facts["data_floor_bytes"]
    if free is not None and free < floor:
        yield finding("disk.data_full", f"{size(free)} free, the floor is {size(floor)}")
    elif free is not None and free < 4 * floor:
        yield finding("disk.data_low", f"{size(free)} free")
    if facts["engine_free_bytes"] is not None and facts["engine_free_bytes"] < 2 * GIB:
        yield finding("disk.engine_low", f"{size(facts['engine_free_bytes'])} free")
    if facts["data_free_inodes"] is not None and facts["data_free_inodes"] < 10_000:  # noqa: PLR2004
        yield finding("disk.inodes", f"{facts['data_free_inodes']} free inodes")
    mount = facts["data_mount"] or {}
    if mount.get("type") in NETWORK_FILE_SYSTEMS and facts["store_is_sqlite"]:
        yield finding("disk.network", f"{mount['point']} is {mount['type']}")
    if "ro" in mount.get("options", []):
        yield finding("disk.read_only", f"{mount['point']} is mounted read-only")


def gpu(facts: Facts) -> Iterator[Finding]:
    known = facts["gpu"]
    for problem in known["problems"]:
        yield finding(GPU_PROBLEMS[problem["id"]], problem["detail"])
    if on_gpu(facts) and not known["gpus"] and not known["problems"]:
        yield finding("gpu.none", f"driver {known['driver']['origin']}, no GPU node")
    if known["gpus"] and facts["backend"] == "cpu":
        yield finding("gpu.not_used", known["gpus"][0]["name"])
    if "amd_iommu=off" in known["kernel_command_line"].split():
        yield finding("gpu.iommu_off", "amd_iommu=off on the kernel's command line")


def cards(facts: Facts) -> Iterator[Finding]:
    known = facts["gpu"]
    if not on_gpu(facts) or not known["gpus"]:
        return
    kinds = {each["kind"] for each in known["gpus"]}
    if kinds == {"integrated", "discrete"} and not facts["visible_devices"]:
        names = ", ".join(each["name"] for each in known["gpus"])
        yield finding("gpu.integrated_visible", f"{names}; ROCR_VISIBLE_DEVICES is not set")
    if not facts["in_container"]:
        if known["groups"]["render_gid"] is None:
            yield finding("gpu.group_missing", "no group render in /etc/group")
        elif facts["uid"] != 0 and known["groups"]["render_gid"] not in facts["user_gids"]:
            yield finding("gpu.membership", f"uid {facts['uid']} is not in render")
    for each in known["gpus"]:
        if each["uuid"] == known["chosen"] and each["kind"] == "discrete" and (
            0 < each["vram_bytes"] < LITTLE_MEMORY_BYTES
        ):  # fmt: skip
            yield finding("gpu.memory", f"{each['name']}: {size(each['vram_bytes'])}")


def engine(facts: Facts) -> Iterator[Finding]:
    if facts["in_container"] or facts["host_file"] != "read":
        return
    if facts["engine_version"] is None:
        yield finding("engine.missing", "docker version answers nothing")
        return
    for name, state in facts["containers"].items():
        if state is None:
            yield finding("engine.container_missing", name)
            continue
        if state["status"] != "running":
            yield finding("engine.container_stopped", f"{name} is {state['status']}")
        if state["health"] == "unhealthy":
            yield finding("engine.container_unhealthy", name)
        if state["restarts"]:
            yield finding("engine.restarting", f"{name}: {state['restarts']} times")
        recorded = facts["recorded_images"].get(name)
        if recorded and recorded != state["image"]:
            yield finding("engine.image", f"{name} runs {state['image']}, recorded is {recorded}")


def install(facts: Facts) -> Iterator[Finding]:
    if facts["settings_fault"]:
        yield finding("install.settings", facts["settings_fault"])
    if facts["host_file"] == "missing":
        yield finding("install.missing", facts["host_file_path"])
    elif facts["host_file"] != "read":
        yield finding("install.unreadable", facts["host_file"])


def alignment(facts: Facts) -> Iterator[Finding]:
    for each in facts["alignment"] or []:
        if each["verdict"] in {MISMATCH, WARNING}:
            yield finding(f"alignment.{each['layer']}", told(each), next_step=each["fix"])


def service(facts: Facts) -> Iterator[Finding]:
    if facts["wheel_fault"]:
        yield finding("worker.wheels", facts["wheel_fault"])
    if facts["in_container"] or facts["host_file"] != "read":
        return
    if facts["service_fault"]:
        yield finding("service.unreachable", facts["service_fault"])
    elif facts["not_ready"]:
        yield finding("service.not_ready", facts["not_ready"])


def workers(facts: Facts) -> Iterator[Finding]:
    if facts["workers"] is None:
        return
    if not facts["workers"]:
        yield finding("worker.missing", "the store has no worker")
    for each in facts["workers"]:
        name = each["name"]
        if each["state"] == "wedged":
            yield finding("worker.wedged", f"{name}: {each['detail']}")
        elif each["state"] == "failed":
            yield finding("worker.failed", f"{name}: {each['detail']}")
        elif each["heartbeat_age_seconds"] > facts["stale_seconds"]:
            yield finding("worker.stale", f"{name}: {each['heartbeat_age_seconds']:.0f} s silent")
        restarts = (each["health"] or {}).get("restarts") or {}
        if 2 * restarts.get("deaths_in_window", 0) >= restarts.get("budget", 1_000):
            yield finding("worker.restarts", f"{name}: {restarts['deaths_in_window']} deaths")
        if on_gpu(facts) and each["on_gpu"] is False:
            yield finding("worker.on_cpu", name)


def work(facts: Facts) -> Iterator[Finding]:
    if facts["fault_age_seconds"] is not None and facts["fault_age_seconds"] < RECENT_SECONDS:
        yield finding("faults.recent", facts["last_fault"])
    waiting, limit = facts["waiting_jobs"] or 0, facts["waiting_jobs_limit"]
    if 10 * waiting >= 9 * limit:
        yield finding("queue.nearly_full", f"{waiting} of {limit} jobs wait")
    if waiting and not any(each["working"] for each in facts["workers"] or []):
        yield finding("queue.stuck", f"{waiting} jobs wait")
    if facts["refusals"]:
        yield finding("refusals.active", f"{facts['refusals']} kinds of request")
    if facts["store"] == "missing":
        yield finding("store.missing", facts["store_path"])
    elif facts["store"] == "unreadable":
        yield finding("store.unreadable", facts["store_path"])
    elif facts["store"] not in {"ok", None}:
        yield finding("store.corrupt", facts["store"])
    if facts["artefacts_fault"]:
        yield finding("store.artefacts", facts["artefacts_fault"])
    if on_gpu(facts) and facts["kernel_caches"] == 0:
        yield finding("cache.empty", "no kernel cache below the cache folder")


def on_gpu(facts: Facts) -> bool:
    """Whether the installed release is meant to compute on a GPU."""
    return bool(facts["backend"] == "rocm" and facts["compute_device"] != "cpu")


def size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *(install, host, memory, disk, gpu, cards, engine, alignment, service, workers, work),
)

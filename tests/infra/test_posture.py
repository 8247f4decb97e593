"""What the containers may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

PARTS = ("proxy", "api", "worker")
Inspect = Callable[[str], dict[str, Any]]
Inside = Callable[[str, str], Any]


@pytest.mark.parametrize("part", PARTS)
def test_no_capability_no_new_privileges_and_seccomp_in_the_kernels_own_words(
    inside: Inside, part: str
) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in inside(part, "cat /proc/1/status").stdout.splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4


@pytest.mark.parametrize("part", PARTS)
def test_root_is_read_only(inside: Inside, part: str) -> None:
    answer = inside(part, "touch /opt/x /usr/x /etc/x")
    assert answer.rc != 0
    assert answer.stderr.count("Read-only file system") == 3


@pytest.mark.parametrize("part", PARTS)
def test_public_settings_and_models_are_read_only(inside: Inside, part: str) -> None:
    folders = {"proxy": "/etc/rockiln/proxy"}.get(
        part, "/etc/rockiln/public /var/lib/rockiln/models"
    )
    answer = inside(part, f"for folder in {folders}; do touch $folder/x && echo written; done")
    assert "written" not in answer.stdout


def test_worker_has_no_network_at_all(inside: Inside, inspect: Inspect) -> None:
    assert inspect("worker")["HostConfig"]["NetworkMode"] == "none"
    assert inside("worker", "ls /sys/class/net").stdout.split() == ["lo"]
    assert inside("worker", "exec 3<>/dev/tcp/1.1.1.1/80").rc != 0


def test_engine_drops_what_the_api_sends_out(host: Any) -> None:
    network = json.loads(host.check_output("docker network inspect rockiln-internal"))[0]
    assert network["Internal"] is True
    bridge = f"br-{network['Id'][:12]}"
    rules = host.check_output("iptables -S").splitlines()
    assert [rule for rule in rules if f"-i {bridge}" in rule and rule.endswith("-j DROP")], rules


def test_only_the_proxy_publishes_a_port_and_only_on_loopback(inspect: Inspect) -> None:
    published = {
        part: [
            binding
            for bindings in (inspect(part)["HostConfig"]["PortBindings"] or {}).values()
            for binding in bindings
        ]
        for part in PARTS
    }
    assert published == {
        "proxy": [{"HostIp": "127.0.0.1", "HostPort": "8000"}],
        "api": [],
        "worker": [],
    }


def test_published_port_listens_on_loopback_alone(host: Any) -> None:
    listening = [line.split()[3] for line in host.check_output("ss -H -ltn").splitlines()]
    assert [address for address in listening if address.endswith(":8000")] == ["127.0.0.1:8000"]


@pytest.mark.parametrize("part", PARTS)
def test_engine_socket_is_mounted_nowhere(inspect: Inspect, part: str) -> None:
    sources = [mount["Source"] for mount in inspect(part)["Mounts"]]
    assert [source for source in sources if "docker" in source or source.startswith("/run")] == []


@pytest.mark.parametrize("part", PARTS)
def test_limits_log_rotation_and_restart_policy(inspect: Inspect, part: str) -> None:
    settings = inspect(part)["HostConfig"]
    assert settings["PidsLimit"] == 512
    assert settings["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-file": "5", "max-size": "10m"},
    }
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"
    assert settings["Privileged"] is False


@pytest.mark.parametrize("part", PARTS)
def test_healthy(inspect: Inspect, part: str) -> None:
    health = inspect(part)["State"]["Health"]
    assert health["Status"] in {"healthy", "starting"}, health["Log"][-1:]

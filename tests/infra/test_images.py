"""What is in the images: the right torch, nothing of CUDA, nothing of the builder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

PARTS = ("proxy", "api", "worker")
Inspect = Callable[[str], dict[str, Any]]
Inside = Callable[[str, str], Any]
LIST_DISTRIBUTIONS = (
    "/opt/venv/bin/python -c 'import importlib.metadata as m, json;"
    ' print(json.dumps({d.metadata["Name"].lower(): d.version for d in m.distributions()}))\''
)


def distributions(inside: Inside, part: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(inside(part, LIST_DISTRIBUTIONS).stdout)
    return found


def test_worker_has_the_torch_of_the_catalogue(
    inside: Inside, catalogue_row: dict[str, Any]
) -> None:
    assert distributions(inside, "worker")["torch"] == catalogue_row["torch"]["version"]


@pytest.mark.parametrize("part", ["api", "worker"])
def test_nothing_of_cuda(inside: Inside, part: str) -> None:
    assert [
        name for name in distributions(inside, part) if name.startswith(("nvidia-", "cuda-"))
    ] == []


def test_api_has_no_torch(inside: Inside) -> None:
    assert "torch" not in distributions(inside, "api")


@pytest.mark.parametrize("part", ["api", "worker"])
def test_python_is_the_one_of_the_catalogue(
    inside: Inside, part: str, catalogue_row: dict[str, Any]
) -> None:
    assert inside(part, "/opt/venv/bin/python --version").stdout.startswith(
        f"Python {catalogue_row['python']}."
    )


def test_base_is_the_suite_of_the_catalogue(inside: Inside, catalogue_row: dict[str, Any]) -> None:
    assert (
        f"VERSION_CODENAME={catalogue_row['rootfs']['suite']}"
        in inside("worker", "cat /etc/os-release").stdout
    )


def test_running_container_refuses_another_torch(inside: Inside) -> None:
    answer = inside(
        "worker",
        "/opt/venv/bin/pip install --no-index --force-reinstall --no-deps /tmp torch==9.9.9",
    )
    assert answer.rc != 0
    assert distributions(inside, "worker")["torch"] != "9.9.9"


def offer(name: str, version: str) -> str:
    """A shell line that puts a wheel of this name into /tmp."""
    stem = f"{name.replace('-', '_')}-{version}"
    folder = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    wheel = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    return (
        "python3 - <<'END'\n"
        "import zipfile\n"
        f"with zipfile.ZipFile('/tmp/{stem}-py3-none-any.whl', 'w') as w:\n"
        f"    w.writestr('{folder}/METADATA', '{metadata}')\n"
        f"    w.writestr('{folder}/WHEEL', '{wheel}')\n"
        f"    w.writestr('{folder}/RECORD', '')\n"
        "END\n"
    )


def in_writable_worker(host: Any, inspect: Inspect, line: str) -> str:
    """What a shell line says in the worker's image as root on a writable root file system."""
    answer = host.run(
        "docker run --rm --network none --user 0 --entrypoint bash %s -c %s",
        inspect("worker")["Image"],
        line,
    )
    return f"{answer.stdout}{answer.stderr}"


def test_pip_in_a_writable_container_meets_the_constraint(host: Any, inspect: Inspect) -> None:
    """A newer torch on offer and nothing read-only in its way: the shipped one stays."""
    said = in_writable_worker(
        host,
        inspect,
        offer("torch", "9.9.9")
        + "pip install --no-index --find-links /tmp --upgrade torch; "
        + "pip install --no-index --find-links /tmp torch==9.9.9; echo exact $?; "
        + "pip list --format freeze | sed -n 's/^torch==/left /p'",
    )
    assert "exact 1" in said, said
    assert "conflict" in said.lower()
    assert "left 2" in said


def test_wheel_guard_of_the_build_refuses_a_cuda_distribution(host: Any, inspect: Inspect) -> None:
    said = in_writable_worker(
        host,
        inspect,
        offer("nvidia-cublas-cu12", "12.1")
        + "pip install --no-index --find-links /tmp nvidia-cublas-cu12; "
        + "python -m rockiln.platforms.wheel_guard --backend cpu; echo guard $?; "
        + "python -m rockiln.platforms.wheel_guard --backend rocm; echo guard $?",
    )
    assert said.count("guard 1") == 2, said
    assert "nvidia-cublas-cu12" in said


@pytest.mark.parametrize("part", PARTS)
def test_history_holds_nothing_of_the_builders_network(
    host: Any, inspect: Inspect, part: str
) -> None:
    history = host.check_output(
        "docker history --no-trunc --format {{.CreatedBy}} %s", inspect(part)["Image"]
    )
    assert "index-url" not in history
    assert "PIP_CERT=" not in history


@pytest.mark.parametrize("part", PARTS)
def test_secrets_of_the_build_left_no_file(inside: Inside, part: str) -> None:
    assert inside(part, "find /run/secrets /wheels -type f -size +0 2>/dev/null").stdout == ""
    assert inside(part, "cat /etc/pip.conf").rc != 0


@pytest.mark.parametrize("part", PARTS)
def test_no_setuid_program(inside: Inside, part: str) -> None:
    assert inside(part, "find / -xdev -type f -perm /6000 2>/dev/null").stdout == ""


@pytest.mark.parametrize("part", PARTS)
def test_image_is_the_one_of_host_json(host: Any, inspect: Inspect, part: str) -> None:
    facts = json.loads(host.file("/etc/rockiln/public/host.json").content_string)
    assert facts["images"][part]["digest"] == inspect(part)["Image"]
    assert facts["images"][part]["tag"] == inspect(part)["Config"]["Image"]

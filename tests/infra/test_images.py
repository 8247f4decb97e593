"""What is in the images: the right torch, nothing of CUDA, nothing of the machine that built them."""

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


def test_pip_in_a_writable_container_meets_the_constraint(host: Any, inspect: Inspect) -> None:
    """Root, a writable root file system and a newer torch on offer: the shipped one stays."""
    offer = (
        "mkdir -p /tmp/offer/torch && cd /tmp/offer && echo > torch/__init__.py && "
        'printf \'[project]\\nname = "torch"\\nversion = "9.9.9"\\n\' > pyproject.toml && '
        "python3 - <<'END'\n"
        "import zipfile\n"
        "with zipfile.ZipFile('/tmp/torch-9.9.9-py3-none-any.whl', 'w') as wheel:\n"
        "    wheel.writestr('torch/__init__.py', '')\n"
        "    wheel.writestr('torch-9.9.9.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: torch\\nVersion: 9.9.9\\n')\n"
        "    wheel.writestr('torch-9.9.9.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "    wheel.writestr('torch-9.9.9.dist-info/RECORD', '')\n"
        "END\n"
        "pip install --no-index --find-links /tmp --upgrade torch; echo upgrade $?; "
        "pip install --no-index --find-links /tmp torch==9.9.9; echo exact $?; "
        "pip list --format freeze | grep ^torch="
    )
    answer = host.run(
        "docker run --rm --network none --user 0 --entrypoint bash %s -c %s",
        inspect("worker")["Image"],
        offer,
    )
    assert "exact 1" in answer.stdout, answer.stdout + answer.stderr
    assert "9.9.9" not in answer.stdout.splitlines()[-1]
    assert "conflict" in (answer.stdout + answer.stderr).lower()


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

"""The wheel guard on environments made by hand. No torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from rockiln.platforms.backend import Backend
from rockiln.platforms.wheel_guard import (
    TorchBuild,
    WheelMismatchError,
    check_wheels,
    main,
    read_torch_build,
)


def version_file(
    folder: Path, version: str, *, cuda: str | None = None, hip: str | None = None
) -> Path:
    """As torch's own build writes it."""
    path = folder / "version.py"
    path.write_text(
        "from typing import Optional\n\n"
        "__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
        f"__version__ = {version!r}\n"
        "debug = False\n"
        f"cuda: Optional[str] = {cuda!r}\n"
        "git_version = '0'\n"
        f"hip: Optional[str] = {hip!r}\n"
    )
    return path


def installed(folder: Path, *packages: tuple[str, str]) -> list[Distribution]:
    found: list[Distribution] = []
    for name, version in packages:
        record = folder / f"{name}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        found.append(PathDistribution(record))
    return found


SOUND: list[tuple[Backend, str, str | None, str | None]] = [
    ("cpu", "2.13.0+cpu", None, None),
    ("rocm", "2.9.1+rocm7.2.4", None, "7.2.53150"),
    ("rocm", "2.9.1+rocm7.2.4.lw.git7e1940d4", None, "7.2.53150"),
    ("rocm", "2.9.0a0+git0b13637", None, "7.2.53150"),
    ("cuda", "2.13.0+cu130", "13.0", None),
    ("cuda", "2.13.0", "13.0", None),
]


@pytest.mark.parametrize(("backend", "version", "cuda", "hip"), SOUND)
def test_torch_of_the_backend_passes(
    tmp_path: Path, backend: Backend, version: str, cuda: str | None, hip: str | None
) -> None:
    check_wheels(
        backend,
        installed=installed(tmp_path, ("torch", version), ("numpy", "2.4.6")),
        version_file=version_file(tmp_path, version, cuda=cuda, hip=hip),
    )


@pytest.mark.parametrize(("built_for", "version", "cuda", "hip"), SOUND)
@pytest.mark.parametrize("backend", ["cpu", "rocm", "cuda"])
def test_torch_of_another_backend_is_refused(  # noqa: PLR0917 (pytest hands them by name)
    tmp_path: Path,
    backend: Backend,
    built_for: Backend,
    version: str,
    cuda: str | None,
    hip: str | None,
) -> None:
    if backend == built_for:
        return
    with pytest.raises(WheelMismatchError, match=f"is a {built_for} build"):
        check_wheels(
            backend,
            installed=installed(tmp_path, ("torch", version)),
            version_file=version_file(tmp_path, version, cuda=cuda, hip=hip),
        )


@pytest.mark.parametrize(
    "name", ["nvidia-cudnn-cu13", "nvidia_nccl_cu13", "cuda-bindings", "CUDA.Core"]
)
@pytest.mark.parametrize("backend", ["cpu", "rocm"])
def test_package_of_cuda_is_refused(tmp_path: Path, backend: Backend, name: str) -> None:
    version, hip = ("2.9.1+rocm7.2.4", "7.2") if backend == "rocm" else ("2.9.1+cpu", None)
    with pytest.raises(WheelMismatchError, match=r"9\.1\.0 is installed and belongs to CUDA"):
        check_wheels(
            backend,
            installed=installed(tmp_path, ("torch", version), (name, "9.1.0")),
            version_file=version_file(tmp_path, version, hip=hip),
        )


def test_packages_of_cuda_belong_to_the_cuda_backend(tmp_path: Path) -> None:
    check_wheels(
        "cuda",
        installed=installed(tmp_path, ("torch", "2.13.0"), ("nvidia-cudnn-cu13", "9.1.0")),
        version_file=version_file(tmp_path, "2.13.0", cuda="13.0"),
    )


def test_torch_replaced_under_its_label_is_refused(tmp_path: Path) -> None:
    """The label of the record and the files say rocm; what is built in does not."""
    with pytest.raises(WheelMismatchError, match="is a cuda build"):
        check_wheels(
            "rocm",
            installed=installed(tmp_path, ("torch", "2.9.1+rocm7.2.4")),
            version_file=version_file(tmp_path, "2.9.1+rocm7.2.4", cuda="13.0"),
        )


def test_files_and_record_have_to_agree(tmp_path: Path) -> None:
    with pytest.raises(WheelMismatchError, match=r"its package record says 2\.9\.0"):
        check_wheels(
            "cpu",
            installed=installed(tmp_path, ("torch", "2.9.0+cpu")),
            version_file=version_file(tmp_path, "2.9.1+cpu"),
        )


def test_wheels_of_the_python_index_say_cuda_in_their_files_alone(tmp_path: Path) -> None:
    """torch 2.11.0 from the Python index: the record says 2.11.0, the files 2.11.0+cu130."""
    version = version_file(tmp_path, "2.11.0+cu130", cuda="13.0")
    found = installed(tmp_path, ("torch", "2.11.0"))
    check_wheels("cuda", installed=found, version_file=version)
    with pytest.raises(WheelMismatchError, match=r"its package record says 2\.11\.0"):
        check_wheels("cpu", installed=found, version_file=version)


def test_every_finding_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WheelMismatchError) as raised:
        check_wheels(
            "cpu",
            installed=installed(tmp_path, ("torch", "2.9.1+cu130"), ("nvidia-nccl-cu13", "2")),
            version_file=version_file(tmp_path, "2.9.1+cu130", cuda="13.0"),
        )
    for words in ("nvidia-nccl-cu13 2", "is a cuda build", "labelled as a cuda build", "its lock"):
        assert words in raised.value.detail


def test_two_records_of_torch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WheelMismatchError, match="more than once"):
        check_wheels(
            "cpu",
            installed=installed(tmp_path, ("torch", "2.9.1+cpu"), ("torch", "2.9.0+cpu")),
            version_file=version_file(tmp_path, "2.9.1+cpu"),
        )


def test_missing_torch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WheelMismatchError, match="torch is not installed"):
        check_wheels("cpu", installed=installed(tmp_path, ("numpy", "2")))


def test_version_file_is_read_without_running_it(tmp_path: Path) -> None:
    path = version_file(tmp_path, "2.9.1+rocm7.2.4", hip="7.2.53150")
    path.write_text(path.read_text() + "raise SystemExit('was run')\n")
    assert read_torch_build(path) == TorchBuild("2.9.1+rocm7.2.4", None, "7.2.53150")


def test_this_environment_passes_as_cpu_and_as_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--backend", "cpu"]) == 0
    assert main(["--backend", "rocm"]) == 1
    assert "is a cpu build" in capsys.readouterr().err


def test_command_has_documented_exit_statuses() -> None:
    def call(*arguments: str) -> int:
        source = Path(__file__).resolve().parents[3] / "service" / "src"
        return subprocess.run(
            [sys.executable, "-m", "rockiln.platforms.wheel_guard", *arguments],
            env={**os.environ, "PYTHONPATH": str(source)},
            capture_output=True,
            check=False,
        ).returncode

    assert [call("--backend", "cpu"), call("--backend", "rocm"), call()] == [0, 1, 2]

"""Which device is taken, and what is known of it. Where a GPU is needed its torch is simulated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rockiln.platforms.backend import Backend, ComputeDevice
from rockiln.platforms.interface import DeviceUnavailableError
from rockiln.platforms.loaded_libraries import duplicate_libraries
from rockiln.platforms.selection import select
from rockiln.platforms.threads import usable_threads

GIB = 1 << 30


@pytest.fixture
def simulated_rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as it answers where it is built for ROCm and sees a card."""
    properties = SimpleNamespace(
        name="AMD Radeon", total_memory=16 * GIB, gcnArchName="gfx1100:sramecc-:xnack-"
    )
    monkeypatch.setattr(torch.version, "hip", "7.2.53150")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr("rockiln.platforms.gpu.widest_fused_head", lambda: 128)


@pytest.mark.parametrize(
    ("backend", "wanted"), [("cpu", "auto"), ("cpu", "cpu"), ("rocm", "cpu"), ("rocm", "auto")]
)
def test_cpu_is_taken_where_it_is_wanted_or_all_there_is(
    backend: Backend, wanted: ComputeDevice
) -> None:
    device = select(backend, wanted, threads=3)
    assert (device.facts.kind, device.facts.threads) == ("cpu", 3)
    assert device.torch_device == torch.device("cpu")


@pytest.mark.parametrize(
    ("backend", "words"), [("cpu", "backend is cpu"), ("rocm", "/dev/kfd"), ("cuda", "no cuda GPU")]
)
def test_gpu_that_is_not_there_is_an_error(backend: Backend, words: str) -> None:
    with pytest.raises(DeviceUnavailableError, match=words):
        select(backend, "gpu", threads=1)


@pytest.mark.parametrize("wanted", ["auto", "gpu"])
@pytest.mark.usefixtures("simulated_rocm")
def test_rocm_gpu_is_torchs_cuda_device(wanted: ComputeDevice) -> None:
    device = select("rocm", wanted, threads=2)
    assert device.torch_device == torch.device("cuda", 0)
    assert (device.facts.kind, device.facts.total_bytes) == ("gpu", 16 * GIB)
    assert device.capability == "gfx1100"
    assert device.versions() == {"hip": "7.2.53150"}


@pytest.mark.usefixtures("simulated_rocm")
def test_rocm_gpu_is_left_alone_when_the_cpu_is_wanted() -> None:
    assert select("rocm", "cpu", threads=1).facts.kind == "cpu"


@pytest.mark.usefixtures("simulated_rocm")
def test_second_copy_of_the_hip_runtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = {"libamdhip64": ["/opt/rocm/lib/libamdhip64.so.7", "/venv/torch/libamdhip64.so"]}
    monkeypatch.setattr("rockiln.platforms.rocm.duplicate_libraries", lambda _: copies)
    with pytest.raises(DeviceUnavailableError, match=r"/opt/rocm/lib/libamdhip64\.so\.7"):
        select("rocm", "gpu", threads=1)


@pytest.mark.usefixtures("simulated_rocm")
def test_card_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("HIP error: out of resources")

    monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
    with pytest.raises(DeviceUnavailableError, match="HIP error: out of resources"):
        select("rocm", "gpu", threads=1)


def test_cpu_tells_its_memory_and_itself() -> None:
    device = select("cpu", "auto", threads=1)
    memory = device.memory()
    assert 0 < memory.free_bytes <= memory.total_bytes == device.facts.total_bytes
    assert 0 < memory.peak_bytes < memory.total_bytes
    assert device.facts.name
    assert device.capability
    device.synchronise()
    device.release_cache()


def test_cpu_tells_the_peak_of_each_stage() -> None:
    device = select("cpu", "auto", threads=1)
    device.begin_stage()
    taken = torch.ones(64 << 20, dtype=torch.uint8)
    high = device.stage_peak_bytes()
    del taken
    device.begin_stage()
    assert device.stage_peak_bytes() < high - (32 << 20)


MAPS = """\
7f00-7f01 r-xp 00000000 08:01 11 /opt/rocm/lib/libamdhip64.so.7.2
7f01-7f02 r--p 00000000 08:01 11 /opt/rocm/lib/libamdhip64.so.7.2
7f02-7f03 r-xp 00000000 08:01 12 /venv/a folder/torch/lib/libamdhip64.so
7f03-7f04 r-xp 00000000 08:01 13 /venv/torch/lib/libMIOpen.so.1 (deleted)
7f04-7f05 r-xp 00000000 08:01 14 /venv/torch/lib/libamdhip64_other.so
7f05-7f06 rw-p 00000000 00:00 0
7f06-7f07 rw-p 00000000 00:00 0 [heap]
"""


def test_libraries_mapped_from_two_files_are_found(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(MAPS)
    assert duplicate_libraries(["libamdhip64", "libMIOpen", "libhsa-runtime64"], maps) == {
        "libamdhip64": [
            "/opt/rocm/lib/libamdhip64.so.7.2",
            "/venv/a folder/torch/lib/libamdhip64.so",
        ]
    }


def test_this_process_has_one_copy_of_each_library() -> None:
    assert duplicate_libraries(["libc", "libtorch_cpu"]) == {}


@pytest.mark.parametrize(
    ("v2", "v1", "threads"),
    [
        (None, None, 8),
        ("max 100000", None, 8),
        ("200000 100000", None, 2),
        ("250000 100000", None, 3),
        ("50000 100000", None, 1),
        ("9900000 100000", None, 8),
        (None, ("-1", "100000"), 8),
        (None, ("150000", "100000"), 2),
    ],
)
def test_threads_follow_the_containers_quota(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    v2: str | None,
    v1: tuple[str, str] | None,
    threads: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    paths = [tmp_path / name for name in ("cpu.max", "quota", "period")]
    if v2 is not None:
        paths[0].write_text(f"{v2}\n")
    if v1 is not None:
        paths[1].write_text(f"{v1[0]}\n")
        paths[2].write_text(f"{v1[1]}\n")
    assert usable_threads(*paths) == threads

"""What a host is, read from trees."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._host_probe import (
    address_is_taken,
    first_process,
    free_bytes,
    gpu_vendors,
)


def pci(sys: Path, name: str, pci_class: str, vendor: str) -> None:
    device = sys / "bus/pci/devices" / name
    device.mkdir(parents=True)
    (device / "class").write_text(f"{pci_class}\n", encoding="utf-8")
    (device / "vendor").write_text(f"{vendor}\n", encoding="utf-8")


def test_gpus_by_class_and_vendor(tmp_path: Path) -> None:
    pci(tmp_path, "0000:03:00.0", "0x030000", "0x1002")
    pci(tmp_path, "0000:04:00.0", "0x038000", "0x1002")
    pci(tmp_path, "0000:05:00.0", "0x030200", "0x10de")
    pci(tmp_path, "0000:06:00.0", "0x120000", "0x1002")
    pci(tmp_path, "0000:07:00.0", "0x040300", "0x1002")  # sound of a graphics card
    assert gpu_vendors(tmp_path) == ["amd", "nvidia"]


def test_no_pci_bus_means_no_gpu(tmp_path: Path) -> None:
    assert gpu_vendors(tmp_path) == []


def test_an_address_is_taken_while_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert address_is_taken(address)
    assert not address_is_taken(address)


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        address_is_taken("127.0.0.1:")


def test_free_space_of_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(str(tmp_path / "a/b/c")) > 0


def test_first_process(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/comm").write_text("systemd\n", encoding="utf-8")
    assert first_process(tmp_path) == "systemd"

"""PRIVATE to the collection. What a host is: space, ports, first process, GPUs. Reads only.

The file trees are parameters, so a test hands in a fake ``/sys`` and ``/proc``.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

PCI_VENDORS = {"0x1002": "amd", "0x10de": "nvidia", "0x8086": "intel"}
PCI_DISPLAY_CLASSES = ("0x03", "0x12")  # display controllers, processing accelerators


def free_bytes(path: str) -> int:
    """Free space where the path is, or will be."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def address_is_taken(address: str) -> bool:
    """Whether somebody listens there, or on all addresses at that port."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def first_process(proc: Path = Path("/proc")) -> str:
    """Name of PID 1: ``systemd`` or whatever a container runs."""
    return (proc / "1" / "comm").read_text(encoding="utf-8").strip()


def gpu_vendors(sys: Path = Path("/sys")) -> list[str]:
    """Vendors of the display controllers on the PCI bus, each once, sorted."""
    found = set()
    devices = sys / "bus" / "pci" / "devices"
    for device in sorted(devices.iterdir()) if devices.is_dir() else []:
        pci_class, vendor = read_word(device / "class"), read_word(device / "vendor")
        if pci_class.startswith(PCI_DISPLAY_CLASSES) and vendor in PCI_VENDORS:
            found.add(PCI_VENDORS[vendor])
    return sorted(found)


def read_word(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if os.access(path, os.R_OK) else ""

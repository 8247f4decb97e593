"""Hosts of tests/fixtures/hosts as file trees: ``sys``, ``dev``, ``proc``, ``etc``, ``var/lib``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HOSTS = Path(__file__).resolve().parents[1] / "fixtures" / "hosts"


def host_names() -> list[str]:
    return sorted(path.stem for path in HOSTS.glob("*.yml"))


def load_host(name: str) -> dict[str, Any]:
    """One recorded or synthetic host; ``provenance`` says which, and where each field is from."""
    host: dict[str, Any] = yaml.safe_load((HOSTS / f"{name}.yml").read_text(encoding="utf-8"))
    return host


def plant(root: Path, host: dict[str, Any]) -> Path:
    """Writes the host's files below ``root`` and returns it."""
    write(root / "proc/sys/kernel/osrelease", f"{host['kernel']}\n")
    write(root / "proc/cmdline", f"{host['command_line']}\n")
    groups = "".join(f"{name}:x:{gid}:\n" for name, gid in host.get("groups", {}).items())
    write(root / "etc/group", f"root:x:0:\n{groups}")
    for index, node in enumerate(host["nodes"]):
        plant_node(root / f"sys/class/kfd/kfd/topology/nodes/{index}", node)
    plant_render_nodes(root, host)
    for address, values in host["pci"].items():
        for name, value in values.items():
            write(root / f"sys/bus/pci/devices/{address}/{name}", f"{value}\n")
    plant_driver(root, host)
    for name, mode in host["device_nodes"].items():
        write(root / "dev" / name, "")
        (root / "dev" / name).chmod(int(mode, 8))
    return root


def plant_render_nodes(root: Path, host: dict[str, Any]) -> None:
    for minor, sizes in host["render"].items():
        device = root / f"sys/class/drm/renderD{minor}/device"
        for kind in ("vram", "gtt"):
            if f"{kind}_bytes" in sizes:
                write(device / f"mem_info_{kind}_total", f"{sizes[f'{kind}_bytes']}\n")


def plant_driver(root: Path, host: dict[str, Any]) -> None:
    if host["driver"]["loaded"]:
        (root / "sys/module/amdgpu").mkdir(parents=True)
        if "version" in host["driver"]:
            write(root / "sys/module/amdgpu/version", f"{host['driver']['version']}\n")
    for version in host.get("dkms", []):
        (root / "var/lib/dkms/amdgpu" / version).mkdir(parents=True)


def plant_node(folder: Path, node: dict[str, Any]) -> None:
    if node.get("hidden"):
        # root reads everything in a test: a folder in the file's place cannot be read either.
        (folder / "properties").mkdir(parents=True)
        return
    lines = (f"{name} {value}\n" for name, value in node["properties"].items())
    write(folder / "properties", "".join(lines))
    if "bank_bytes" in node:
        write(
            folder / "mem_banks/0/properties",
            f"heap_type 1\nsize_in_bytes {node['bank_bytes']}\nflags 0\n",
        )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

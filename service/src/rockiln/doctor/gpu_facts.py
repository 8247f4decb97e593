"""GPUs, driver and groups of a Linux host, read from its file trees. No ROCm is needed.

Standard library only, Python 3.10: the Ansible collection links this file. The kernel's own view is
read because tools of user space obey ``HSA_OVERRIDE_GFX_VERSION`` and sysfs does not.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AMD = 0x1002
NODE_BITS = 0o060  # read and write for the group

# Targets of processors with graphics (ROCm/rocm-docs gpu-specs.rst, reference rocm-facts.yaml).
INTEGRATED = frozenset(
    {
        *("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036"),
        *("gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"),
    }
)
# PCI device → (target, name): names to show, and targets for kernels that do not tell them.
KNOWN_DEVICES = {
    0x6860: ("gfx900", "Radeon Instinct MI25"),
    0x73BF: ("gfx1030", "Radeon RX 6800/6800 XT/6900 XT"),
    0x73AF: ("gfx1030", "Radeon RX 6900 XT"),
    0x73DF: ("gfx1031", "Radeon RX 6700/6700 XT/6750 XT"),
    0x73FF: ("gfx1032", "Radeon RX 6600/6600 XT"),
    0x744C: ("gfx1100", "Radeon RX 7900 XT/7900 XTX"),
    0x747E: ("gfx1101", "Radeon RX 7700 XT/7800 XT"),
    0x7480: ("gfx1102", "Radeon RX 7600/7600 XT"),
    0x7590: ("gfx1200", "Radeon RX 9060 XT"),
    0x7550: ("gfx1201", "Radeon RX 9070/9070 XT"),
    0x740F: ("gfx90a", "Instinct MI210"),
    0x74A1: ("gfx942", "Instinct MI300X"),
    0x1586: ("gfx1151", "Radeon 8050S/8060S (Strix Halo)"),
    0x164E: ("gfx1036", "Radeon Graphics (Raphael)"),
    0x13C0: ("gfx1036", "Radeon Graphics (Granite Ridge)"),
}


@dataclass(frozen=True)
class Roots:
    """Where the trees are; tests hand in fake ones."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    etc: Path = Path("/etc")
    var_lib: Path = Path("/var/lib")

    @classmethod
    def below(cls, root: Path) -> Roots:
        return cls(root / "sys", root / "dev", root / "proc", root / "etc", root / "var/lib")


def gpu_facts(roots: Roots, wanted: str = "") -> dict[str, Any]:
    """What the collection calls ``ansible_facts.rockiln_gpu``.

    Args:
        wanted: UUID of the GPU to use; empty for the best one: discrete before integrated, then
            more memory, then the lower PCI address.

    Returns:
        ``kfd_present``, ``driver``, ``gpus``, ``chosen`` (a UUID or None), ``groups``, ``wsl``,
        ``kernel_command_line``, ``other_vendors`` and ``problems`` (each ``id`` and ``detail``).
    """
    problems: list[dict[str, str]] = []
    driver = read_driver(roots, problems)
    gpus = read_gpus(roots, problems)
    pci = read_pci(roots)
    wsl = is_wsl(roots)
    kfd_present = (roots.dev / "kfd").exists()
    amd_on_bus = [address for address, (vendor, _) in pci.items() if vendor == AMD]
    if amd_on_bus and not driver["loaded"] and not wsl:
        add(problems, "driver_not_loaded", f"AMD GPU at {', '.join(amd_on_bus)}, no amdgpu loaded")
    if gpus and not kfd_present:
        add(problems, "kfd_missing", "the topology has a GPU and there is no /dev/kfd")
    check_nodes(roots, gpus, problems)
    chosen = choose(gpus, wanted)
    if wanted and chosen is None:
        offered = ", ".join(gpu["uuid"] for gpu in gpus) or "none"
        add(problems, "wanted_gpu_missing", f"there is no GPU {wanted}; this host has {offered}")
    return {
        "kfd_present": kfd_present,
        "driver": driver,
        "gpus": gpus,
        "chosen": chosen,
        "groups": read_groups(roots),
        "wsl": wsl,
        "kernel_command_line": read_text(roots.proc / "cmdline"),
        "other_vendors": sorted({f"{vendor:#06x}" for vendor, _ in pci.values() if vendor != AMD}),
        "problems": problems,
    }


def choose(gpus: list[dict[str, Any]], wanted: str = "") -> str | None:
    """The UUID of the GPU to use."""
    if wanted:
        return wanted if wanted in [gpu["uuid"] for gpu in gpus] else None
    if not gpus:
        return None
    best = min(
        gpus,
        key=lambda gpu: (gpu["kind"] == "integrated", -gpu["vram_bytes"], gpu["pci_address"]),
    )
    return str(best["uuid"])


def override_for(row: dict[str, Any], gfx: str) -> str | None:
    """``HSA_OVERRIDE_GFX_VERSION`` for a target that the row's image lacks and names a way for."""
    if not gfx or gfx in row.get("gfx", []):
        return None
    value = row.get("hsa_override", {}).get(gfx)
    return None if value is None else str(value)


def gfx_of(target_version: int) -> str:
    """110501 → gfx1151: minor and stepping are single hexadecimal digits."""
    major, minor, step = (
        target_version // 10000 % 100,
        target_version // 100 % 100,
        target_version % 100,
    )
    return f"gfx{major}{minor:x}{step:x}"


def read_gpus(roots: Roots, problems: list[dict[str, str]]) -> list[dict[str, Any]]:
    """GPU nodes of the KFD topology, in node order. Nodes hidden from us are skipped and told."""
    nodes = roots.sys / "class/kfd/kfd/topology/nodes"
    found: list[dict[str, Any]] = []
    for node in sorted(nodes.iterdir(), key=node_number) if nodes.is_dir() else []:
        try:
            values = properties((node / "properties").read_text(encoding="utf-8"))
        except OSError as error:  # a cgroup or a container hides the node
            add(problems, "node_hidden", f"KFD node {node.name}: {error.strerror}")
            continue
        if not values.get("simd_count") or values.get("vendor_id", AMD) != AMD:
            continue
        found.append(one_gpu(roots, node, values, len(found)))
    return found


def one_gpu(roots: Roots, node: Path, values: dict[str, int], index: int) -> dict[str, Any]:
    device = values.get("device_id", 0)
    known_gfx, known_name = KNOWN_DEVICES.get(device, ("", ""))
    target = values.get("gfx_target_version", 0)
    gfx = gfx_of(target) if target else known_gfx
    location, domain = values.get("location_id", 0), values.get("domain", 0)
    address = f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
    minor = values.get("drm_render_minor", 0)
    drm = roots.sys / f"class/drm/renderD{minor}/device"
    unique = values.get("unique_id", 0)
    integrated = gfx in INTEGRATED or values.get("cpu_cores_count", 0) > 0
    name = read_text(drm / "product_name") or known_name or f"AMD {gfx or f'{device:#06x}'}"
    return {
        "index": index,
        # A card that tells no serial is known by its place on the bus.
        "uuid": f"GPU-{unique:016x}" if unique else f"PCI-{address}",
        "gfx": gfx,
        "name": name,
        "vram_bytes": number(drm / "mem_info_vram_total") or bank_bytes(node, values),
        "gtt_bytes": number(drm / "mem_info_gtt_total"),
        "pci_id": f"1002:{device:04x}",
        "pci_address": address,
        "kind": "integrated" if integrated else "discrete",
        "render_node": f"/dev/dri/renderD{minor}" if minor else None,
    }


def bank_bytes(node: Path, values: dict[str, int]) -> int:
    """Memory by the node's first bank; old kernels say it in ``local_mem_size``."""
    path = node / "mem_banks/0/properties"
    bank = properties(read_text(path)).get("size_in_bytes", 0)
    return bank or values.get("local_mem_size", 0)


def read_driver(roots: Roots, problems: list[dict[str, str]]) -> dict[str, Any]:
    """The loaded amdgpu and where it is from. Only the DKMS build has a version file."""
    module = roots.sys / "module/amdgpu"
    release = read_text(roots.proc / "sys/kernel/osrelease")
    dkms_dir = roots.var_lib / "dkms/amdgpu"
    installed = sorted(
        path.name
        for path in (dkms_dir.iterdir() if dkms_dir.is_dir() else [])
        if path.is_dir() and not path.is_symlink() and path.name[:1].isdigit()
    )
    version = read_text(module / "version")
    loaded = module.is_dir()
    origin = "none" if not loaded else "dkms" if version else "in_tree"
    if origin == "in_tree" and installed:
        add(
            problems,
            "dkms_not_loaded",
            f"amdgpu {', '.join(installed)} is installed by DKMS, the kernel's own is loaded",
        )
    return {
        "version": version or (release if loaded else None),
        "origin": origin,
        "loaded": loaded,
        "kernel": release,
        "dkms_installed": installed,
    }


def read_pci(roots: Roots) -> dict[str, tuple[int, int]]:
    """(vendor, device) of display controllers and accelerators by PCI address."""
    found = {}
    devices = roots.sys / "bus/pci/devices"
    for device in sorted(devices.iterdir()) if devices.is_dir() else []:
        if read_text(device / "class").startswith(("0x03", "0x12")):
            found[device.name] = (hexadecimal(device / "vendor"), hexadecimal(device / "device"))
    return found


def check_nodes(roots: Roots, gpus: list[dict[str, Any]], problems: list[dict[str, str]]) -> None:
    """Whether the group of each device node may use it: containers get in by that group."""
    names = [gpu["render_node"].removeprefix("/dev/") for gpu in gpus if gpu["render_node"]]
    for name in ["kfd", *names] if gpus else []:
        path = roots.dev / name
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            if name != "kfd":
                add(problems, "render_node_missing", f"/dev/{name} does not exist")
            continue
        except OSError as error:
            add(problems, "node_permissions", f"/dev/{name}: {error.strerror}")
            continue
        if mode & NODE_BITS != NODE_BITS:
            add(problems, "node_permissions", f"/dev/{name} has mode {mode:04o}: not for its group")


def read_groups(roots: Roots) -> dict[str, int | None]:
    """Numeric ids of this host's groups; images number them otherwise."""
    found = {}
    for line in read_text(roots.etc / "group").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit():  # noqa: PLR2004 (name:password:gid:members)
            found[fields[0]] = int(fields[2])
    return {"render_gid": found.get("render"), "video_gid": found.get("video")}


def is_wsl(roots: Roots) -> bool:
    release = read_text(roots.proc / "sys/kernel/osrelease").lower()
    return "microsoft" in release or (roots.dev / "dxg").exists()


def properties(text: str) -> dict[str, int]:
    """Lines of a name and a decimal number; others are not ours."""
    pairs = (line.split() for line in text.splitlines())
    return {
        pair[0]: int(pair[1])
        for pair in pairs
        if len(pair) == 2 and pair[1].isdigit()  # noqa: PLR2004
    }


def node_number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else -1


def number(path: Path) -> int:
    text = read_text(path)
    return int(text) if text.isdigit() else 0


def hexadecimal(path: Path) -> int:
    text = read_text(path)
    return int(text, 16) if text.startswith("0x") else 0


def read_text(path: Path) -> str:
    """Content without surrounding blanks; empty where there is none or it is not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def add(problems: list[dict[str, str]], name: str, detail: str) -> None:
    problems.append({"id": name, "detail": detail})

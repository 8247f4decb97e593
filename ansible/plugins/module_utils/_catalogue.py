"""PRIVATE to the collection. Which release fits a host, and what its row lacks; pure.

A row is *pinned* when everything that decides an install is sourced, *to be locked* when the rest
can be read from the vendor's signed index or at the first pull, and not selectable when no reading
would make it whole. A preview is never chosen by itself: the highest number is not the newest fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.rockiln.host.plugins.module_utils._alignment import is_kernel, known_bad

Row = Mapping[str, Any]
CPU = "cpu"
OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 6)
# Read from the signed index and from the pulled image; no decision waits for them.
READABLE = frozenset({"packages.full", "torch.local"})


def numbers(version: str) -> tuple[int, ...]:
    """``2.9.1+rocm7.2.4`` → (2, 9, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def lacks(row: Row) -> list[str]:
    """What no source gives; keys of the row, in its order."""
    if row["backend"] == CPU:
        return [name for name in ("rootfs.digest",) if not row["rootfs"]["digest"]]
    apt, image, torch = row["apt"] or {}, row["image"] or {}, row["torch"] or {}
    found = {
        "host_os": row["host_os"],
        "apt": apt,
        "apt.key.fingerprint": (apt.get("key") or {}).get("fingerprint"),
        "packages.container_host": all(row["packages"]["container_host"].values()),
        "packages.full": row["packages"]["full"] and all(row["packages"]["full"].values()),
        "kernel_driver.window": row["kernel_driver"]["window"],
        "gfx": row["gfx"],
        "image": image,
        "image.digest": image.get("digest"),
        "torch.local": torch.get("local"),
    }
    return [name for name, value in found.items() if not value]


def not_selectable(row: Row) -> list[str]:
    """Why nothing could make this row run; empty where it can."""
    if row["backend"] == CPU:
        return []
    reasons = [
        f"no source gives its {what}" for what in ("host_os", "gfx", "image") if not row[what]
    ]
    if row["python"] and numbers(row["python"]) < OLDEST_PYTHON:
        reasons.append(f"its image has Python {row['python']}; 3.11 is the oldest that will do")
    if row["torch"] and numbers(row["torch"]["version"]) < OLDEST_TORCH:
        reasons.append(
            f"its image has torch {row['torch']['version']}; 2.6 is the oldest that will do"
        )
    return reasons


def is_pinned(row: Row) -> bool:
    """What decides an install is sourced; versions of `full` and torch's local part may be read."""
    return not not_selectable(row) and set(lacks(row)) <= READABLE


def state(row: Row) -> str:
    if not_selectable(row):
        return "not selectable"
    return "pinned" if is_pinned(row) else "to be locked"


def misfits(name: str, row: Row, host: Mapping[str, Any]) -> list[str]:
    """Why a release does not run on a host; empty where it does.

    ``host``: ``os``, ``os_version``, ``gfx`` (of the chosen GPU, empty for none),
    ``driver_line`` (of the vendor's driver; empty for the kernel's own and for none), ``kernel``
    and ``dkms`` (the vendor's driver is wanted, or installed and not loaded).
    """
    if row["backend"] == CPU:
        return []
    reasons = not_selectable(row)
    systems = [f"{entry['name']} {entry['version']}" for entry in row["host_os"]]
    if f"{host['os']} {host['os_version']}" not in systems:
        reasons.append(f"it is for {', '.join(systems) or 'no known system'}")
    gfx = host.get("gfx") or ""
    if not gfx:
        reasons.append("this host has no AMD GPU that its driver shows")
    elif gfx not in row["gfx"] and gfx not in row["hsa_override"]:
        reasons.append(f"its image has no kernels for {gfx}")
    window, line = row["kernel_driver"]["window"], host.get("driver_line") or ""
    if window and line and line not in [entry.removesuffix(".x") for entry in series(window)]:
        reasons.append(
            f"its user space goes with driver lines {window['oldest']} to {window['newest']}, "
            f"and {line} is loaded"
        )
    reasons += [told(pair) for pair in pairs(row, host) if pair["verdict"] == "fail"]
    return [f"{name}: {reason}" for reason in reasons]


def warnings(name: str, row: Row, host: Mapping[str, Any]) -> list[str]:
    """What is said of a release that is taken by name all the same."""
    if row["backend"] == CPU:
        return []
    found = [told(pair) for pair in pairs(row, host) if pair["verdict"] == "warn"]
    return [f"{name}: {reason}" for reason in [*unlisted_kernel(row, host), *found]]


def pairs(row: Row, host: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Known-bad pairs that this host would make."""
    return known_bad(
        row,
        gfx=host.get("gfx") or "",
        kernel=host.get("kernel") or "",
        dkms=bool(host.get("dkms")),
    )


def told(pair: Mapping[str, Any]) -> str:
    return f"{pair['what']} ({pair['source']})"


def unlisted_kernel(row: Row, host: Mapping[str, Any]) -> list[str]:
    """The vendor names kernels for this system, and this is none of them; empty where it is."""
    kernel = host.get("kernel") or ""
    named = [
        each
        for entry in row["host_os"]
        if (entry["name"], entry["version"]) == (host["os"], host["os_version"])
        for each in entry.get("kernels") or []
    ]
    if not kernel or not named or is_kernel(kernel, named):
        return []
    return [
        f"the vendor lists it with kernel {', '.join(named)} of {host['os']} {host['os_version']}, "
        f"and {kernel} runs"
    ]


def series(window: Mapping[str, Any]) -> list[str]:
    """Lines of a window; a row that gives only its ends names those two."""
    found: list[str] = window.get("series") or [window["oldest"], window["newest"]]
    return found


def select_release(releases: Mapping[str, Row], host: Mapping[str, Any]) -> str:
    """The newest release that fits, pinned ones first; cpu where there is no AMD GPU or no fit."""
    if not host.get("gfx"):
        return CPU
    passed_over = why_not(releases, host)
    fitting = [name for name in releases if name != CPU and name not in passed_over]
    return max(fitting, key=lambda name: (is_pinned(releases[name]), numbers(name)), default=CPU)


def why_not(releases: Mapping[str, Row], host: Mapping[str, Any]) -> dict[str, list[str]]:
    """By release that is never taken by itself here: why. What fits is not in it."""
    found = {}
    for name, row in releases.items():
        reasons = misfits(name, row, host)
        if row["backend"] != CPU and row["line"] == "preview":
            reasons.append(f"{name}: it is a preview, taken only by name")
        if row["backend"] != CPU and host.get("driver_line") and not row["kernel_driver"]["window"]:
            reasons.append(
                f"{name}: no source says which driver lines go with it, "
                f"and {host['driver_line']} is loaded; taken only by name"
            )
        if row["backend"] != CPU:
            reasons += [
                f"{name}: {reason}; taken only by name" for reason in unlisted_kernel(row, host)
            ]
        if reasons:
            found[name] = reasons
    return found


def with_lock(row: Row, locked: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what this site has locked; what the row itself pins is never replaced."""
    merged = dict(row)
    for key, value in locked.items():
        own = merged.get(key)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            merged[key] = with_lock(own, value)
        elif own is None:
            merged[key] = value
    return merged


def host_packages(named: Mapping[str, Any], suite: str, gfx: str) -> dict[str, str | None]:
    """Version by name for one host: of this suite, for this target (none: for all targets)."""
    found = {}
    for name, version in named.items():
        own = version.get(suite) if isinstance(version, Mapping) else version
        found[name.replace("-{gfx}", f"-{gfx}" if gfx else "")] = own
    return found


def driver_line(module_version: str, drivers: Mapping[str, Row]) -> str:
    """Line of the vendor's driver whose module says ``6.16.13``; empty where no source names it."""
    for line, driver in drivers.items():
        if module_version in driver["modules"]:
            return line
    return ""

"""Catalogue, host and running container: do they agree, layer by layer. Pure.

Standard library only: the Ansible collection links this file. Alignment is a window between the
loaded kernel driver and the container's user space, not equality of version texts: a container
brings its user space, and only the driver is shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

ALIGNED, MISMATCH, UNKNOWN, NOT_NEEDED = "aligned", "mismatch", "unknown", "not needed"
WARNING = "warning"  # it may run, and somebody has seen it fail
LAYERS = (
    "image",
    "rocm",
    "torch",
    "torch_build",
    "hip_library",
    "python",
    "driver",
    "gpu",
    "device_nodes",
    "environment",
    "settings",
    "known_bad",
)
REBUILD = "ansible/playbooks/site.yml makes the container anew from the release's image"
Document = Mapping[str, Any]


def compare(
    release: str,
    row: Document,
    *,
    inside: Document | None,
    gpu: Document | None = None,
    drivers: Document | None = None,
    image: Document | None = None,
    settings: Document | None = None,
    lint: list[dict[str, str]] | None = None,
) -> list[dict[str, str]]:
    """Each layer's ``layer``, ``expected``, ``actual``, ``verdict`` and ``fix``.

    Args:
        release: the row's key.
        row: catalogue row with the site's lock merged in.
        inside: what ``inside.measure`` found in the running container; None: none answered.
        gpu: the host's ``rockiln_gpu`` facts; None where they were not read.
        drivers: the catalogue's lines of the vendor's driver.
        image: ``recorded`` and ``running`` digest; None where that is not asked.
        settings: ``backend`` and ``compute_device`` of the service.
        lint: findings of ``lint_environment`` over the container's variables.
    """
    on_cpu = (settings or {}).get("compute_device") == "cpu" or row["backend"] == "cpu"
    layers = [] if image is None else [image_layer(image)]
    if inside is None:
        layers.append(
            layer("container", "running", "no container answered", MISMATCH,
                  "docker start rockiln-worker; docker logs rockiln-worker says why it stopped")
        )  # fmt: skip
    else:
        if row["backend"] == "rocm":
            layers.append(rocm_layer(release, row, inside))
        layers += [torch_layer(row, inside), build_layer(row, inside)]
        if row["backend"] == "rocm":
            layers.append(library_layer(inside, on_cpu=on_cpu))
        layers.append(python_layer(row, inside))
    if gpu is not None and row["backend"] == "rocm":
        layers.append(driver_layer(row, gpu, drivers or {}, on_cpu=on_cpu))
        layers.append(gpu_layer(row, gpu, inside, on_cpu=on_cpu))
        layers.append(nodes_layer(gpu, on_cpu=on_cpu))
        layers.append(known_bad_layer(row, gpu, on_cpu=on_cpu))
    if lint is not None:
        layers.append(environment_layer(lint))
    if settings is not None:
        layers.append(settings_layer(row, settings))
    return layers


def mismatches(layers: list[dict[str, str]]) -> list[dict[str, str]]:
    return [each for each in layers if each["verdict"] == MISMATCH]


def told(each: Document) -> str:
    """One line for a log or a refusal."""
    return f"{each['layer']}: expected {each['expected']}, found {each['actual']}"


def table(layers: list[dict[str, str]]) -> list[str]:
    """Lines of a table, with the fix below a mismatch."""
    width = {
        key: max(len(key), *(len(each[key]) for each in layers), 1)
        for key in ("layer", "verdict", "expected")
    }
    lines = [
        f"{'layer':{width['layer']}}  {'verdict':{width['verdict']}}  "
        f"{'expected':{width['expected']}}  actual"
    ]
    for each in layers:
        lines.append(
            f"{each['layer']:{width['layer']}}  {each['verdict']:{width['verdict']}}  "
            f"{each['expected']:{width['expected']}}  {each['actual']}"
        )
        if each["verdict"] in {MISMATCH, WARNING}:
            lines.append(f"{'':{width['layer']}}  next: {each['fix']}")
    return lines


def image_layer(image: Document) -> dict[str, str]:
    recorded, running = image.get("recorded") or "", image.get("running") or ""
    verdict = UNKNOWN if not recorded else ALIGNED if recorded == running else MISMATCH
    expected, actual = short(recorded) or "not recorded", short(running) or "no container"
    return layer("image", expected, actual, verdict, REBUILD)


def short(digest: str) -> str:
    """Enough of a digest to tell it by; ``docker images`` shows as much."""
    return digest.removeprefix("sha256:")[:12]


def rocm_layer(release: str, row: Document, inside: Document) -> dict[str, str]:
    """The version file of the row, and no second ROCm beside it."""
    found: dict[str, str] = inside["rocm_versions"]
    where = row["info_version_file"]
    shown = ", ".join(f"{version} ({path})" for path, version in found.items()) or "no version file"
    right = [path for path, version in found.items() if is_release(version, release)]
    verdict = ALIGNED if found and len(right) == len(found) else MISMATCH
    return layer("rocm", f"{release} ({where})", shown, verdict, REBUILD)


def is_release(version: str, release: str) -> bool:
    """``7.2.4`` and ``7.2.4-93`` are 7.2.4; ``7.2.40`` is not."""
    return re.fullmatch(rf"{re.escape(release)}([.\-+~].*)?", version) is not None


def torch_layer(row: Document, inside: Document) -> dict[str, str]:
    """By the local part of the version: torch.version.hip is no ROCm release."""
    wanted, held = str(row["torch"]["version"]), inside["torch"]
    if held is None:
        return layer("torch", wanted, "no torch", MISMATCH, REBUILD)
    version = str(held["version"])
    if row["torch"]["local"] is None:  # to be locked: the row knows no local part
        same = version.partition("+")[0] == wanted.partition("+")[0]
        verdict = UNKNOWN if same else MISMATCH
        return layer("torch", f"{wanted}, local part not locked", version, verdict, REBUILD)
    same = version == wanted and held["local"] == row["torch"]["local"]
    return layer("torch", wanted, version, ALIGNED if same else MISMATCH, REBUILD)


def build_layer(row: Document, inside: Document) -> dict[str, str]:
    held = inside["torch"] or {}
    built = "rocm" if held.get("hip") else "cuda" if held.get("cuda") else "cpu"
    actual = built if held else "no torch"
    return layer(
        "torch_build",
        row["backend"],
        actual,
        ALIGNED if actual == row["backend"] else MISMATCH,
        f"pip replaced torch; {REBUILD}",
    )


def library_layer(inside: Document, *, on_cpu: bool) -> dict[str, str]:
    """One HIP runtime, of the major that torch was built for."""
    libraries: list[dict[str, str]] = inside["libraries"]
    hip = str((inside["torch"] or {}).get("hip") or "")
    major = hip.partition(".")[0]
    sonames = {each["soname"] for each in libraries}
    actual = ", ".join(each["path"] for each in libraries) or "none"
    expected = f"one soname, libamdhip64.so.{major}" if major else "one soname"
    if not libraries:
        verdict = NOT_NEEDED if on_cpu else MISMATCH
    elif len(sonames) > 1 or (major and f"libamdhip64.so.{major}" not in sonames):
        # Two majors in one process never work.
        verdict = MISMATCH
    else:
        verdict = ALIGNED
    return layer("hip_library", expected, f"{len(libraries)}: {actual}", verdict,
                 f"two ROCm releases are mixed in this image; {REBUILD}")  # fmt: skip


def python_layer(row: Document, inside: Document) -> dict[str, str]:
    wanted, held = row["python"], inside["python"]
    same = wanted is None or held == wanted or held.startswith(f"{wanted}.")
    return layer("python", str(wanted or "any"), held, ALIGNED if same else MISMATCH, REBUILD)


def driver_layer(
    row: Document, gpu: Document, drivers: Document, *, on_cpu: bool
) -> dict[str, str]:
    """The loaded driver against the window of the container's user space."""
    driver, wanted = gpu["driver"], row["kernel_driver"]
    window = wanted["window"]
    series = [] if window is None else window.get("series") or [window["oldest"], window["newest"]]
    expected = f"a line from {window['oldest']} to {window['newest']}" if window else "any"
    if not driver["loaded"]:
        return layer("driver", expected, "amdgpu is not loaded", NOT_NEEDED if on_cpu else MISMATCH,
                     "modprobe amdgpu; dmesg says why it did not load")  # fmt: skip
    if driver["origin"] == "in_tree":
        return in_tree_layer(expected, driver, wanted.get("in_tree") or [])
    line = next(
        (name for name, known in drivers.items() if driver["version"] in known["modules"]), ""
    )
    actual = f"{driver['version']} (DKMS, line {line or 'not known'})"
    if window is None or not line:
        return layer("driver", expected, actual, UNKNOWN, "the catalogue names no line for it")
    inside_window = line in [str(each).removesuffix(".x") for each in series]
    return layer(
        "driver",
        expected,
        actual,
        ALIGNED if inside_window else MISMATCH,
        "choose a release whose window has this driver (-e rocm_catalogue_release=…), or install "
        f"the driver of line {wanted['line']} (-e rocm_host_driver=dkms) and reboot",
    )


def in_tree_layer(expected: str, driver: Document, kernels: list[str]) -> dict[str, str]:
    """The kernel's own driver has no line; the row may name kernels."""
    kernel = str(driver["kernel"])
    actual = f"{kernel} (in-tree)"
    named = is_kernel(kernel, kernels)
    wanted = f"kernel {', '.join(map(str, kernels))}" if kernels else expected
    return layer("driver", wanted, actual, ALIGNED if named else UNKNOWN,
                 "no source says whether this kernel's own driver fits")  # fmt: skip


def is_kernel(kernel: str, named: Iterable[Any]) -> bool:
    """``6.8.0-60-generic`` is a 6.8; ``6.80.0`` is not."""
    return any(re.match(rf"{re.escape(str(each))}([.\-]|$)", kernel) for each in named)


def known_bad(row: Document, *, gfx: str, kernel: str, dkms: bool) -> list[dict[str, Any]]:
    """Pairs of the row that this host makes: ``what``, ``verdict`` (fail or warn), ``source``.

    Args:
        dkms: the vendor's driver is wanted, or installed and not loaded.
    """
    return [
        pair
        for pair in row["known_bad"]
        if "when" in pair  # a host.json of an older version has words alone
        and gfx in pair["when"].get("gfx", [gfx])
        and ("kernels" not in pair["when"] or is_kernel(kernel, pair["when"]["kernels"]))
        and (dkms or "dkms" not in pair["when"])
    ]


def known_bad_layer(row: Document, gpu: Document, *, on_cpu: bool) -> dict[str, str]:
    """A warning only: what runs here may be the exception."""
    driver = gpu["driver"]
    chosen = next((each["gfx"] for each in gpu["gpus"] if each["uuid"] == gpu["chosen"]), "")
    idle = bool(driver["dkms_installed"]) and driver["origin"] != "dkms"
    pairs = known_bad(row, gfx=chosen, kernel=str(driver["kernel"]), dkms=idle)
    actual = "; ".join(f"{each['what']} ({each['source']})" for each in pairs)
    verdict = ALIGNED if not pairs else NOT_NEEDED if on_cpu else WARNING
    return layer("known_bad", "no pair that is known to fail", actual or "so", verdict,
                 "read the source; another release: -e rocm_catalogue_release=…")  # fmt: skip


def gpu_layer(
    row: Document, gpu: Document, inside: Document | None, *, on_cpu: bool
) -> dict[str, str]:
    chosen = next((each for each in gpu["gpus"] if each["uuid"] == gpu["chosen"]), None)
    offered = f"one of the image's {len(row['gfx'])} targets"
    if chosen is None:
        verdict = NOT_NEEDED if on_cpu else MISMATCH
        return layer("gpu", offered, "no AMD GPU", verdict, "rockiln doctor says what is missing")
    gfx = chosen["gfx"]
    actual = f"{gfx} ({chosen['name']}, {chosen['uuid']})"
    if gfx in row["gfx"]:
        return layer("gpu", offered, actual, ALIGNED, "")
    value = row.get("hsa_override", {}).get(gfx)
    set_to = ((inside or {}).get("environment") or {}).get("HSA_OVERRIDE_GFX_VERSION")
    refused = NOT_NEEDED if on_cpu else MISMATCH
    if value is None:
        cure = "choose a release that has this target (rocm_catalogue_release=auto does)"
        return layer("gpu", offered, actual, refused, cure)
    return layer(
        "gpu",
        f"HSA_OVERRIDE_GFX_VERSION={value} for {gfx}",
        f"{actual}, {set_to or 'not set'}",
        ALIGNED if set_to == str(value) else refused,
        "ansible/playbooks/site.yml writes it to settings.toml, for the engine",
    )


def nodes_layer(gpu: Document, *, on_cpu: bool) -> dict[str, str]:
    faults = [
        each["detail"]
        for each in gpu["problems"]
        if each["id"] in {"kfd_missing", "render_node_missing", "node_permissions"}
    ]
    if not gpu["gpus"]:
        return layer("device_nodes", "/dev/kfd and a render node", "no AMD GPU",
                     NOT_NEEDED if on_cpu else MISMATCH, "rockiln doctor")  # fmt: skip
    return layer(
        "device_nodes",
        "/dev/kfd and a render node, for their group",
        "; ".join(faults) or "so",
        ALIGNED if not faults else NOT_NEEDED if on_cpu else MISMATCH,
        "ansible/playbooks/site.yml --tags gpu_access writes the udev rule",
    )


def environment_layer(lint: list[dict[str, str]]) -> dict[str, str]:
    actual = "; ".join(f"{each['name']}={each['value']}: {each['why']}" for each in lint)
    cure = "; ".join(
        f"remove {each['name']}" + (f", use {each['instead']}" if each["instead"] else "")
        for each in lint
    )
    return layer("environment", "variables that this release has", actual or "so",
                 MISMATCH if lint else ALIGNED, cure)  # fmt: skip


def settings_layer(row: Document, settings: Document) -> dict[str, str]:
    actual = str(settings.get("backend"))
    return layer("settings", f"backend {row['backend']}", f"backend {actual}",
                 ALIGNED if actual == row["backend"] else MISMATCH,
                 "ansible/playbooks/site.yml writes settings.toml anew")  # fmt: skip


def layer(name: str, expected: str, actual: str, verdict: str, fix: str) -> dict[str, str]:
    return {
        "layer": name,
        "expected": expected,
        "actual": actual,
        "verdict": verdict,
        "fix": "" if verdict in {ALIGNED, NOT_NEEDED} else fix,
    }

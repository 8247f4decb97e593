"""Catalogue, host and container agree or do not, and the layer is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.rockiln.host.plugins.module_utils._alignment import (
    compare,
    mismatches,
    table,
)
from ansible_collections.rockiln.host.plugins.module_utils._environment_rules import (
    lint_environment,
)
from ansible_collections.rockiln.host.plugins.module_utils._gpu_facts import Roots, gpu_facts
from ansible_collections.rockiln.host.plugins.module_utils._inside import measure

from support.host_tree import load_host, plant, write

ROOT = Path(__file__).resolve().parents[3]
ROWS: dict[str, Any] = yaml.safe_load(
    (ROOT / "tests/fixtures/catalogue/releases.yml").read_text(encoding="utf-8")
)["rocm_catalogue_releases"]
DRIVERS: dict[str, Any] = yaml.safe_load(
    (ROOT / "ansible/roles/rocm_catalogue/vars/main/drivers.yml").read_text(encoding="utf-8")
)["rocm_catalogue_drivers"]
# Release → (version file, its text, HIP version of torch): the three layouts of vendors' images.
LAYOUTS = {
    "7.2.4": ("opt/rocm-7.2.4/.info/version", "7.2.4-93", "7.2.53211"),
    "7.14.0": ("opt/rocm/core-7.14/.info/version", "7.14.0", "7.14.60850"),
    "10.0.0": ("opt/rocm/core-10.0/.info/version", "10.0.0", "7.15.26333"),
}


def image(root: Path, release: str, torch: str | None = None) -> list[str]:
    """A tree like the vendor's image of a release; the path of its packages."""
    file, text, hip = LAYOUTS[release]
    write(root / file, f"{text}\n")
    prefix = (root / file).parents[1]
    if release == "7.2.4":
        (root / "opt/rocm").symlink_to(prefix.name)
    else:
        (root / "opt/rocm/core").symlink_to(prefix.name)
    major = hip.partition(".")[0]
    write(prefix / f"lib/libamdhip64.so.{major}.2.0", "")
    (prefix / f"lib/libamdhip64.so.{major}").symlink_to(f"libamdhip64.so.{major}.2.0")
    (prefix / "lib/libamdhip64.so").symlink_to(f"libamdhip64.so.{major}")
    version = torch or f"2.9.1+rocm{release}"
    write(
        root / "venv/torch/version.py",
        f"__version__ = '{version}'\nhip: str = '{hip}'\ncuda = None\n",
    )
    return [str(root / "venv")]


def inside(tmp_path: Path, release: str, torch: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = measure(tmp_path, image(tmp_path, release, torch), {})
    return {**found, "python": "3.11.9"}


def verdicts(layers: list[dict[str, str]]) -> dict[str, str]:
    return {each["layer"]: each["verdict"] for each in layers}


@pytest.mark.parametrize("release", LAYOUTS)
def test_the_version_is_read_in_every_layout(release: str, tmp_path: Path) -> None:
    found = measure(tmp_path, image(tmp_path, release), {})
    ((path, text),) = found["rocm_versions"].items()
    assert text == LAYOUTS[release][1]
    expected = "/opt/rocm/.info" if release == "7.2.4" else "/opt/rocm/core/.info"
    assert path == f"{expected}/version"
    assert [each["soname"] for each in found["libraries"]] == [
        f"libamdhip64.so.{LAYOUTS[release][2].partition('.')[0]}"
    ]
    assert found["torch"]["local"] == f"rocm{release}"


def gpu(tmp_path: Path, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = gpu_facts(Roots.below(plant(tmp_path / name, load_host(name))))
    return facts


def test_a_host_that_is_so_is_aligned(tmp_path: Path) -> None:
    held = inside(tmp_path, "10.0.0", "2.13.0+rocm10.0.0")
    layers = compare(
        "10.0.0",
        ROWS["10.0.0"],
        inside=held,
        gpu=gpu(tmp_path, "rx9070xt"),
        drivers={**DRIVERS, "31.50.x": {"modules": ["7.1.3"]}},
        image={"recorded": "sha256:1", "running": "sha256:1"},
        settings={"backend": "rocm", "compute_device": "auto"},
        lint=[],
    )
    assert set(verdicts(layers).values()) == {"aligned"}, table(layers)


@pytest.mark.parametrize(
    ("module", "verdict"), [("7.1.3", "mismatch"), ("6.16.13", "aligned"), ("9.9.9", "unknown")]
)
def test_a_driver_is_judged_by_the_window(module: str, verdict: str, tmp_path: Path) -> None:
    facts = gpu(tmp_path, "mi210")
    facts["driver"]["version"] = module
    row = {**ROWS["6.4.2"]}
    layers = compare("6.4.2", row, inside=inside(tmp_path, "7.2.4"), gpu=facts, drivers=DRIVERS)
    assert verdicts(layers)["driver"] == verdict
    assert {"rocm", "torch"} <= {each["layer"] for each in mismatches(layers)}


def test_torchs_hip_version_is_no_release(tmp_path: Path) -> None:
    """Field: 2.13.0+rocm10.0.0 says hip 7.15."""
    held = inside(tmp_path, "10.0.0", "2.13.0+rocm10.0.0")
    assert held["torch"]["hip"].startswith("7.15")
    assert verdicts(compare("10.0.0", ROWS["10.0.0"], inside=held))["torch"] == "aligned"


def test_two_hip_runtimes_are_a_mismatch(tmp_path: Path) -> None:
    held = inside(tmp_path, "7.2.4")
    write(tmp_path / "venv/torch/lib/libamdhip64.so.6", "")
    held = measure(tmp_path, [str(tmp_path / "venv")], {})
    layers = compare("7.2.4", ROWS["7.2.4"], inside=held)
    assert verdicts(layers)["hip_library"] == "mismatch"


def test_a_replaced_torch_is_named(tmp_path: Path) -> None:
    """Field reports: pip took the CUDA build. sd-rocm#3, ComfyUI#2058."""
    held = inside(tmp_path, "7.2.4", "2.9.1+cu128")
    held["torch"] |= {"hip": None, "cuda": "12.8"}
    named = {each["layer"] for each in mismatches(compare("7.2.4", ROWS["7.2.4"], inside=held))}
    assert {"torch", "torch_build"} <= named


def test_a_local_part_that_no_source_gives_is_unknown(tmp_path: Path) -> None:
    row = {**ROWS["7.2.4"], "torch": {"version": "2.9.1", "local": None}}
    held = inside(tmp_path, "7.2.4")
    assert verdicts(compare("7.2.4", row, inside=held))["torch"] == "unknown"


def test_a_target_that_the_image_lacks(tmp_path: Path) -> None:
    held = inside(tmp_path, "7.2.4")
    facts = gpu(tmp_path, "rx6700xt")
    assert verdicts(compare("7.2.4", ROWS["7.2.4"], inside=held, gpu=facts))["gpu"] == "mismatch"
    held["environment"]["HSA_OVERRIDE_GFX_VERSION"] = "10.3.0"
    assert verdicts(compare("7.2.4", ROWS["7.2.4"], inside=held, gpu=facts))["gpu"] == "aligned"


def test_a_pair_that_is_known_to_fail_is_a_warning_where_it_runs(tmp_path: Path) -> None:
    """Strix Halo before 7.2.1 (rdna3-5.rst). Words alone, of an older host.json, are no verdict."""
    pair = {"what": "gfx1151 needs 7.2.1", "when": {"gfx": ["gfx1151"]}, "source": "rdna3-5.rst"}
    held, facts = inside(tmp_path, "7.2.4"), gpu(tmp_path, "strix_halo")
    elsewhere = {**pair, "when": {"gfx": ["gfx1100"]}}
    words = {"what": "words", "source": "old"}
    for known, verdict in (([pair], "warning"), ([elsewhere], "aligned"), ([words], "aligned")):
        row = {**ROWS["7.2.4"], "known_bad": known}
        layers = compare("7.2.4", row, inside=held, gpu=facts)
        assert verdicts(layers)["known_bad"] == verdict
    assert "known_bad" not in {each["layer"] for each in mismatches(layers)}


def test_a_host_without_a_card_that_computes_on_its_cpu(tmp_path: Path) -> None:
    layers = compare(
        "7.2.4",
        ROWS["7.2.4"],
        inside={**inside(tmp_path, "7.2.4"), "libraries": []},
        gpu=gpu(tmp_path, "no_gpu"),
        settings={"backend": "rocm", "compute_device": "cpu"},
    )
    assert [each["layer"] for each in layers if each["verdict"] == "not needed"] == [
        *("hip_library", "driver", "gpu", "device_nodes")
    ]
    assert not mismatches(layers)


def test_no_container_is_a_mismatch_with_a_next_step() -> None:
    (wrong,) = mismatches(compare("7.2.4", ROWS["7.2.4"], inside=None))
    assert "docker logs" in wrong["fix"]


@pytest.mark.parametrize(
    ("environment", "torch", "instead"),
    [
        ({"MIOPEN_FIND_TIME_LIMIT": "5"}, "", "MIOPEN_FIND_MODE=FAST"),
        ({"MIOPEN_CACHE_DIR": "/x"}, "", "MIOPEN_CUSTOM_CACHE_DIR"),
        ({"MIOPEN_FIND_MODE": "QUICK"}, "", ""),
        ({"PYTORCH_HIP_ALLOC_CONF": "x"}, "2.9.1+rocm7.2.4", "PYTORCH_ALLOC_CONF"),
        ({"PYTORCH_ALLOC_CONF": "x"}, "2.6.0+rocm6.4.2", "PYTORCH_HIP_ALLOC_CONF"),
        ({"AMDGPU_VISIBLE_DEVICES": "0"}, "", "ROCR_VISIBLE_DEVICES"),
    ],
)
def test_variables_that_do_nothing(environment: dict[str, str], torch: str, instead: str) -> None:
    (found,) = lint_environment(environment, torch_version=torch)
    assert found["instead"] == instead
    assert found["source"]


def test_an_override_against_the_images_own_kernels() -> None:
    environment = {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"}
    assert lint_environment(environment, gfx="gfx1100", row=ROWS["7.2.4"])
    assert not lint_environment(environment, gfx="gfx1102", row=ROWS["7.2.4"])


@pytest.mark.parametrize("release", ROWS)
def test_the_catalogues_own_variables_pass(release: str) -> None:
    row = ROWS[release]
    values = {name: entry["value"] for name, entry in row["environment"].items()}
    assert lint_environment(values, torch_version=row["torch"]["version"], row=row) == []

#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Whether catalogue, host and running container agree, layer by layer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_alignment_info
short_description: Compare the catalogue with the host and with what is inside the running container
description:
  - Measures inside the running container by its own Python, so that an image of any age answers.
  - The decision is that of the worker, of C(/readyz) and of C(rockiln doctor).
author: The rockiln authors
options:
  release:
    description: Key of the row.
    type: str
    required: true
  row:
    description: Row of the catalogue, with the site's lock.
    type: dict
    required: true
  drivers:
    description: Lines of the vendor's kernel driver, as in the catalogue.
    type: dict
    default: {}
  gpu:
    description: What M(rockiln.host.rockiln_gpu_facts) found.
    type: dict
    required: true
  container:
    description: Name of the worker's container.
    type: str
    default: rockiln-worker
  image:
    description: Recorded digest of its image; empty if none is recorded.
    type: str
    default: ""
  python:
    description: Interpreter inside the container that has torch.
    type: str
    default: /opt/venv/bin/python
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Compare
  rockiln.host.rockiln_alignment_info:
    release: "{{ rocm_catalogue_selected }}"
    row: "{{ rocm_catalogue_row }}"
    drivers: "{{ rocm_catalogue_drivers }}"
    gpu: "{{ ansible_facts.rockiln_gpu }}"
"""

RETURN = r"""
aligned:
  description: Whether no layer is a mismatch.
  returned: always
  type: bool
layers:
  description: Each with C(layer), C(expected), C(actual), C(verdict) and C(fix).
  returned: always
  type: list
  elements: dict
table:
  description: The same for eyes.
  returned: always
  type: list
  elements: str
"""

import json
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils import _inside
from ansible_collections.rockiln.host.plugins.module_utils._alignment import (
    compare,
    mismatches,
    table,
)
from ansible_collections.rockiln.host.plugins.module_utils._engine import Engine, find_client
from ansible_collections.rockiln.host.plugins.module_utils._environment_rules import (
    lint_environment,
)

EXEC_SECONDS = 60
ARGUMENTS: dict[str, dict[str, Any]] = {
    "release": {"type": "str", "required": True},
    "row": {"type": "dict", "required": True},
    "drivers": {"type": "dict", "default": {}},
    "gpu": {"type": "dict", "required": True},
    "container": {"type": "str", "default": "rockiln-worker"},
    "image": {"type": "str", "default": ""},
    "python": {"type": "str", "default": "/opt/venv/bin/python"},
}


def look_inside(client_path: str, container: str, python: str) -> dict[str, Any] | None:
    """Measured by the container's own interpreter, with our own text."""
    loader: Any = _inside.__loader__  # a module may come out of an archive
    source = loader.get_source(_inside.__name__)
    done = subprocess.run(
        [client_path, "exec", "--interactive", container, python, "-"],
        input=source,
        capture_output=True,
        text=True,
        timeout=EXEC_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def chosen_gfx(gpu: dict[str, Any]) -> str:
    return next((each["gfx"] for each in gpu["gpus"] if each["uuid"] == gpu["chosen"]), "")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    client = find_client()
    if client is None:
        module.fail_json(msg="no container engine answers; next: systemctl start docker")
        return
    try:
        shown = Engine(client.path).call(
            "container", "inspect", "--format", "{{.Image}}", given["container"]
        )
        inside = look_inside(client.path, given["container"], given["python"])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"cannot look into {given['container']}: {error}")
    lint = None
    if inside is not None:
        lint = lint_environment(
            inside["environment"],
            torch_version=(inside["torch"] or {}).get("version", ""),
            gfx=chosen_gfx(given["gpu"]),
            row=given["row"],
        )
    layers = compare(
        given["release"],
        given["row"],
        inside=inside,
        gpu=given["gpu"],
        drivers=given["drivers"],
        image={
            "recorded": given["image"],
            "running": shown.output.strip() if shown.code == 0 else "",
        },
        settings=None if inside is None else inside["settings"],
        lint=lint,
    )
    module.exit_json(
        changed=False, aligned=not mismatches(layers), layers=layers, table=table(layers)
    )


if __name__ == "__main__":
    main()

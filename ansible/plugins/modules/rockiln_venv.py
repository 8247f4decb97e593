#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""The host's own environment with the command rockiln."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_venv
short_description: Keep a virtual environment equal to a lock with hashes and one project
description:
  - Made anew when the Python or a lock changed; where the project's sources alone did, that is
    installed again; untouched else.
  - pip runs with the host's own configuration, with hashes required, wheels only and no dependency
    resolution.
author: The rockiln authors
options:
  path:
    description: Where the environment is.
    type: path
    required: true
  python:
    description: The interpreter to make it with.
    type: str
    required: true
  lock:
    description: Requirements with hashes.
    type: path
    required: true
  build_lock:
    description: Requirements with hashes of the build backend.
    type: path
    required: true
  project:
    description: The project to install; C(pyproject.toml) and C(src) of it count.
    type: path
    required: true
attributes:
  check_mode: {support: full, description: The digest of the inputs is compared.}
  diff_mode: {support: full, description: Shows which input changed.}
  idempotent: {support: full, description: An equal environment is not touched.}
"""

EXAMPLES = r"""
- name: Install the rockiln command
  rockiln.host.rockiln_venv:
    path: /opt/rockiln/venv
    python: /usr/bin/python3
    lock: /opt/src/rockiln/containers/locks/api.txt
    build_lock: /opt/src/rockiln/containers/locks/build.txt
    project: /opt/src/rockiln/service
"""

RETURN = r"""
inputs:
  description: Digests of the inputs.
  returned: always
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._venv import (
    VenvError,
    installed_inputs,
    make_venv,
    wanted_inputs,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "python": {"type": "str", "required": True},
    "lock": {"type": "path", "required": True},
    "build_lock": {"type": "path", "required": True},
    "project": {"type": "path", "required": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    path = Path(module.params["path"])
    sources: dict[str, Any] = {
        "python": module.params["python"],
        "lock": Path(module.params["lock"]),
        "build_lock": Path(module.params["build_lock"]),
        "project": Path(module.params["project"]),
    }
    try:
        before, wanted = installed_inputs(path), wanted_inputs(**sources)
        changed = before != wanted
        if changed and not module.check_mode:
            make_venv(path, wanted, **sources)
    except (VenvError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, inputs=wanted, diff={"before": before, "after": wanted})


if __name__ == "__main__":
    main()

#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""What the preflight role asks of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_host_facts
short_description: Read free space, taken addresses, the first process and GPU vendors
description: Reads only. An address is taken when somebody listens there.
author: The rockiln authors
options:
  paths:
    description: Paths whose free space is asked; they need not exist.
    type: list
    elements: path
    default: []
  addresses:
    description: HOST:PORT that will be published.
    type: list
    elements: str
    default: []
  sys_root:
    description: Where sysfs is.
    type: path
    default: /sys
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Look at the host
  rockiln.host.rockiln_host_facts:
    paths: [/var/lib/rockiln]
    addresses: ["127.0.0.1:8000"]
"""

RETURN = r"""
ansible_facts:
  description: Facts to add.
  returned: always
  type: dict
  contains:
    rockiln_host:
      description: C(free_bytes) by path, C(taken_addresses), C(first_process), C(gpu_vendors).
      type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._host_probe import (
    address_is_taken,
    first_process,
    free_bytes,
    gpu_vendors,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "sys_root": {"type": "path", "default": "/sys"},
        },
        supports_check_mode=True,
    )
    try:
        facts = {
            "free_bytes": {path: free_bytes(path) for path in module.params["paths"]},
            "taken_addresses": [
                name for name in module.params["addresses"] if address_is_taken(name)
            ],
            "first_process": first_process(),
            "gpu_vendors": gpu_vendors(Path(module.params["sys_root"])),
        }
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot look at the host: {error}")
    module.exit_json(changed=False, ansible_facts={"rockiln_host": facts})


if __name__ == "__main__":
    main()

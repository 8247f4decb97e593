#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""GPUs, driver and groups of a host, without ROCm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_gpu_facts
short_description: Read GPUs, kernel driver and GPU groups from the kernel's own files
description:
  - Reads the KFD topology, the DRM nodes, the amdgpu module and where it is from. Needs no ROCm.
  - The GPU to use is chosen by UUID. A processor's graphics are never chosen beside a graphics
    card, unless asked for.
author: The rockiln authors
options:
  gpu:
    description: UUID of the GPU to use; empty for the best one.
    type: str
    default: ""
  sys_root:
    description: Where sysfs is.
    type: path
    default: /sys
  dev_root:
    description: Where device nodes are.
    type: path
    default: /dev
  proc_root:
    description: Where procfs is.
    type: path
    default: /proc
  etc_root:
    description: Where the group file is.
    type: path
    default: /etc
  var_lib_root:
    description: Where the folder of DKMS is.
    type: path
    default: /var/lib
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Look at the GPU
  rockiln.host.rockiln_gpu_facts:
"""

RETURN = r"""
ansible_facts:
  description: Facts to add.
  returned: always
  type: dict
  contains:
    rockiln_gpu:
      description: >-
        C(kfd_present), C(driver), C(gpus), C(chosen), C(groups), C(wsl), C(kernel_command_line),
        C(other_vendors) and C(problems).
      type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._gpu_facts import Roots, gpu_facts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gpu": {"type": "str", "default": ""},
            "sys_root": {"type": "path", "default": "/sys"},
            "dev_root": {"type": "path", "default": "/dev"},
            "proc_root": {"type": "path", "default": "/proc"},
            "etc_root": {"type": "path", "default": "/etc"},
            "var_lib_root": {"type": "path", "default": "/var/lib"},
        },
        supports_check_mode=True,
    )
    names = ("sys", "dev", "proc", "etc", "var_lib")
    roots = Roots(**{name: Path(module.params[f"{name}_root"]) for name in names})
    try:
        facts = gpu_facts(roots, module.params["gpu"])
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot look at the GPU: {error}")
    module.exit_json(changed=False, ansible_facts={"rockiln_gpu": facts})


if __name__ == "__main__":
    main()

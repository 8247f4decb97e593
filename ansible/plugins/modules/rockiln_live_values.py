#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Values below /proc/sys and /sys, with a record of what they were."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_live_values
short_description: Change kernel values at once, and put back what they were
description:
  - The value that was there before the first change is written down. A recorded path that is no
    longer wanted gets its former value back.
  - Where the kernel's files are read-only or a value is not offered, nothing is changed and
    RV(not_applied) says so.
author: The rockiln authors
options:
  values:
    description: Value by path. An empty dictionary puts everything back.
    type: dict
    required: true
  record_path:
    description: Where former values are written down.
    type: path
    required: true
attributes:
  check_mode: {support: full, description: Whether a file may be written is asked of the system.}
  diff_mode: {support: full, description: Shows value by path.}
  idempotent: {support: full, description: An equal value is not written.}
"""

EXAMPLES = r"""
- name: Allow more mappings
  rockiln.host.rockiln_live_values:
    values: {/proc/sys/vm/max_map_count: "1048576"}
    record_path: /var/lib/rockiln-host/kernel_tuning.json
"""

RETURN = r"""
not_applied:
  description: What could not be changed, each as C(path, reason).
  returned: always
  type: list
  elements: str
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._live_values import (
    apply_change,
    plan_change,
    read_record,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "values": {"type": "dict", "required": True},
    "record_path": {"type": "path", "required": True},
}


def lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in values.items())


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    values = {name: str(value) for name, value in module.params["values"].items()}
    record_path = Path(module.params["record_path"])
    try:
        change = plan_change(values, read_record(record_path))
        if change.changed and not module.check_mode:
            apply_change(change, record_path)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot change a kernel value: {error}")
    module.exit_json(
        changed=change.changed,
        not_applied=list(change.not_applied),
        diff={"before": lines(change.before), "after": lines(change.after)},
    )


if __name__ == "__main__":
    main()

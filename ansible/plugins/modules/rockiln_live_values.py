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

import json
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._host_files import write_whole

ARGUMENTS: dict[str, dict[str, Any]] = {
    "values": {"type": "dict", "required": True},
    "record_path": {"type": "path", "required": True},
}


def read_value(path: Path) -> str:
    """As written; of a choice like ``always [madvise] never`` the chosen word."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    chosen = re.search(r"\[(\S+)\]", text)
    return chosen[1] if chosen else text


def obstacle(path: Path) -> str:
    """Why it cannot be written; nothing where it can."""
    if not path.exists():
        return "this kernel has no such value"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "read-only"
    if not os.access(path, os.W_OK):
        return "not writable"
    return ""


def wanted_values(values: dict[str, Any], record: dict[str, str]) -> dict[str, str]:
    """The wishes, and the former values of what is no longer wished."""
    back = {name: value for name, value in record.items() if name not in values}
    return {**back, **{name: str(value) for name, value in values.items()}}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    values, record_path = module.params["values"], Path(module.params["record_path"])
    try:
        record: dict[str, str] = (
            json.loads(record_path.read_text(encoding="utf-8")) if record_path.is_file() else {}
        )
        then = dict(record)
        before, after, not_applied = {}, {}, []
        for name, value in sorted(wanted_values(values, record).items()):
            path = Path(name)
            hindered = obstacle(path)
            if hindered:
                not_applied.append(f"{name}, {hindered}")
                continue
            found = read_value(path)
            if name in values and found != value:
                then.setdefault(name, found)
            elif name not in values:
                then.pop(name, None)
            if found != value:
                before[name], after[name] = found, value
        if not module.check_mode:
            apply(after, {**record, **then}, then, record, record_path)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot change a kernel value: {error}")
    module.exit_json(
        changed=bool(after) or then != record,
        not_applied=not_applied,
        diff={"before": lines(before), "after": lines(after)},
    )


def apply(
    after: dict[str, str],
    both: dict[str, str],
    then: dict[str, str],
    record: dict[str, str],
    record_path: Path,
) -> None:
    """Former values are on disk before the first of them is overwritten."""
    if both != record:
        write_record(record_path, both)
    for name, value in after.items():
        Path(name).write_text(f"{value}\n", encoding="utf-8")
    if then != both:
        write_record(record_path, then)


def write_record(path: Path, record: dict[str, str]) -> None:
    if record:
        write_whole(path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    else:
        path.unlink(missing_ok=True)


def lines(values: dict[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in values.items())


if __name__ == "__main__":
    main()

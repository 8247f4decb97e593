#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Accounts in groups, and a record of which memberships are ours."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_memberships
short_description: Make accounts members of groups, and take back only what it gave
description:
  - A membership that is missing is made and written down; one that was there before is left out
    of the record and is never taken away.
  - A recorded membership that is no longer wanted is ended.
author: The rockiln authors
options:
  memberships:
    description: Accounts by group. An empty dictionary takes back everything.
    type: dict
    required: true
  record_path:
    description: Where it is written down which memberships are ours.
    type: path
    required: true
attributes:
  check_mode: {support: full, description: A group that is not there yet counts as empty.}
  diff_mode: {support: full, description: Shows the members.}
  idempotent: {support: full, description: Members are not made again.}
"""

EXAMPLES = r"""
- name: Let a person use the GPU
  rockiln.host.rockiln_memberships:
    memberships: {render: [alice], video: [alice]}
    record_path: /var/lib/rockiln-host/gpu_access.json
"""

RETURN = r"""
added:
  description: Memberships that were made, as C(group:account).
  returned: always
  type: list
  elements: str
removed:
  description: Memberships that were ended.
  returned: always
  type: list
  elements: str
"""

import grp
import json
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import run_command
from ansible_collections.rockiln.host.plugins.module_utils._host_files import write_whole

ARGUMENTS: dict[str, dict[str, Any]] = {
    "memberships": {"type": "dict", "required": True},
    "record_path": {"type": "path", "required": True},
}


def is_member(group: str, user: str) -> bool:
    """By the group's list or as the account's own group."""
    try:
        entry = grp.getgrnam(group)
        return user in entry.gr_mem or pwd.getpwnam(user).pw_gid == entry.gr_gid
    except KeyError:  # no such group or account yet
        return False


def read_record(path: Path) -> set[tuple[str, str]]:
    if not path.is_file():
        return set()
    return {(group, user) for group, user in json.loads(path.read_text(encoding="utf-8"))}


def write_record(path: Path, ours: set[tuple[str, str]]) -> None:
    if ours:
        write_whole(path, (json.dumps(sorted(ours)) + "\n").encode())
    else:
        path.unlink(missing_ok=True)


def gpasswd(module: AnsibleModule, option: str, group: str, user: str) -> None:
    done = run_command(["gpasswd", option, user, group])
    if done.code != 0:
        module.fail_json(msg=f"gpasswd {option} {user} {group}: {done.errors.strip()}")


def lines(pairs: set[tuple[str, str]]) -> str:
    return "".join(f"{group}: {user}\n" for group, user in sorted(pairs))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    record_path = Path(module.params["record_path"])
    wanted = {
        (group, user) for group, users in module.params["memberships"].items() for user in users
    }
    try:
        ours = read_record(record_path)
        added = {pair for pair in wanted if not is_member(*pair)}
        removed = {pair for pair in ours - wanted if is_member(*pair)}
        ours_then = (ours & wanted) | added
        if not module.check_mode and (added or removed or ours_then != ours):
            write_record(record_path, ours | ours_then)
            for pair in sorted(added):
                gpasswd(module, "--add", *pair)
            for pair in sorted(removed):
                gpasswd(module, "--delete", *pair)
            write_record(record_path, ours_then)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot change the groups: {error}")
    module.exit_json(
        changed=bool(added or removed or ours_then != ours),
        added=[":".join(pair) for pair in sorted(added)],
        removed=[":".join(pair) for pair in sorted(removed)],
        diff={"before": lines(removed), "after": lines(added)},
    )


if __name__ == "__main__":
    main()

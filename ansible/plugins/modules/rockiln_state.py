#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Records of a host's state, for upgrade and rollback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_state
short_description: Record what a host is, before and after an upgrade, and name what to go back to
description:
  - A record holds release and catalogue row, the images that the containers run, versions of the
    host's packages and the text of its configuration. Records are written once.
  - C(begin) records what is here and says that an upgrade is under way. One that already is was
    killed; its own record stays.
  - C(finish) makes what is here now the current record. C(went_back) says that the host is as a
    record says. C(read) changes nothing.
author: The rockiln authors
options:
  path:
    description: Folder of the records.
    type: path
    required: true
  action:
    description: What to do.
    type: str
    choices: [read, begin, finish, went_back]
    default: read
  release:
    description: The release that is wanted, for C(begin).
    type: str
    default: ""
  number:
    description: A record, for C(read) and C(went_back); 0 lets the records decide.
    type: int
    default: 0
  reason:
    description: Why it went back.
    type: str
    default: ""
  by_hand:
    description: For C(went_back), whether a person asked for it; then it is not done again.
    type: bool
    default: false
  host_facts:
    description: The file with the facts of the host.
    type: path
    default: /etc/rockiln/public/host.json
  files:
    description: Configuration to record.
    type: list
    elements: path
    default: []
  packages:
    description: Names of packages whose versions are recorded.
    type: list
    elements: str
    default: []
  containers:
    description: Containers by part; the images that they run are recorded.
    type: dict
    default: {}
attributes:
  check_mode: {support: full, description: Says whether a record would be written.}
  diff_mode: {support: none, description: Records are read by people as they are.}
  idempotent: {support: full, description: An equal state is not recorded twice.}
"""

EXAMPLES = r"""
- name: Record the present state
  rockiln.host.rockiln_state:
    path: /etc/rockiln/state
    action: begin
    release: 7.2.4
"""

RETURN = r"""
pointer:
  description: C(current), C(previous), C(upgrade) under way, last C(failure).
  returned: always
  type: dict
present:
  description: What is here now, as a record would have it; null where nothing is installed.
  returned: always
  type: dict
target:
  description: >-
    For C(read), the record to go back to, null when the host is already as it says or has none.
  returned: always
  type: dict
target_problem:
  description: Why there is none.
  returned: always
  type: str
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    find_client,
    run_command,
)
from ansible_collections.rockiln.host.plugins.module_utils._state import StateDir, StateError

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "action": {
        "type": "str",
        "choices": ["read", "begin", "finish", "went_back"],
        "default": "read",
    },
    "release": {"type": "str", "default": ""},
    "number": {"type": "int", "default": 0},
    "reason": {"type": "str", "default": ""},
    "by_hand": {"type": "bool", "default": False},
    "host_facts": {"type": "path", "default": "/etc/rockiln/public/host.json"},
    "files": {"type": "list", "elements": "path", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "containers": {"type": "dict", "default": {}},
}


def package_versions(names: list[str]) -> dict[str, str]:
    """Installed ones of these packages."""
    if not names:
        return {}
    form = "${Package} ${Version} ${db:Status-Status}\\n"
    shown = run_command(["dpkg-query", "--show", "--showformat", form, *names])
    rows = [line.split() for line in shown.output.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}  # noqa: PLR2004


def running_images(containers: dict[str, str]) -> dict[str, dict[str, str]]:
    """Tag and digest of the image that each part's container was made of."""
    client = find_client()
    if client is None:
        return {}
    found = {}
    for part, name in containers.items():
        done = Engine(client.path).call(
            "container", "inspect", "--format", "{{.Config.Image}} {{.Image}}", name
        )
        if done.code == 0:
            tag, digest = done.output.split()
            found[part] = {"tag": tag, "digest": digest}
    return found


def present_state(parameters: dict[str, Any]) -> dict[str, Any] | None:
    path = Path(parameters["host_facts"])
    if not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    return {
        "release": facts["release"],
        "row": facts.get("row"),
        "images": {**facts["images"], **running_images(parameters["containers"])},
        "packages": package_versions(parameters["packages"]),
        "files": {
            name: Path(name).read_text(encoding="utf-8")
            for name in parameters["files"]
            if Path(name).is_file()
        },
    }


def act(state: StateDir, parameters: dict[str, Any], present: dict[str, Any] | None) -> bool:
    action = parameters["action"]
    if action == "went_back":
        return state.went_back(
            parameters["number"], reason=parameters["reason"], by_hand=parameters["by_hand"]
        )
    if present is None:
        raise StateError("nothing is installed here; next: ansible/playbooks/site.yml")
    if action == "begin":
        return state.begin(present, release=parameters["release"])
    return state.finish(present)


def rehearse(state: StateDir, parameters: dict[str, Any], present: dict[str, Any] | None) -> bool:
    """The same on a copy of the records."""
    with tempfile.TemporaryDirectory(prefix="rockiln-state-") as folder:
        for path in state.folder.glob("*.json"):
            (Path(folder) / path.name).write_bytes(path.read_bytes())
        return act(StateDir(Path(folder)), parameters, present)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    state = StateDir(Path(module.params["path"]))
    changed, target, problem = False, None, ""
    try:
        present = present_state(module.params)
        if module.params["action"] != "read":
            changed = (rehearse if module.check_mode else act)(state, module.params, present)
        pointer = state.pointer()
    except (StateError, OSError, ValueError, KeyError) as error:
        module.fail_json(msg=str(error))
    try:
        if module.params["action"] == "read":
            target = state.target(module.params["number"] or None)
    except StateError as error:
        problem = str(error)
    module.exit_json(
        changed=changed, pointer=pointer, present=present, target=target, target_problem=problem
    )


if __name__ == "__main__":
    main()

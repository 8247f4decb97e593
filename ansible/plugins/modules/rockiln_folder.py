#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""A folder of the checkout, copied on the host in one step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_folder
short_description: Keep the files of a folder equal to those of another on the same host
description:
  - Compares contents, owner and mode of every file in one step, where C(copy) takes one for each.
  - Files that are only in O(dest) stay.
author: The rockiln authors
options:
  src:
    description: The folder whose files are wanted.
    type: path
    required: true
  dest:
    description: The folder that gets them.
    type: path
    required: true
  uid:
    description: Owner of what is copied.
    type: int
    required: true
  gid:
    description: Group of what is copied.
    type: int
    required: true
attributes:
  check_mode: {support: full, description: Contents are compared.}
  diff_mode: {support: full, description: Names the files that differ.}
  idempotent: {support: full, description: Equal files are not touched.}
"""

EXAMPLES = r"""
- name: Install the demo model
  rockiln.host.rockiln_folder:
    src: /opt/src/rockiln/service/models
    dest: /var/lib/rockiln/models
    uid: 10001
    gid: 10001
"""

RETURN = r"""
differing:
  description: Files that were, or would be, copied.
  returned: always
  type: list
  elements: str
"""

import os
import shutil
from filecmp import cmp
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

FILE_MODE = 0o644
FOLDER_MODE = 0o755


def is_equal(source: Path, target: Path, owner: tuple[int, int]) -> bool:
    if not target.is_file():
        return False
    state = target.stat()
    return (
        (state.st_uid, state.st_gid) == owner
        and state.st_mode & 0o7777 == FILE_MODE
        and cmp(source, target, shallow=False)
    )


def install(source: Path, target: Path, dest: Path, owner: tuple[int, int]) -> None:
    """Whole or not at all, and missing folders with it."""
    for folder in reversed([parent for parent in target.parents if parent.is_relative_to(dest)]):
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER_MODE)
            os.chown(folder, *owner)
    temporary = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, temporary)
    os.chown(temporary, *owner)
    temporary.chmod(FILE_MODE)
    temporary.replace(target)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    source, dest = Path(module.params["src"]), Path(module.params["dest"])
    owner = (module.params["uid"], module.params["gid"])
    try:
        if not source.is_dir():
            raise FileNotFoundError(f"{source} is no folder of this host")
        names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
        differing = [name for name in names if not is_equal(source / name, dest / name, owner)]
        for name in differing if not module.check_mode else ():
            install(source / name, dest / name, dest, owner)
    except OSError as error:
        module.fail_json(msg=f"cannot copy {source} to {dest}: {error}")
    module.exit_json(
        changed=bool(differing),
        differing=[str(name) for name in differing],
        diff={"before": "", "after": "".join(f"{name}\n" for name in differing)},
    )


if __name__ == "__main__":
    main()

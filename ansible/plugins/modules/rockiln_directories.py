#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Directories of a host that are owned alike."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_directories
short_description: Make directories that are owned alike, in one step
description:
  - What M(ansible.builtin.file) does to one directory, which as a loop starts a process for each.
author: The rockiln authors
options:
  paths:
    description: The directories; a parent stands before what is in it.
    type: list
    elements: path
    required: true
  owner:
    description: Their owner, a name or a number.
    type: str
    default: root
  group:
    description: Their group, a name or a number.
    type: str
    default: root
  mode:
    description: Their permissions, octal.
    type: str
    default: "0755"
attributes:
  check_mode: {support: full, description: Tells which would be made or changed.}
  diff_mode: {support: full, description: Names them.}
  idempotent: {support: full, description: A directory that is so is not touched.}
"""

EXAMPLES = r"""
- name: Make the folders of the service
  rockiln.host.rockiln_directories:
    paths: [/var/lib/rockiln/store, /var/lib/rockiln/models]
    owner: "10001"
    group: "10001"
    mode: "0750"
"""

RETURN = r"""
differing:
  description: Directories that were, or would be, made or changed.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def make_present(module: AnsibleModule, path: Path) -> bool:
    """Whether it was, or would be, changed."""
    made = not path.is_dir()
    if made and module.check_mode:
        return True
    if made:
        path.mkdir(parents=True)
    attributes = module.load_file_common_arguments(module.params, path=str(path))
    changed: bool = module.set_fs_attributes_if_different(attributes, made)
    return changed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0755"},
        },
        supports_check_mode=True,
    )
    try:
        differing = [path for path in module.params["paths"] if make_present(module, Path(path))]
    except OSError as error:
        module.fail_json(msg=f"cannot make a directory: {error}")
    module.exit_json(
        changed=bool(differing),
        differing=differing,
        diff={"before": "", "after": "".join(f"{path}\n" for path in differing)},
    )


if __name__ == "__main__":
    main()

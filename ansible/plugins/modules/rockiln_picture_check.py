#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Look at a picture that an upgrade made."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_picture_check
short_description: Fail when a PNG is not a picture of the wanted size, made by the wanted torch
description:
  - Reads the PNG with the host's own Python. A picture that is black, white, flat or noise, of
    another size, or whose record names another torch, is a failure that says which.
author: The rockiln authors
options:
  path:
    description: The PNG.
    type: path
    required: true
  width:
    description: Pixels.
    type: int
    required: true
  height:
    description: Pixels.
    type: int
    required: true
  torch:
    description: The version that its record must name; empty, any.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Look at the picture
  rockiln.host.rockiln_picture_check:
    path: /var/lib/rockiln/verify/picture.png
    width: 256
    height: 256
"""

RETURN = r"""
findings:
  description: What is wrong with it.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._picture import (
    PictureError,
    findings,
    read_png,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "width": {"type": "int", "required": True},
            "height": {"type": "int", "required": True},
            "torch": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    wanted = {name: module.params[name] for name in ("width", "height", "torch")}
    try:
        found = findings(read_png(Path(module.params["path"]).read_bytes()), **wanted)
    except (OSError, PictureError, ValueError) as error:
        found = [str(error)]
    if found:
        module.fail_json(
            msg=f"The picture {module.params['path']} is not one: {'; '.join(found)}.",
            findings=found,
        )
    module.exit_json(changed=False, findings=[])


if __name__ == "__main__":
    main()

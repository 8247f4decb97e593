#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Remove images of the service that nothing needs any more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_image_prune
short_description: Remove older images of the service
description:
  - An image's tag is the digest of its inputs, so every change of a checkout leaves one behind.
  - What a container uses, what O(keep) names, and the O(newest) ones of each name stay.
author: The rockiln authors
options:
  names:
    description: Names of images, without tag.
    type: list
    elements: str
    required: true
  keep:
    description: References that stay, such as those of a recorded state.
    type: list
    elements: str
    default: []
  newest:
    description: How many of each name stay in any case.
    type: int
    default: 2
attributes:
  check_mode: {support: full, description: Says what would go.}
  diff_mode: {support: full, description: Names what goes.}
  idempotent: {support: full, description: Nothing goes twice.}
"""

EXAMPLES = r"""
- name: Remove older images
  rockiln.host.rockiln_image_prune:
    names: [rockiln-api, rockiln-worker]
"""

RETURN = r"""
removed:
  description: References that went, or would go.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    EngineError,
    find_client,
)
from ansible_collections.rockiln.host.plugins.module_utils._image_prune import superfluous


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "newest": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    client = find_client()
    if client is None:
        module.exit_json(changed=False, removed=[])
        return
    engine = Engine(client.path)
    try:
        removed = superfluous(
            engine,
            module.params["names"],
            keep=set(module.params["keep"]),
            newest=module.params["newest"],
        )
        for reference in removed if not module.check_mode else ():
            done = engine.call("rmi", reference)
            if done.code != 0:
                raise EngineError(f"docker rmi {reference}: {done.errors.strip()}")
    except EngineError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(removed),
        removed=removed,
        diff={"before": "".join(f"{name}\n" for name in removed), "after": ""},
    )


if __name__ == "__main__":
    main()

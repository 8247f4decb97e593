#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""The bare Debian below the images of the service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_rootfs_image
short_description: Make the bare Debian image present, from a registry or by debootstrap
description:
  - O(source=registry) pulls by digest where one is known. Where no registry answers it changes
    nothing and returns RV(answered=false), so that the caller can go the other way and say so; a
    registry that refuses is an error.
  - O(source=debootstrap) makes it from a Debian mirror; no list and no mirror's name stays in the
    image.
author: The rockiln authors
options:
  suite:
    description: The Debian suite.
    type: str
    required: true
  image:
    description: The image of that suite in a registry.
    type: str
    required: true
  digest:
    description: Its digest; empty, the digest that the first pull shows is returned.
    type: str
    default: ""
  source:
    description: Where from.
    type: str
    choices: [registry, debootstrap]
    required: true
  apt_mirror:
    description: Debian mirror for debootstrap. Empty, the host's own, else Debian's.
    type: str
    default: ""
attributes:
  check_mode: {support: partial, description: Whether a registry would answer is not asked.}
  diff_mode: {support: full, description: Shows the reference that would appear.}
  idempotent: {support: full, description: An image that is there is not touched.}
"""

EXAMPLES = r"""
- name: Make the bare Debian from the host's mirror
  rockiln.host.rockiln_rootfs_image:
    suite: bookworm
    image: docker.io/library/debian
    source: debootstrap
"""

RETURN = r"""
reference:
  description: Its name in the engine.
  returned: always
  type: str
answered:
  description: Whether a registry answered; true for debootstrap.
  returned: always
  type: bool
digest:
  description: The registry's digest, after a pull.
  returned: always
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    EngineError,
    find_client,
)
from ansible_collections.rockiln.host.plugins.module_utils._image_build import mirrors_for
from ansible_collections.rockiln.host.plugins.module_utils._rootfs import (
    Rootfs,
    bootstrap_rootfs,
    pull_rootfs,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "suite": {"type": "str", "required": True},
    "image": {"type": "str", "required": True},
    "digest": {"type": "str", "default": ""},
    "source": {"type": "str", "choices": ["registry", "debootstrap"], "required": True},
    "apt_mirror": {"type": "str", "default": ""},
}


def make_present(engine: Engine, rootfs: Rootfs, parameters: dict[str, Any]) -> dict[str, Any]:
    if parameters["source"] == "debootstrap":
        mirrors = mirrors_for(rootfs.suite, archive=parameters["apt_mirror"], security="")
        bootstrap_rootfs(engine, rootfs, mirrors.archive)
        return {"changed": True}
    digest = pull_rootfs(engine, rootfs)
    return {"changed": digest is not None, "answered": digest is not None, "digest": digest or ""}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    parameters = module.params
    rootfs = Rootfs(
        suite=parameters["suite"], image=parameters["image"], digest=parameters["digest"]
    )
    result: dict[str, Any] = {
        "changed": False,
        "reference": rootfs.reference,
        "answered": True,
        "digest": "",
    }
    try:
        client = find_client()
        engine = Engine(client.path) if client else None
        absent = engine is None or engine.inspect_image(rootfs.reference) is None
        if absent and not module.check_mode:
            if engine is None:
                raise EngineError("no container engine answers")
            result.update(make_present(engine, rootfs, parameters))
        elif absent:
            result["changed"] = True
    except (EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    if result["changed"]:
        result["diff"] = {"before": "", "after": f"{rootfs.reference}\n"}
    module.exit_json(**result)


if __name__ == "__main__":
    main()

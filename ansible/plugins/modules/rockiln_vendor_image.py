#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""The vendor's image below a ROCm worker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_vendor_image
short_description: Make the vendor's image present, by digest where one is known
description:
  - An image that is there under the wanted name is taken. Else it is pulled.
  - Where no digest is known yet, the registry's is returned, for the site's lock.
author: The rockiln authors
options:
  repository:
    description: The image without tag.
    type: str
    required: true
  tag:
    description: Its tag, used while no digest is known.
    type: str
    required: true
  digest:
    description: sha256:…, or empty.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Says whether it would be pulled.}
  diff_mode: {support: none, description: The reference says it.}
  idempotent: {support: full, description: An image that is there is not touched.}
"""

EXAMPLES = r"""
- name: Make AMD's image present
  rockiln.host.rockiln_vendor_image:
    repository: docker.io/rocm/pytorch
    tag: latest
"""

RETURN = r"""
reference:
  description: The name that was looked for.
  returned: always
  type: str
digest:
  description: Its digest in the registry that it came from; empty for one from an archive.
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
from ansible_collections.rockiln.host.plugins.module_utils._rootfs import registry_is_silent

SILENT = (
    "check the network; without one, load a bundle that was made where there is one "
    "(--make-bundle, --offline)"
)
REFUSED = (
    "look for it on the registry's page. A digest is the row's, or the site's from the first "
    "pull: without its line in rockiln.lock.yml (beside the inventory) the tag is locked anew"
)


def make_present(engine: Engine, reference: str, *, may_pull: bool) -> dict[str, Any]:
    """The module's answer."""
    found = engine.inspect_image(reference)
    changed = found is None
    if changed and may_pull:
        done = engine.call("pull", "--quiet", reference)
        if done.code != 0:
            raise EngineError(
                f"docker pull {reference}: {done.errors.strip()}. "
                f"Next: {SILENT if registry_is_silent(done.errors) else REFUSED}"
            )
        found = engine.inspect_image(reference)
    digests = (found or {}).get("RepoDigests") or []
    digest = next((name.partition("@")[2] for name in digests), "")
    return {"changed": changed, "reference": reference, "digest": digest}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "str", "required": True},
            "tag": {"type": "str", "required": True},
            "digest": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    suffix = f"@{given['digest']}" if given["digest"] else f":{given['tag']}"
    client = find_client()
    try:
        if client is None:
            raise EngineError("no container engine answers; next: service docker start")
        result = make_present(
            Engine(client.path), given["repository"] + suffix, may_pull=not module.check_mode
        )
    except EngineError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Which container engine answers, and with which client to talk to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_engine_facts
short_description: Find the container engine and the client that can build with it
description:
  - Asks every C(docker) on the PATH and in the well-known places, and picks the client that reaches
    a daemon and can build (BuildKit of its own, or the buildx plug-in), preferring the one of the
    daemon's own version.
  - An engine that is not there is not an error.
author: The rockiln authors
options:
  containers:
    description: Names of containers that are looked for.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Find the container engine
  rockiln.host.rockiln_engine_facts:
"""

RETURN = r"""
ansible_facts:
  description: Facts to add.
  returned: always
  type: dict
  contains:
    rockiln_engine:
      description: >-
        RV(ansible_facts.rockiln_engine.answers), and where it does, path, versions, BuildKit and
        cgroups; C(existing_containers) and C(running_containers), those of O(containers) that are
        there and that run; C(installed_packages), those of an engine that dpkg has.
      type: dict
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Client,
    Engine,
    EngineError,
    find_client,
    run_command,
)

ENGINE_PACKAGES = ("docker.io", "docker-ce", "moby-engine")


def installed_packages() -> list[str]:
    """Packages of an engine that dpkg has."""
    done = run_command(
        [
            "dpkg-query",
            "--show",
            "--showformat",
            "${Package} ${db:Status-Status}\\n",
            *ENGINE_PACKAGES,
        ]
    )
    return [line.split()[0] for line in done.output.splitlines() if line.endswith(" installed")]


def engine_facts(client: Client | None, containers: list[str]) -> dict[str, object]:
    if client is None:
        return {
            "answers": False,
            "existing_containers": [],
            "running_containers": [],
            "installed_packages": installed_packages(),
        }
    values = dataclasses.asdict(client)
    engine = Engine(client.path)
    statuses = {name: engine.container_status(name) for name in containers}
    return {
        "answers": True,
        "client_path": values.pop("path"),
        **values,
        "installed_packages": installed_packages(),
        "existing_containers": [name for name, status in statuses.items() if status is not None],
        "running_containers": [name for name, status in statuses.items() if status == "running"],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={"containers": {"type": "list", "elements": "str", "default": []}},
        supports_check_mode=True,
    )
    try:
        facts = engine_facts(find_client(), module.params["containers"])
    except EngineError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, ansible_facts={"rockiln_engine": facts})


if __name__ == "__main__":
    main()

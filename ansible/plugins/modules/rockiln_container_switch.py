#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Settle which of two containers of the api stays."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_container_switch
short_description: Let the api that the proxy sends requests to be the only one, under its one name
description:
  - Where the proxy's configuration names the generation of O(following), O(current) is stopped and
    removed and O(following) takes its name. Where it does not, O(following) is what an interrupted
    run left behind and goes.
  - One that has no O(current) beside it takes its name in any case.
author: The rockiln authors
options:
  current:
    description: The name that stays.
    type: str
    required: true
  following:
    description: The name of one that was started beside it.
    type: str
    required: true
  config:
    description: The proxy's configuration.
    type: path
    required: true
  stop_seconds:
    description: How long the one that goes may take to stop.
    type: int
    default: 30
attributes:
  check_mode: {support: full, description: Says whether something would be done.}
  diff_mode: {support: full, description: Shows the generations.}
  idempotent: {support: full, description: A single container is not touched.}
"""

EXAMPLES = r"""
- name: Let the old api go
  rockiln.host.rockiln_container_switch:
    current: rockiln-api
    following: rockiln-api-next
    config: /etc/rockiln/proxy/nginx.conf
"""

RETURN = r"""
decision:
  description: C(nothing), C(remove_next) or C(replace).
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._api_switch import (
    decide,
    generation_in,
    generation_of,
    settle,
)
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    EngineError,
    find_client,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "current": {"type": "str", "required": True},
            "following": {"type": "str", "required": True},
            "config": {"type": "path", "required": True},
            "stop_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    current, following = module.params["current"], module.params["following"]
    config = Path(module.params["config"])
    client = find_client()
    if client is None:
        module.exit_json(changed=False, decision="nothing")
        return
    engine = Engine(client.path)
    try:
        named = generation_in(config.read_text(encoding="utf-8")) if config.is_file() else ""
        before = {name: generation_of(engine, name) for name in (current, following)}
        decision = decide(current=before[current], following=before[following], named=named)
        if not module.check_mode:
            settle(
                engine,
                decision,
                current=current,
                following=following,
                stop_seconds=module.params["stop_seconds"],
            )
    except (EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=decision != "nothing",
        decision=decision,
        diff={"before": f"{before}\n", "after": f"{named}\n"} if decision != "nothing" else {},
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Let a new proxy take the published ports over from the old one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_proxy_switch
short_description: Let the proxy that was started beside the old one take its ports and its name
description:
  - O(following) runs and is not on O(network), the one that brings the ports. O(current) is
    stopped, O(following) joins the network as soon as the ports are free, and gets the name.
  - Where it cannot have them, O(following) is removed and O(current) serves as before.
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
  network:
    description: The network that brings the published ports.
    type: str
    required: true
  addresses:
    description:
      - Where they are published, IP:PORT. Empty, an interrupted switch is finished and none begun.
    type: list
    elements: str
    default: []
  stop_seconds:
    description: How long the one that goes may take to stop.
    type: int
    default: 10
attributes:
  check_mode: {support: full, description: Says whether something would be done.}
  diff_mode: {support: none}
  idempotent: {support: full, description: A single container is not touched.}
"""

EXAMPLES = r"""
- name: Hand the ports over
  rockiln.host.rockiln_proxy_switch:
    current: rockiln-proxy
    following: rockiln-proxy-next
    network: rockiln-published
    addresses: [127.0.0.1:8000]
"""

RETURN = r"""
changed:
  description: Whether the ports or the name changed hands.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    EngineError,
    find_client,
)
from ansible_collections.rockiln.host.plugins.module_utils._proxy_switch import (
    finish,
    hand_over,
    inspect,
    took_over,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "current": {"type": "str", "required": True},
            "following": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "stop_seconds": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    addresses = module.params["addresses"]
    pair = {name: module.params[name] for name in ("current", "following", "network")}
    client = find_client()
    if client is None:
        module.exit_json(changed=False)
        return
    engine = Engine(client.path)
    try:
        if module.check_mode:
            old, new = inspect(engine, pair["current"]), inspect(engine, pair["following"])
            module.exit_json(changed=bool(addresses) or took_over(old, new, pair["network"]))
            return
        if addresses:
            hand_over(
                engine, **pair, addresses=addresses, stop_seconds=module.params["stop_seconds"]
            )
        module.exit_json(changed=bool(addresses) or finish(engine, **pair))
    except (EngineError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

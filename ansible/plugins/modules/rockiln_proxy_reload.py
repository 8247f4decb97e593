#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Have the proxy run with the configuration that is on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_proxy_reload
short_description: Reload nginx when it runs with another configuration than the file's
description:
  - nginx answers a digest of its configuration on a page of its own; a reload is needed where that
    is not the file's. So a reload that an interrupted run still owed is made up for.
  - Returns when nobody is served by the configuration of before, and lets every request finish.
  - A proxy that does not run needs no reload.
author: The rockiln authors
options:
  container:
    description: Name of the proxy's container.
    type: str
    required: true
  config:
    description: The configuration; the same path on the host and in the container.
    type: path
    required: true
  drain_seconds:
    description: How long requests of before may take.
    type: int
    default: 180
attributes:
  check_mode: {support: full, description: The digests are compared.}
  diff_mode: {support: full, description: Shows the digests.}
  idempotent: {support: full, description: An equal configuration is not loaded again.}
"""

EXAMPLES = r"""
- name: Reload the proxy
  rockiln.host.rockiln_proxy_reload:
    container: rockiln-proxy
    config: /etc/rockiln/proxy/nginx.conf
"""

RETURN = r"""
loaded:
  description: Digest that nginx ran with before; empty where it does not run.
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._api_switch import Proxy
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    EngineError,
    find_client,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "config": {"type": "path", "required": True},
            "drain_seconds": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    name, config = module.params["container"], Path(module.params["config"])
    client = find_client()
    if client is None or not config.is_file():
        module.exit_json(changed=False, loaded="")
        return
    engine = Engine(client.path)
    proxy = Proxy(engine, name, config)
    try:
        if engine.container_status(name) != "running":
            module.exit_json(changed=False, loaded="")
            return
        loaded, wanted = proxy.loaded(), proxy.wanted()
        if not module.check_mode:
            proxy.reload(seconds=module.params["drain_seconds"])
    except (EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=loaded != wanted,
        loaded=loaded,
        diff={"before": f"{loaded}\n", "after": f"{wanted}\n"},
    )


if __name__ == "__main__":
    main()

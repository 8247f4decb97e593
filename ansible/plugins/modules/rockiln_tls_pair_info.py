#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Whether a certificate and a key can be served."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_tls_pair_info
short_description: Judge a certificate and its key
description:
  - Serves the certificate to a client in memory. Fails where that cannot be, and says why.
  - Reads only. Whether clients trust who signed it is not asked.
author: The rockiln authors
options:
  certificate:
    description: The certificate with those between it and its root, in PEM form.
    type: path
    required: true
  key:
    description: Its key, in PEM form, not encrypted.
    type: path
    required: true
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
  idempotent: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Look at the certificate
  rockiln.host.rockiln_tls_pair_info:
    certificate: /etc/ssl/kiln.pem
    key: /etc/ssl/private/kiln.key
"""

RETURN = r"""
names:
  description: DNS names and addresses that the certificate is for.
  returned: success
  type: list
  elements: str
not_after:
  description: When it expires, GMT.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._tls_pair import TlsPairError, judge


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        found = judge(Path(module.params["certificate"]), Path(module.params["key"]))
    except TlsPairError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()

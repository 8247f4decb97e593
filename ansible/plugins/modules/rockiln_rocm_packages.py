#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""The vendor's packages of a release, exactly, with the source and the pin that they need."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_rocm_packages
short_description: Make a host's ROCm packages equal to a row of the catalogue
description:
  - Fetches the vendor's key and compares its fingerprint, asks apt in a root of its own whether the
    sources are signed by it, what they hold and what an install would do, and only then changes
    the host, in one transaction - keys, sources, pin, packages, holds.
  - Every refusal comes before the first change and names the cause and the command that helps.
  - A host that already is as wanted is not asked for a network.
  - Going from one release to another, up or down, is a call with the other release's values.
author: The rockiln authors
options:
  state:
    description: V(absent) removes what earlier calls put on the host.
    type: str
    choices: [present, absent]
    default: present
  release:
    description: The row's key; it stands in the record.
    type: str
    default: ""
  packages:
    description: Version by name. Without a version the newest of the signed index is taken.
    type: dict
    default: {}
  keys:
    description: Keys to fetch, each with C(path) on the host, C(url) and C(fingerprint).
    type: list
    elements: dict
    default: []
  sources_path:
    description: The deb822 file with the sources.
    type: path
    default: /etc/apt/sources.list.d/rockiln-rocm.sources
  sources:
    description: Its text.
    type: str
    default: ""
  pin_path:
    description: The file with the pin.
    type: path
    default: /etc/apt/preferences.d/rocm-pin-600
  pin:
    description: Its text.
    type: str
    default: ""
  pin_priority:
    description: The priority that the wanted packages must get from it.
    type: int
    default: 600
  free_bytes:
    description: Space in /var that must remain beside what the packages need.
    type: int
    default: 268435456
  lock_wait_seconds:
    description: How long to wait for another apt or dpkg.
    type: int
    default: 60
  record_path:
    description: Where it is written down what was put on the host.
    type: path
    default: /var/lib/rockiln-host/packages.json
attributes:
  check_mode: {support: full, description: The sources are read in a scratch folder.}
  diff_mode: {support: full, description: Shows keys, sources, pin, packages and holds.}
  idempotent: {support: full, description: An equal host is not touched and asks no network.}
"""

EXAMPLES = r"""
- name: Install rocminfo of ROCm 6.4.2
  rockiln.host.rockiln_rocm_packages:
    release: 6.4.2
    packages: {rocminfo: 1.0.0.60402-120~22.04}
    keys:
      - path: /etc/apt/keyrings/rockiln-rocm.gpg
        url: https://repo.radeon.com/rocm/rocm.gpg.key
        fingerprint: CA8BB4727A47B4D09B4EE8969386B48A1A693C5C
    sources: |
      Types: deb
      URIs: https://repo.radeon.com/rocm/apt/6.4.2
      Suites: jammy
      Components: main
      Signed-By: /etc/apt/keyrings/rockiln-rocm.gpg
    pin: |
      Package: *
      Pin: release o=repo.radeon.com
      Pin-Priority: 600
"""

RETURN = r"""
packages:
  description: Every package of the vendor that belongs to the release, version by name.
  returned: always
  type: dict
wanted:
  description: Those that were asked for, with the versions that were found.
  returned: always
  type: dict
changes:
  description: Packages that change or come, new version by name.
  returned: always
  type: dict
removals:
  description: Packages that go.
  returned: always
  type: list
  elements: str
shadows:
  description: Packages of the distribution under the vendor's names that are replaced or removed.
  returned: always
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._apt import AptError
from ansible_collections.rockiln.host.plugins.module_utils._openpgp import KeyFileError
from ansible_collections.rockiln.host.plugins.module_utils._rocm_host import RocmHost, Wish
from ansible_collections.rockiln.host.plugins.module_utils._rocm_packages import RefusedError

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "release": {"type": "str", "default": ""},
    "packages": {"type": "dict", "default": {}},
    "keys": {"type": "list", "elements": "dict", "default": []},
    "sources_path": {"type": "path", "default": "/etc/apt/sources.list.d/rockiln-rocm.sources"},
    "sources": {"type": "str", "default": ""},
    "pin_path": {"type": "path", "default": "/etc/apt/preferences.d/rocm-pin-600"},
    "pin": {"type": "str", "default": ""},
    "pin_priority": {"type": "int", "default": 600},
    "free_bytes": {"type": "int", "default": 268435456},
    "lock_wait_seconds": {"type": "int", "default": 60},
    "record_path": {"type": "path", "default": "/var/lib/rockiln-host/packages.json"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    parameters = dict(module.params)
    state = parameters.pop("state")
    try:
        host = RocmHost(Wish.from_parameters(parameters))
        if state == "absent":
            result = host.make_absent(pretend=module.check_mode)
        else:
            result = host.make_present(pretend=module.check_mode)
    except (AptError, RefusedError, KeyFileError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

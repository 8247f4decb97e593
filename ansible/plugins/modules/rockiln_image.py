#!/usr/bin/python
# ruff: noqa: E402 (documentation comes first, as Ansible wants it)
"""Images of the service, as their inputs say."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rockiln_image
short_description: Make images of the service present, by load or by build
description:
  - An image's tag is the digest of its inputs, so whether it must be made is known without a build.
  - A missing image is loaded from an archive that carries it, else built on its parent, which is
    made first.
  - The host's pip and apt settings, CA bundle and wheel folders are given to the build as secrets
    and stay in no layer.
author: The rockiln authors
options:
  names:
    description: Names of the wanted images in O(images).
    type: list
    elements: str
    required: true
  images:
    description: The table of images; a parent stands before its children.
    type: list
    elements: dict
    required: true
  context:
    description: The tree that the inputs are relative to.
    type: path
    required: true
  rootfs_suite:
    description: The Debian suite below every image.
    type: str
    required: true
  rootfs_digest:
    description: Its digest where the catalogue pins one; it enters the digest of the inputs.
    type: str
    default: ""
  torch_index_url:
    description: The one index that torch comes from.
    type: str
    required: true
  apt_mirror:
    description: Debian mirror for the builds. Empty, the host's own, else Debian's.
    type: str
    default: ""
  apt_security_mirror:
    description: The same for security updates.
    type: str
    default: ""
  archives:
    description: Archives made by C(docker save) that may carry the image.
    type: list
    elements: path
    default: []
  refresh:
    description: Any text; a new one builds anew with today's packages of the suite.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: The wanted reference is computed from the inputs.}
  diff_mode: {support: full, description: Shows which inputs changed.}
  idempotent: {support: full, description: An image that is there is not touched.}
"""

EXAMPLES = r"""
- name: Make the front present
  rockiln.host.rockiln_image:
    names: [rockiln-proxy, rockiln-api]
    images: "{{ inference_image_table }}"
    context: /opt/src/rockiln
    rootfs_suite: bookworm
    torch_index_url: https://download.pytorch.org/whl/cpu
"""

RETURN = r"""
built:
  description: >-
    For each of O(names), in their order, C(tag), name and tag, the tag being the beginning of the
    inputs' digest, and C(digest), the engine's digest of the image's configuration, empty in check
    mode before the image is there.
  returned: always
  type: list
  elements: dict
build_required:
  description: Tags of those that are neither there nor in an archive.
  returned: always
  type: list
  elements: str
actions:
  description: What was done, in words.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Client,
    EngineError,
    find_client,
)
from ansible_collections.rockiln.host.plugins.module_utils._image_build import (
    Builder,
    Torch,
    archived_references,
    mirrors_for,
)
from ansible_collections.rockiln.host.plugins.module_utils._image_plan import (
    ImagePlanError,
    PlannedImage,
    diff_text,
    plan_images,
    table_of_labels,
)
from ansible_collections.rockiln.host.plugins.module_utils._rootfs import Rootfs

ARGUMENTS: dict[str, dict[str, Any]] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "images": {"type": "list", "elements": "dict", "required": True},
    "context": {"type": "path", "required": True},
    "rootfs_suite": {"type": "str", "required": True},
    "rootfs_digest": {"type": "str", "default": ""},
    "torch_index_url": {"type": "str", "required": True},
    "apt_mirror": {"type": "str", "default": ""},
    "apt_security_mirror": {"type": "str", "default": ""},
    "archives": {"type": "list", "elements": "path", "default": []},
    "refresh": {"type": "str", "default": ""},
}


def newest_of_name(builder: Builder, image: PlannedImage) -> tuple[str, dict[str, str]]:
    """The newest image of this name that is there, for the diff's left side."""
    listed = builder.engine.call("images", "--format", "{{.Repository}}:{{.Tag}}", image.spec.name)
    references = listed.output.split()
    if not references:
        return "", {}
    inspected = builder.engine.inspect_image(references[0]) or {}
    return references[0], table_of_labels(inspected.get("Config", {}).get("Labels"))


def plan(parameters: dict[str, Any]) -> dict[str, PlannedImage]:
    return plan_images(
        Path(parameters["context"]),
        parameters["images"],
        rootfs_key=parameters["rootfs_digest"] or parameters["rootfs_suite"],
        refresh=parameters["refresh"],
    )


def make_builder(
    parameters: dict[str, Any], client: Client, planned: dict[str, PlannedImage]
) -> Builder:
    rootfs = Rootfs(suite=parameters["rootfs_suite"], image="", digest=parameters["rootfs_digest"])
    return Builder(
        client=client,
        context=Path(parameters["context"]),
        planned=planned,
        rootfs=rootfs,
        torch=Torch(index_url=parameters["torch_index_url"]),
        apt_mirrors=mirrors_for(
            rootfs.suite,
            archive=parameters["apt_mirror"],
            security=parameters["apt_security_mirror"],
        ),
        archives=[Path(path) for path in parameters["archives"]],
    )


def make_present(
    module: AnsibleModule, wanted: list[PlannedImage], planned: dict[str, PlannedImage]
) -> dict[str, Any]:
    """The module's answer; nothing is made in check mode."""
    client = find_client()
    if client is None:
        if not module.check_mode:
            raise EngineError(
                "no container engine answers; "
                "next: service docker start, or apt-get install docker.io"
            )
        archived = set().union(*(archived_references(Path(p)) for p in module.params["archives"]))
        return {
            "changed": True,
            "actions": [],
            "build_required": [each.reference for each in wanted if each.reference not in archived],
            "built": [{"tag": each.reference, "digest": ""} for each in wanted],
            "diff": [difference(each, ("", {})) for each in wanted],
        }
    builder = make_builder(module.params, client, planned)
    missing = [each for each in wanted if not builder.is_present(each.spec.name)]
    answer = {
        "changed": bool(missing),
        "actions": builder.actions,
        "build_required": [
            each.reference for each in missing if builder.archive_with(each.spec.name) is None
        ],
        "diff": [difference(each, newest_of_name(builder, each)) for each in missing],
    }
    if not module.check_mode:
        for each in missing:
            builder.ensure(each.spec.name)
    found = [builder.engine.inspect_image(each.reference) or {} for each in wanted]
    answer["built"] = [
        {"tag": each.reference, "digest": str(image.get("Id", ""))}
        for each, image in zip(wanted, found, strict=True)
    ]
    return answer


def difference(image: PlannedImage, before: tuple[str, dict[str, str]]) -> dict[str, str]:
    """What an image is made of, against the newest one of its name."""
    return {
        "before_header": before[0] or "absent",
        "after_header": image.reference,
        "before": diff_text(*before) if before[0] else "",
        "after": diff_text(image.reference, image.table),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    names = module.params["names"]
    try:
        planned = plan(module.params)
        for name in names:
            if name not in planned:
                raise ImagePlanError(f"{name} is not in the table of images")
        result = make_present(module, [planned[name] for name in names], planned)
    except (EngineError, ImagePlanError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

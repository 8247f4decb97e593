"""Images by digest, and the site's lock: written at the first pull, enforced from then on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.plays import HERE, ROOT, run_play
from support.registry import Registry

pytestmark = pytest.mark.docker
DOCKER = "/usr/bin/docker"
PLAY = """\
- name: Get the images below ours
  hosts: rockiln
  gather_facts: true
  gather_subset: [min]
  roles: [role: rocm_catalogue]
  tasks:
    - name: Get them
      ansible.builtin.include_role: {name: inference_image, tasks_from: "{{ item }}"}
      loop: "{{ wanted }}"
"""


def docker(*words: str) -> str:
    return subprocess.run([DOCKER, *words], capture_output=True, text=True, check=False).stdout


def held(reference: str) -> str:
    """The id of a local image; empty where there is none."""
    return docker("image", "inspect", "--format", "{{.Id}}", reference).strip()


class Site:
    """A row that names no digest, a registry that has its image, and the site's own lock."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry = folder, registry
        self.repository = f"{registry.address}/rocm/pytorch"
        self.debian = f"{registry.address}/debian"
        releases: dict[str, Any] = yaml.safe_load(
            (ROOT / "tests/fixtures/catalogue/releases.yml").read_text()
        )["rocm_catalogue_releases"]
        self.row = releases["7.2.4"] | {
            "image": {"repository": self.repository, "tag": "latest", "digest": None},
            "rootfs": {"suite": "fixture", "image": self.debian, "digest": None},
        }
        (folder / "play.yml").write_text(PLAY)
        (folder / "hosts.yml").write_text(json.dumps({"rockiln": {"hosts": {"here": HERE}}}))

    def get(self, *tasks: str, digest: str | None = None) -> tuple[int, str]:
        """One run, on an engine that has none of the images."""
        self.clean()
        row = self.row | {"image": self.row["image"] | {"digest": digest}}
        words = {
            "wanted": tasks,
            "rocm_catalogue_release": "7.2.4",
            "rocm_catalogue_releases": {"7.2.4": row},
            "inference_image_rootfs_source": "registry",
        }
        inventory = str(self.folder / "hosts.yml")
        return run_play(self.folder / "play.yml", "-i", inventory, "-e", json.dumps(words))

    def clean(self) -> None:
        for repository in (self.repository, self.debian, "rockiln-rootfs"):
            names = docker("images", "--digests", "--format", "{{.Tag}} {{.Digest}}", repository)
            for tag, digest in map(str.split, names.splitlines()):
                if repository != "rockiln-rootfs" or tag == "fixture":
                    docker(
                        "rmi",
                        f"{repository}:{tag}" if tag != "<none>" else f"{repository}@{digest}",
                    )

    def lock(self) -> dict[str, Any]:
        text = (self.folder / "rockiln.lock.yml").read_text()
        found: dict[str, Any] = yaml.safe_load(text)["rocm_catalogue_lock"]
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Registry() as registry:
        made = Site(tmp_path, registry)
        yield made
        made.clean()


def test_digest_of_the_first_pull_is_locked_and_enforced(site: Site) -> None:
    first = site.registry.put("latest", "ROCm as it was")
    debian = site.registry.put("fixture-slim", "Debian as it was")
    code, said = site.get("vendor.yml", "rootfs.yml")
    assert code == 0, said
    locked = {"7.2.4": {"image": {"digest": first}, "rootfs": {"digest": debian}}}
    assert site.lock() == locked
    before = held(f"{site.repository}@{first}"), held("rockiln-rootfs:fixture")
    assert all(before)

    # The vendor moves its tags; the site gets what it locked.
    assert site.registry.put("latest", "another ROCm") != first
    site.registry.put("fixture-slim", "another Debian")
    code, said = site.get("vendor.yml", "rootfs.yml")
    assert code == 0, said
    assert (held(f"{site.repository}@{first}"), held("rockiln-rootfs:fixture")) == before
    assert not held(f"{site.repository}:latest")

    # And when the vendor has it no more, nothing else is taken for it.
    site.registry.forget(first)
    code, said = site.get("vendor.yml")
    assert code != 0
    assert first in said
    assert "rockiln.lock.yml" in said
    assert not docker("images", "--quiet", site.repository)
    assert site.lock() == locked


def test_another_image_under_a_pinned_digest_is_refused(site: Site) -> None:
    pinned = site.registry.put("latest", "ROCm")
    site.registry.answer_with(pinned, site.registry.put("other", "not ROCm"))
    code, said = site.get("vendor.yml", digest=pinned)
    assert code != 0
    assert "verification failed for digest" in said
    assert not docker("images", "--quiet", site.repository)
    assert not (site.folder / "rockiln.lock.yml").exists()

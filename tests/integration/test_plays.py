"""The playbooks as plays: hosts in turn, who is touched after a failure, what is refused first.

The playbooks are the real ones. For several hosts their roles are stand-ins that write down which
host they met, so that a plan for a whole site costs seconds; what the real roles do is Molecule's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.plays import HERE, ROOT, run_play

ROLES = ("rocm_catalogue", "preflight", "container_engine", "inference_image", "inference_service")
VERBS = ("state", "record", "drain", "align", "verify", "undrain", "prune", "go_back", "unfinished")
MEET = """\
- name: Break
  ansible.builtin.fail: {{msg: "{place} broke"}}
  when: broken == inventory_hostname ~ ' {place}'
- name: Meet
  ansible.builtin.debug: {{msg: "MET {{{{ inventory_hostname }}}} {place};"}}
"""
# As rockiln_state answers; an upgrade is under way once it was recorded.
STATE = """\
- name: Answer
  ansible.builtin.set_fact:
    __inference_service_state:
      present: {release: "2", images: {}, row: null}
      pointer: {upgrade: "{{ {'to': '3'} if recorded | default(false) else none }}", current: 2}
      target:
        release: "{{ '2' if recorded | default(false) else '1' }}"
        number: 1
        images: {}
        row: {backend: cpu}
      target_problem: ""
"""
# What the real role says when rocm_host_reboot is `required`.
REBOOT = """\
- name: Stop until somebody has rebooted
  ansible.builtin.fail: {msg: "Next: reboot, then run again."}
  when: broken == inventory_hostname ~ ' reboot'
"""
RECORD = """\
- name: Remember
  ansible.builtin.set_fact: {recorded: "{{ __inference_service_record_action == 'begin' }}"}
"""
DEFAULTS = {
    "rocm_catalogue_selected": "3",
    "rocm_catalogue_row": {"backend": "cpu"},
    "inference_image_built": {"worker": {"tag": "worker:3"}},
}
PLAYBOOKS = ROOT / "ansible/playbooks"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three hosts, all of them here, and stand-in roles."""
    for role in ROLES:
        tasks = tmp_path / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(MEET.format(place=role))
    for verb in VERBS:
        more = {"state": STATE, "record": RECORD, "align": REBOOT}.get(verb, "")
        (tasks / f"{verb}.yml").write_text(MEET.format(place=verb) + more)
    defaults = tmp_path / "roles/rocm_catalogue/defaults"
    defaults.mkdir()
    (defaults / "main.yml").write_text(json.dumps(DEFAULTS))
    hosts = {"rockiln": {"hosts": dict.fromkeys(("first", "second", "third"), HERE)}}
    (tmp_path / "hosts.yml").write_text(json.dumps(hosts))
    return tmp_path


def met(site: Path, playbook: str, *options: str, broken: str = "") -> tuple[str, list[list[str]]]:
    """What was said, and who met which stand-in, in turn. It fails where one is broken."""
    words = json.dumps({"broken": broken})
    code, said = run_play(
        PLAYBOOKS / f"{playbook}.yml",
        "-i",
        str(site / "hosts.yml"),
        "-e",
        words,
        *options,
        roles=site / "roles",
    )
    assert bool(code) == bool(broken), said
    return said, [found.split() for found in re.findall(r"MET (\S+ \S+);", said)]


def test_hosts_are_upgraded_one_after_the_other(site: Path) -> None:
    _, found = met(site, "upgrade")
    hosts = [host for host, _ in found]
    assert hosts == sorted(hosts)  # first, second, third
    pruned = [host for host, place in found if place == "prune"]
    assert pruned == ["first", "second", "third"]


@pytest.mark.parametrize("place", ["preflight", "record", "align", "verify"])
def test_upgrade_that_fails_stops_the_hosts_after_it(site: Path, place: str) -> None:
    """At every stage: nobody wants a site whose every host went down for the same reason."""
    said, found = met(site, "upgrade", broken=f"first {place}")
    assert {host for host, _ in found} == {"first"}
    assert f"{place} broke" in said
    # Before the record nothing has changed, and an older record is not what to go back to.
    assert (["first", "go_back"] in found) == (place in {"align", "verify"})
    assert ("was taken back: release 2" in said) == (place in {"align", "verify"})


def test_host_beside_the_failed_one_goes_on_and_those_after_it_are_left_alone(site: Path) -> None:
    """Two at a time. Stopped where it is, the one beside it would be left half upgraded."""
    said, found = met(site, "upgrade", "-e", "upgrade_serial=2", broken="first verify")
    assert found[-1] == ["first", "go_back"] or found[-1] == ["second", "prune"], said
    assert ["first", "go_back"] in found
    assert ["second", "prune"] in found
    assert ["second", "go_back"] not in found
    assert "third" not in {host for host, _ in found}
    said, found = met(site, "rollback", "-e", "rollback_serial=2", broken="first go_back")
    assert ["second", "go_back"] in found
    assert "third" not in {host for host, _ in found}


def test_upgrade_that_waits_for_a_reboot_is_not_taken_back(site: Path) -> None:
    """Taken back, it would wait for the same reboot again, for ever."""
    said, found = met(site, "upgrade", broken="first reboot")
    assert ["first", "go_back"] not in found
    assert "reboot, then run again. The upgrade goes on from there" in said
    assert {host for host, _ in found} == {"first"}


def test_rollback_that_fails_stops_the_hosts_after_it(site: Path) -> None:
    _, found = met(site, "rollback", broken="first go_back")
    assert {host for host, _ in found} == {"first"}


def test_site_stops_at_an_upgrade_that_was_left_unfinished(tmp_path: Path) -> None:
    """Before any change, with the command; a fresh host goes on. The roles are the real ones."""
    state = f"inference_service_state_dir={tmp_path}"
    options = ("-i", "inventories/local", "-e", state, "--tags", "only_what_is_always_done")
    _, said = run_play(PLAYBOOKS / "site.yml", *options)
    assert "TASK [preflight" in said, said
    upgrade = {"from": 1, "to": "7.2.4", "begun_at": "2026-11-21T11:00:00Z"}
    (tmp_path / "pointer.json").write_text(json.dumps({"schema": 1, "upgrade": upgrade}))
    code, said = run_play(PLAYBOOKS / "site.yml", *options)
    assert code != 0
    assert "upgrade.yml -e rocm_catalogue_release=7.2.4 finishes it" in said
    assert "rollback.yml takes it back" in said
    assert re.search(r"localhost : ok=\d+ changed=0 .*failed=1", said), said

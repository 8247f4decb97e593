"""https as Ansible sets it up: what preflight refuses at first, and what the proxy is handed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.certificates import make_pair
from support.plays import HERE, ROOT, run_play

ROLES = ROOT / "ansible/roles"
VARIABLES = ROLES / "inference_service/vars/main.yml"


def play(folder: Path, tasks: list[dict[str, Any]], **variables: Any) -> tuple[int, str]:
    content = [
        {
            "name": "Try",
            "hosts": "localhost",
            "gather_facts": False,
            "vars": HERE,
            "tasks": tasks,
        }
    ]
    (folder / "play.json").write_text(json.dumps(content))  # which is YAML
    options = ("-i", "localhost,", "-e", json.dumps(variables))  # which win over a role's own
    return run_play(folder / "play.json", *options, roles=ROLES)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What preflight says to each input, all asked in one run."""
    folder = tmp_path_factory.mktemp("refused")
    pair, other, old = (
        make_pair(folder, "a"), make_pair(folder, "b"), make_pair(folder, "c", days=-1)
    )  # fmt: skip
    inputs = {
        "good": ("0.0.0.0:8443", pair.certificate, pair.key),
        "off": ("", "", ""),
        "half": ("0.0.0.0:8443", pair.certificate, ""),
        "same": ("127.0.0.1:8000", pair.certificate, pair.key),
        "no address": ("8443", pair.certificate, pair.key),
        "missing": ("0.0.0.0:8443", folder / "none.pem", pair.key),
        "other key": ("0.0.0.0:8443", pair.certificate, other.key),
        "expired": ("0.0.0.0:8443", old.certificate, old.key),
    }
    tasks = []
    for name, (address, certificate, key) in inputs.items():
        said = f"SAID {name}: {{{{ ansible_failed_result.msg }}}};"
        tasks.append(
            {
                "name": name,
                "block": [
                    {
                        "name": name,
                        "ansible.builtin.include_role": {"name": "preflight", "tasks_from": "tls"},
                        "vars": {
                            "preflight_tls_address": address,
                            "preflight_tls_certificate": str(certificate),
                            "preflight_tls_key": str(key),
                        },
                    },
                    {"name": name, "ansible.builtin.debug": {"msg": f"SAID {name}: fine;"}},
                ],
                "rescue": [{"name": name, "ansible.builtin.debug": {"msg": said}}],
            }
        )
    code, output = play(folder, tasks)
    assert code == 0, output
    return dict(re.findall(r"SAID ([a-z ]+): ([^;]*);", output))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("good", "fine"),
        ("off", "fine"),
        ("half", "rockiln_tls_key, or none of them"),
        ("same", "another one than 127.0.0.1:8000"),
        ("no address", "it has to be IP:PORT"),
        ("missing", "none.pem cannot be read: No such file"),
        ("other key", "b.key is not the key of"),
        ("expired", "certificate has expired"),
    ],
)
def test_preflight_says_what_is_wrong_with_https(
    refusals: dict[str, str], name: str, words: str
) -> None:
    assert words in refusals[name]


def test_the_proxy_is_handed_the_certificate_and_notices_another(tmp_path: Path) -> None:
    proxy = tmp_path / "proxy"
    proxy.mkdir()
    pairs = {"first": make_pair(tmp_path, "a"), "second": make_pair(tmp_path, "b"), "off": None}
    tasks = []
    for name, pair in pairs.items():
        chosen = {
            "inference_service_tls_address": "0.0.0.0:8443" if pair else "",
            "inference_service_tls_certificate": str(pair.certificate) if pair else "",
            "inference_service_tls_key": str(pair.key) if pair else "",
        }
        template = f"{ROLES}/inference_service/templates/nginx.conf.j2"
        hand = {"name": "inference_service", "tasks_from": "tls", "public": True}
        tasks += [
            {"name": name, "ansible.builtin.include_role": hand, "vars": chosen},
            {
                "name": name,
                "ansible.builtin.template": {"src": template, "dest": f"{tmp_path}/{name}.conf"},
                "vars": chosen,
            },
        ]
        if pair:
            kept = {"src": f"{proxy}/", "dest": f"{tmp_path}/{name}", "remote_src": True}
            tasks.append({"name": name, "ansible.builtin.copy": {**kept, "mode": "preserve"}})
    code, output = play(
        tmp_path,
        tasks,
        inference_service_proxy_dir=str(proxy),
        __inference_service_api_generation="a" * 12,
        role_path=f"{ROLES}/inference_service",  # for the template, which is no role's task here
    )
    assert code == 0, output
    for name, pair in pairs.items():
        if pair:
            assert (tmp_path / name / "tls.pem").read_bytes() == pair.certificate.read_bytes()
            key = tmp_path / name / "tls.key"
            assert (key.read_bytes(), key.stat().st_mode & 0o777) == (pair.key.read_bytes(), 0o640)
    assert not (proxy / "tls.key").exists()
    texts = [(tmp_path / f"{name}.conf").read_text() for name in pairs]
    digests = {re.findall(r'X-Rockiln-Config "([0-9a-f]{12})"', text)[0] for text in texts}
    assert len(digests) == 3
    assert ["listen 8443 ssl;" in text for text in texts] == [True, True, False]
    assert "ssl" not in texts[2]


def test_a_key_is_needed_off_loopback_alone(tmp_path: Path) -> None:
    """A backslash that Ansible doubles had a key made on loopback, too."""
    cases = {
        ("127.0.0.1:8000", ""): False,
        ("localhost:8000", ""): False,
        ("[::1]:8000", "127.0.0.1:8443"): False,
        ("192.0.2.1:8000", ""): True,
        ("127.0.0.1:8000", "0.0.0.0:8443"): True,
    }
    read: list[dict[str, Any]] = [
        {"name": "Read", "ansible.builtin.include_vars": str(VARIABLES)},
    ]
    asked = [
        {
            "name": f"{published} and {tls}",
            "ansible.builtin.debug": {
                "msg": f"SAID {published} {tls}: {{{{ __inference_service_key_needed }}}};"
            },
            "vars": {
                "inference_service_published_address": published,
                "inference_service_tls_address": tls,
            },
        }
        for published, tls in cases
    ]
    code, words = play(tmp_path, read + asked)
    assert code == 0, words
    for (published, tls), needed in cases.items():
        assert f"SAID {published} {tls}: {needed};" in words


def test_the_settings_of_before_are_published_where_the_site_is_now(tmp_path: Path) -> None:
    """Else the way back had an api that took itself for one on loopback, and asked for no key."""
    recorded = (
        '# Of a release before\nbackend = "cpu"\npublished_address = "127.0.0.1:8000"\n'
        '\n[engine_environment]\nA = "1"\n'
    )
    moved = recorded.replace("127.0.0.1:8000", "192.0.2.1:8000")
    both = moved.replace('192.0.2.1:8000"', '192.0.2.1:8000"\ntls_address = "0.0.0.0:8443"')
    cases = {
        "same": ("127.0.0.1:8000", "", recorded, recorded),
        "moved": ("192.0.2.1:8000", "", recorded, moved),
        "with https": ("192.0.2.1:8000", "0.0.0.0:8443", recorded, both),
        "again": ("192.0.2.1:8000", "0.0.0.0:8443", both, both),
        "without https": ("127.0.0.1:8000", "", both, recorded),
    }
    settings = "/etc/rockiln/public/settings.toml"
    tasks = [
        {
            "name": name,
            "ansible.builtin.template": {
                "src": f"{ROLES}/inference_service/templates/settings.toml.j2",
                "dest": str(tmp_path / name),
            },
            "vars": {
                "__inference_service_recorded_files": [settings],
                "inference_service_recorded": {"files": {settings: text}},
                "inference_service_published_address": published,
                "inference_service_tls_address": tls,
            },
        }
        for name, (published, tls, text, _) in cases.items()
    ]
    code, words = play(tmp_path, tasks)
    assert code == 0, words
    for name, (_, _, _, wanted) in cases.items():
        assert (tmp_path / name).read_text() == wanted, name

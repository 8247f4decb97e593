"""A build honours the host's pip and apt settings, and hands on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._host_sources import (
    DEBIAN_MIRROR,
    AptMirrors,
    debian_mirrors,
    locked_names,
    parse_pip_config,
    pip_settings,
    proxy_environment,
    render_apt_conf,
    render_apt_sources,
    render_pip_conf,
    wanted_wheels,
)

PIP_LIST = """\
:env:.find-links='/srv/wheels'
:env:.disable-pip-version-check='1'
global.index-url='https://user:secret@pypi.example/simple'
global.extra-index-url='https://b.example/simple file:///srv/simple'
global.find-links='/other'
global.proxy='http://proxy.example:3128'
global.user='true'
list.format='columns'
"""


def test_environment_wins_over_the_file_as_in_pip() -> None:
    assert parse_pip_config(PIP_LIST)["find-links"] == "/srv/wheels"


def test_a_build_gets_network_settings_and_indexes_and_nothing_local() -> None:
    settings = pip_settings(parse_pip_config(PIP_LIST), {})
    text = render_pip_conf(settings, wheels="/wheels", ca=None, index_url=None, no_index=False)
    assert "index-url = https://user:secret@pypi.example/simple" in text
    assert "extra-index-url = https://b.example/simple\n" in text
    assert "proxy = http://proxy.example:3128" in text
    assert "/srv" not in text
    assert "user =" not in text
    assert settings.wheel_dirs == (Path("/srv/wheels"),)


def test_torch_has_one_index_whatever_the_host_says() -> None:
    settings = pip_settings(parse_pip_config(PIP_LIST), {})
    text = render_pip_conf(
        settings, wheels="/wheels", ca="/ca", index_url="https://torch.example/cpu", no_index=False
    )
    assert [line for line in text.splitlines() if "index-url" in line] == [
        "index-url = https://torch.example/cpu"
    ]
    assert "cert = /ca" in text


def test_a_staged_torch_asks_no_index() -> None:
    settings = pip_settings({}, {})
    text = render_pip_conf(
        settings, wheels="/wheels", ca=None, index_url="https://torch.example/cpu", no_index=True
    )
    assert "no-index = true" in text
    assert "index-url" not in text


def test_ca_bundle_is_the_one_of_pip_then_of_the_environment(tmp_path: Path) -> None:
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    own.touch()
    other.touch()
    assert pip_settings({"cert": str(own)}, {"SSL_CERT_FILE": str(other)}).ca_bundle == own
    assert (
        pip_settings({"cert": str(tmp_path / "absent")}, {"SSL_CERT_FILE": str(other)}).ca_bundle
        == other
    )


def test_only_wheels_that_are_wanted_are_handed_over(tmp_path: Path) -> None:
    for name in (
        "torch-2.13.0+cpu-cp311-cp311-x.whl",
        "Typing_Extensions-4.0-py3-none-any.whl",
        "secret-1-py3-none-any.whl",
    ):
        (tmp_path / name).touch()
    found = wanted_wheels([tmp_path, tmp_path / "absent"], {"torch", "typing-extensions"})
    assert [path.name[:6] for path in found] == ["Typing", "torch-"]


def test_names_of_a_lock() -> None:
    assert locked_names(
        "# x\nTyping_Extensions==4.0 \\\n    --hash=sha256:a\nflask==3.1 ; python_version > '3'\n"
    ) == {
        "typing-extensions",
        "flask",
    }


ONE_LINE = """\
# deb http://no.example x main
deb [signed-by=/k] http://mirror.example/debian/ bookworm main contrib
"""
DEB822 = """\
Types: deb
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
"""


@pytest.mark.parametrize(
    ("texts", "archive", "security"),
    [
        ([ONE_LINE], "http://mirror.example/debian", "http://deb.debian.org/debian-security"),
        ([DEB822], "https://mirror.example/debian", "https://mirror.example/security"),
        (
            ["deb http://archive.ubuntu.com/ubuntu noble main\n"],
            DEBIAN_MIRROR,
            "http://deb.debian.org/debian-security",
        ),
        (
            ["deb file:/srv/mirror bookworm main\n"],
            DEBIAN_MIRROR,
            "http://deb.debian.org/debian-security",
        ),
        ([], DEBIAN_MIRROR, "http://deb.debian.org/debian-security"),
    ],
)
def test_the_hosts_own_mirror_where_it_carries_the_suite(
    texts: list[str], archive: str, security: str
) -> None:
    assert debian_mirrors(texts, "bookworm") == AptMirrors(archive=archive, security=security)


def test_apt_settings_of_a_build() -> None:
    dump = (
        'Acquire::http::Proxy "http://p.example:3142";\n'
        'Acquire::http::User-Agent "x";\n'
        'APT::Periodic "1";\n'
    )
    text = render_apt_conf(dump, sources="/run/secrets/s", ca="/ca")
    assert 'Acquire::http::Proxy "http://p.example:3142";' in text
    assert "User-Agent" not in text
    assert 'Dir::Etc::sourcelist "/run/secrets/s";' in text
    sources = render_apt_sources(AptMirrors("http://a", "http://s"), "bookworm")
    assert sources.splitlines()[2] == "deb http://s bookworm-security main"


def test_proxy_variables_alone_are_taken_from_the_environment() -> None:
    assert proxy_environment({"http_proxy": "http://p", "HTTPS_PROXY": "", "TOKEN": "x"}) == {
        "http_proxy": "http://p"
    }

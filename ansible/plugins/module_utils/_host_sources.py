"""PRIVATE to the collection. Where this host gets packages from, for a build's secrets.

A build honours the host's pip and apt settings (index, proxy, CA bundle, wheel folders, mirror)
without any of it staying in a layer, in the image's history or in its digest. Parsing here is pure.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

DEBIAN_MIRROR = "http://deb.debian.org/debian"
DEBIAN_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

PIP_LINE = re.compile(
    r"^(?P<section>[^.\s]+)\.(?P<key>[^=]+)=(?P<quote>['\"])(?P<value>.*)(?P=quote)$"
)
# Settings that steer how pip talks; everything else of a user's pip.conf stays out of a build.
PIP_NETWORK_KEYS = frozenset({"proxy", "default-timeout", "timeout", "retries", "trusted-host"})
PIP_INDEX_KEYS = frozenset({"index-url", "extra-index-url"})


@dataclasses.dataclass(frozen=True)
class PipSettings:
    """The part of pip's configuration that a build can use."""

    network: Mapping[str, str]
    indexes: Mapping[str, str]
    wheel_dirs: tuple[Path, ...]
    ca_bundle: Path | None


def parse_pip_config(text: str) -> dict[str, str]:
    """``pip config list`` → setting by name; a later section (the environment) wins, as in pip."""
    order = {"global": 0, "install": 1, "wheel": 1, ":env:": 2}
    values: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        match = PIP_LINE.match(line.strip())
        if match is None or match["section"] not in order:
            continue
        rank = order[match["section"]]
        if match["key"] not in values or values[match["key"]][0] <= rank:
            values[match["key"]] = (rank, match["value"].replace("\\n", "\n"))
    return {key: value for key, (_, value) in values.items()}


def pip_settings(config: Mapping[str, str], environment: Mapping[str, str]) -> PipSettings:
    """What a build can use of pip's settings: no path of this host but wheels and the CA."""
    words = {key: value.split() for key, value in config.items()}
    indexes = {
        key: " ".join(url for url in words[key] if not url.startswith("file:"))
        for key in PIP_INDEX_KEYS
        if key in words
    }
    wheel_dirs = tuple(
        Path(word.removeprefix("file://"))
        for word in words.get("find-links", [])
        if not word.startswith(("http:", "https:"))
    )
    bundles = [
        config.get("cert"),
        environment.get("REQUESTS_CA_BUNDLE"),
        environment.get("SSL_CERT_FILE"),
        *CA_BUNDLES,
    ]
    return PipSettings(
        network={key: config[key] for key in sorted(PIP_NETWORK_KEYS) if key in config},
        indexes={key: value for key, value in indexes.items() if value},
        wheel_dirs=wheel_dirs,
        ca_bundle=next((Path(name) for name in bundles if name and Path(name).is_file()), None),
    )


def render_pip_conf(
    settings: PipSettings, *, wheels: str, ca: str | None, index_url: str | None, no_index: bool
) -> str:
    """A pip.conf for one step of a build. ``index_url`` replaces every index of the host."""
    values: dict[str, str] = dict(settings.network)
    if ca:
        values["cert"] = ca
    values["find-links"] = wheels
    if no_index:
        values["no-index"] = "true"
    elif index_url:
        values["index-url"] = index_url
    else:
        values.update(settings.indexes)
    values["disable-pip-version-check"] = "true"
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def wheel_name(filename: str) -> str:
    """The normalised distribution name of a wheel file."""
    return re.sub(r"[-_.]+", "-", filename.split("-", 1)[0]).lower()


def wanted_wheels(folders: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Wheels of these distributions in the host's wheel folders, and no other file."""
    wanted = set(names)
    return sorted(
        wheel
        for folder in folders
        if folder.is_dir()
        for wheel in folder.glob("*.whl")
        if wheel_name(wheel.name) in wanted
    )


def locked_names(lock_text: str) -> set[str]:
    """Distribution names of a lock file."""
    return {
        re.sub(r"[-_.]+", "-", match[1]).lower()
        for match in re.finditer(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", lock_text, flags=re.MULTILINE)
    }


@dataclasses.dataclass(frozen=True)
class AptMirrors:
    """Where Debian packages come from."""

    archive: str
    security: str


def parse_apt_uris(texts: Iterable[str]) -> list[tuple[str, str]]:
    """(URI, suite) of every one-line and deb822 entry."""
    found: list[tuple[str, str]] = []
    for text in texts:
        found += re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", text, flags=re.MULTILINE)
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(
                re.findall(r"^(URIs|Suites|Types):[ \t]*(.+)$", stanza, flags=re.MULTILINE)
            )
            if "deb" not in fields.get("Types", "").split():
                continue
            for uri in fields.get("URIs", "").split():
                found += [(uri, suite) for suite in fields.get("Suites", "").split()]
    return found


def debian_mirrors(texts: Iterable[str], suite: str) -> AptMirrors:
    """The host's own mirrors where it carries this Debian suite, else Debian's public ones."""
    archive, security = DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR
    for uri, name in parse_apt_uris(texts):
        if not uri.startswith(("http:", "https:")):
            continue
        if name == suite:
            archive = uri.rstrip("/")
        elif name in {f"{suite}-security", f"{suite}/updates"}:
            security = uri.rstrip("/")
    return AptMirrors(archive=archive, security=security)


def read_apt_sources(root: Path = Path("/etc/apt")) -> list[str]:
    folder = root / "sources.list.d"
    files = [root / "sources.list"]
    if folder.is_dir():
        files += sorted(path for path in folder.iterdir() if path.suffix in {".list", ".sources"})
    return [path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()]


def render_apt_sources(mirrors: AptMirrors, suite: str) -> str:
    return (
        f"deb {mirrors.archive} {suite} main\n"
        f"deb {mirrors.archive} {suite}-updates main\n"
        f"deb {mirrors.security} {suite}-security main\n"
    )


def render_apt_conf(apt_config_dump: str, *, sources: str, ca: str | None) -> str:
    """An apt.conf for a build: its sources, the host's proxies and CA bundle, nothing else."""
    lines = [
        f'Dir::Etc::sourcelist "{sources}";',
        'Dir::Etc::sourceparts "-";',
        'Acquire::Languages "none";',
    ]
    lines += re.findall(
        r'^(Acquire::https?::Proxy(?:::\S+)? "[^"]+";)$', apt_config_dump, flags=re.MULTILINE
    )
    if ca:
        lines.append(f'Acquire::https::CAInfo "{ca}";')
    return "\n".join(lines) + "\n"


def proxy_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Proxy variables of the host; BuildKit predefines them and keeps them out of history."""
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    source = os.environ if environment is None else environment
    return {name: source[name] for name in names if source.get(name)}

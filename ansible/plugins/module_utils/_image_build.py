"""PRIVATE to the collection. Makes a planned image present: from an archive, or by a build."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Client,
    Engine,
    EngineError,
    run_command,
)
from ansible_collections.rockiln.host.plugins.module_utils._host_sources import (
    AptMirrors,
    PipSettings,
    debian_mirrors,
    locked_names,
    parse_pip_config,
    pip_settings,
    proxy_environment,
    read_apt_sources,
    render_apt_conf,
    render_apt_sources,
    render_pip_conf,
    wanted_wheels,
)
from ansible_collections.rockiln.host.plugins.module_utils._image_plan import (
    PlannedImage,
    input_files,
)
from ansible_collections.rockiln.host.plugins.module_utils._rootfs import Rootfs

BUILD_LOG_TAIL_LINES = 40
SECRET_DIR = "/run/secrets"  # noqa: S105 (a folder)
SECRET_CA = f"{SECRET_DIR}/ca_bundle"
SECRET_APT_SOURCES = f"{SECRET_DIR}/apt_sources"
WHEELS_MOUNT = "/wheels"


@dataclasses.dataclass(frozen=True)
class Torch:
    """The one distribution with a source of its own."""

    index_url: str


@dataclasses.dataclass
class Builder:
    """Images of one table on one engine; ``actions`` says aloud what was done and why."""

    client: Client
    context: Path
    planned: Mapping[str, PlannedImage]
    rootfs: Rootfs
    torch: Torch
    apt_mirrors: AptMirrors
    archives: Sequence[Path] = ()
    actions: list[str] = dataclasses.field(default_factory=list)

    @property
    def engine(self) -> Engine:
        return Engine(self.client.path)

    def is_present(self, name: str) -> bool:
        return self.engine.inspect_image(self.planned[name].reference) is not None

    def archive_with(self, name: str) -> Path | None:
        reference = self.planned[name].reference
        return next(
            (path for path in self.archives if reference in archived_references(path)), None
        )

    def ensure(self, name: str) -> bool:
        """Make one image present. True when something was done."""
        image = self.planned[name]
        if self.is_present(name):
            return False
        archive = self.archive_with(name)
        if archive is not None:
            self.engine.load(archive)
            if not self.is_present(name):
                raise EngineError(
                    f"{archive} names {image.reference}, which is not there after the load"
                )
            self.actions.append(f"loaded {image.reference} from {archive}")
            return True
        if image.spec.parent is not None:
            self.ensure(image.spec.parent)
            parent_reference = self.planned[image.spec.parent].reference
        else:
            parent_reference = image.spec.ground or self.rootfs.reference
            if self.engine.inspect_image(parent_reference) is None:
                raise EngineError(
                    f"{parent_reference} is not there; make it first "
                    f"({'rockiln_vendor_image' if image.spec.ground else 'rockiln_rootfs_image'})"
                )
        self._build(image, parent_reference)
        return True

    def _build(self, image: PlannedImage, parent_reference: str) -> None:
        if not self.client.can_build:
            raise EngineError(
                f"the client {self.client.path} {self.client.client_version} has no BuildKit; "
                "next: apt-get install docker-buildx"
            )
        with build_context(self.context, image) as stage:
            settings = host_pip_settings()
            wheels = stage_wheels(stage, self.context, image, settings)
            secrets = write_secrets(
                stage.parent,
                settings,
                self.apt_mirrors,
                self.rootfs.suite,
                torch=self.torch,
                torch_staged=any(wheel.startswith("torch-") for wheel in wheels),
            )
            arguments = build_arguments(image, parent_reference, stage, secrets)
            done = run_command(
                [self.client.path, *arguments],
                environment={"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"},
            )
        if done.code != 0:
            tail = "\n".join((done.output + done.errors).splitlines()[-BUILD_LOG_TAIL_LINES:])
            raise EngineError(f"the build of {image.reference} failed:\n{tail}")
        self.actions.append(f"built {image.reference}")


def archived_references(archive: Path) -> set[str]:
    """The references that a ``docker save`` archive carries."""
    if not archive.is_file():
        return set()
    try:
        with tarfile.open(archive) as tar:
            stream = tar.extractfile("manifest.json")
            entries = json.load(stream) if stream else []
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise EngineError(f"{archive} is not an archive of images: {error}") from error
    return {reference for entry in entries for reference in entry.get("RepoTags") or ()}


@contextmanager
def build_context(context: Path, image: PlannedImage) -> Iterator[Path]:
    """A folder that holds the inputs of one image and nothing else of the tree."""
    with tempfile.TemporaryDirectory(prefix="rockiln-build-", dir="/var/tmp") as folder:
        stage = Path(folder) / "context"
        for path in input_files(context, [image.spec.containerfile, *image.spec.inputs]):
            target = stage / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(context / path, target)
            shutil.copymode(context / path, target)
        (stage / "wheels").mkdir(parents=True)
        yield stage


def host_pip_settings() -> PipSettings:
    """pip's own answer about its configuration; environment alone where this Python has no pip."""
    done = run_command([sys.executable, "-m", "pip", "config", "list"])
    if done.code == 0:
        return pip_settings(parse_pip_config(done.output), os.environ)
    config = {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("PIP_")
    }
    return pip_settings(config, os.environ)


def stage_wheels(
    stage: Path, context: Path, image: PlannedImage, settings: PipSettings
) -> list[str]:
    """Hand over the wheels of the host's wheel folders that this image's locks (or torch) name."""
    if not image.spec.locks:
        return []
    names = {"torch"} if image.spec.build_args.get("TORCH_SHA256") else set()
    for lock in image.spec.locks:
        names |= locked_names((context / lock).read_text(encoding="utf-8"))
    staged = []
    for wheel in wanted_wheels(settings.wheel_dirs, names):
        target = stage / "wheels" / wheel.name
        try:
            os.link(wheel, target)
        except OSError:
            shutil.copyfile(wheel, target)
        staged.append(wheel.name)
    return staged


def write_secrets(
    folder: Path,
    settings: PipSettings,
    mirrors: AptMirrors,
    suite: str,
    *,
    torch: Torch,
    torch_staged: bool,
) -> dict[str, Path]:
    """The host's way to packages, as files that exist only while a RUN step runs."""
    ca = SECRET_CA if settings.ca_bundle else None
    dump = run_command(["apt-config", "dump"]).output
    texts = {
        "pip_conf": render_pip_conf(
            settings, wheels=WHEELS_MOUNT, ca=ca, index_url=None, no_index=False
        ),
        "pip_torch_conf": render_pip_conf(
            settings, wheels=WHEELS_MOUNT, ca=ca, index_url=torch.index_url, no_index=torch_staged
        ),
        "apt_sources": render_apt_sources(mirrors, suite),
        "apt_conf": render_apt_conf(dump, sources=SECRET_APT_SOURCES, ca=ca),
        "ca_bundle": settings.ca_bundle.read_text(encoding="utf-8") if settings.ca_bundle else "",
    }
    secrets = {}
    for name, text in texts.items():
        secrets[name] = folder / name
        descriptor = os.open(secrets[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    return secrets


def build_arguments(
    image: PlannedImage, parent_reference: str, stage: Path, secrets: Mapping[str, Path]
) -> list[str]:
    """The command line of one build, without the client's path."""
    arguments = ["build", "--tag", image.reference, "--file", str(stage / image.spec.containerfile)]
    for key, value in sorted(
        {**image.spec.build_args, image.spec.parent_arg: parent_reference}.items()
    ):
        arguments += ["--build-arg", f"{key}={value}"]
    if image.spec.target:
        arguments += ["--target", image.spec.target]
    for key in sorted(proxy_environment()):
        arguments += ["--build-arg", key]
    for key, value in image.labels().items():
        arguments += ["--label", f"{key}={value}"]
    for name, path in sorted(secrets.items()):
        arguments += ["--secret", f"id={name},src={path}"]
    return [*arguments, str(stage)]


def mirrors_for(suite: str, *, archive: str, security: str) -> AptMirrors:
    """Settings where the site made them, else the host's own mirrors."""
    own = debian_mirrors(read_apt_sources(), suite)
    return AptMirrors(archive=archive or own.archive, security=security or own.security)


__all__ = ["Builder", "Torch", "archived_references", "build_arguments", "mirrors_for"]

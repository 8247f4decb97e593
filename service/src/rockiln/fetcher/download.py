"""A known model from the hub into the models folder: all of it, checked, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rockiln.domain.errors import BrokenModelError, RockilnError
from rockiln.fetcher.hub import Hub, HubError, HubFile, Listing
from rockiln.fetcher.transfer import Transfer
from rockiln.registry.catalogue import load_catalogue
from rockiln.registry.checkpoint import read_checkpoint
from rockiln.registry.folder import read_model_folder
from rockiln.registry.known_models import KnownModel
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.manifest import MANIFEST_NAME
from rockiln.registry.model_files import files_of_model
from rockiln.registry.safetensors_file import SUFFIX
from rockiln.store.artefacts import make_folder, sync_folder, write_durably
from rockiln.store.model_tasks import ModelLock

DOWNLOADS = ".downloads"


class NoSpaceError(RockilnError):
    """The disk does not hold the model."""


@dataclass(frozen=True)
class Place:
    """Where models are, and where they are put together."""

    models: Path

    @property
    def downloads(self) -> Path:
        return self.models / DOWNLOADS

    def staging(self, model_id: str) -> Path:
        return self.downloads / model_id

    def model(self, model_id: str) -> Path:
        return self.models / model_id

    def single_file(self, model_id: str) -> Path:
        return self.models / f"{model_id}{SUFFIX}"


@dataclass(frozen=True)
class Download:
    """One download.

    Attributes:
        pin: takes the listing's commit and files; returns what holds from now on.
        progress: takes bytes done and bytes in all. Raises CancelledError.
        hub_cache: a cache of huggingface_hub whose files may be copied.
        model_dirs: of models whose configs a single file may share.
    """

    hub: Hub
    model: KnownModel
    place: Place
    keep_free_bytes: int
    backoff_seconds: float
    pin: Callable[[ModelLock], ModelLock]
    progress: Callable[[int, int], None]
    pinned_commit: str | None = None
    hub_cache: Path | None = None
    model_dirs: Sequence[Path] = ()

    def run(self) -> ModelLock:
        """Publishes the model; returns its commit and the SHA-256 of its files.

        Raises:
            HubError: the hub does not give it; HubGatedError if its licence is not accepted.
            BrokenModelError: what came is not what it should be, or the safety gate refuses it.
            NoSpaceError, CancelledError, OSError
        """
        repository = self.model.repository or ""
        listing = self.hub.listing(repository, self.pinned_commit or "main")
        if self.pinned_commit not in {None, listing.commit}:
            raise HubError(f"asked for commit {self.pinned_commit}, the hub has {listing.commit}")
        lock = self.pin(ModelLock(listing.commit, {}))
        if lock.commit != listing.commit:
            raise HubError(f"{repository} is pinned to {lock.commit}; ask for it again")
        wanted = self._wanted(listing, lock)
        staging = self.place.staging(self.model.id)
        total_bytes = sum(file.size_bytes for file in wanted)
        self._check_space(staging, wanted)
        transfer = Transfer(self.hub, repository, listing.commit, self.backoff_seconds)
        done_bytes, digests = 0, {}
        for file in wanted:

            def told(count: int, before: int = done_bytes) -> None:
                self.progress(before + count, total_bytes)

            cached = self._cached(listing.commit, file)
            digests[file.path] = transfer.fetch(file, staging, told, cached=cached)
            done_bytes += file.size_bytes
        write_durably(
            staging / _manifest_name(self.model),
            json.dumps(self.model.manifest().model_dump(by_alias=True), indent=2).encode(),
        )
        self._pass_gate(staging)
        lock = self.pin(ModelLock(listing.commit, digests))
        publish(self.place, self.model)
        return lock

    def _pass_gate(self, staging: Path) -> None:
        if self.model.single_file is None:
            read_model_folder(staging, self.place.downloads)
        else:
            lenders = load_catalogue(self.model_dirs).models.values()
            read_checkpoint(staging / self.model.single_file, self.place.downloads, lenders)

    def _wanted(self, listing: Listing, lock: ModelLock) -> list[HubFile]:
        """The model's files as the hub announces them, held to what was known before."""
        model = self.model
        if model.single_file is None:
            names = files_of_model(listing.files, LAYOUTS[model.family or ""], model.variant)
        else:
            names = [model.single_file]
        known = {file.path: file.sha256 for file in model.files if file.sha256 is not None}
        found = []
        for name in names:
            file = listing.files.get(name)
            if file is None:
                raise HubError(f"{model.repository} has no {name} at {listing.commit}")
            expected = known.get(name) or lock.files.get(name)
            if file.sha256 is None:
                if expected is None and file.blob_id is None:
                    raise HubError(f"{name}: the hub announces no digest; it could not be checked")
                file = replace(file, sha256=expected)
            elif expected not in {None, file.sha256}:
                raise BrokenModelError(
                    f"{name}: the hub announces SHA-256 {file.sha256}, pinned is {expected}"
                )
            found.append(file)
        return found

    def _check_space(self, staging: Path, wanted: list[HubFile]) -> None:
        make_folder(staging)
        parts = staging.parent / f"{staging.name}.parts"
        have_bytes = sum(
            path.stat().st_size
            for folder in (staging, parts)
            for path in folder.rglob("*")
            if path.is_file()
        )
        missing_bytes = sum(file.size_bytes for file in wanted) - have_bytes
        free_bytes = shutil.disk_usage(staging).free
        if missing_bytes + self.keep_free_bytes > free_bytes:
            raise NoSpaceError(
                f"{missing_bytes} bytes are to come and {self.keep_free_bytes} stay free, but "
                f"{self.place.models} has {free_bytes}; make room: rockiln models rm MODEL"
            )

    def _cached(self, commit: str, file: HubFile) -> Path | None:
        """The file in a cache of huggingface_hub, if it is one of its own blobs."""
        if self.hub_cache is None:
            return None
        folder = self.hub_cache / f"models--{(self.model.repository or '').replace('/', '--')}"
        found = folder / "snapshots" / commit / file.path
        blobs = (folder / "blobs").resolve()
        return found if found.is_file() and found.resolve().is_relative_to(blobs) else None


def publish(place: Place, model: KnownModel) -> None:
    """What was put together gets its name; a folder that was there gives way whole."""
    target, staging = place.model(model.id), place.staging(model.id)
    if target.exists():
        retire(place, model.id)
    if model.single_file is None:
        staging.rename(target)
    else:  # its manifest first, which says nothing without it
        manifest = place.models / f"{model.id}.{MANIFEST_NAME}"
        (staging / _manifest_name(model)).replace(manifest)
        (staging / model.single_file).replace(place.single_file(model.id))
        drop(staging)
    sync_folder(place.models)
    drop(place.downloads / f"{model.id}.parts")
    sweep(place)


def retire(place: Place, model_id: str) -> None:
    """Takes a model's folder away at once; ``sweep`` frees its space."""
    make_folder(place.downloads)
    number = 0
    while (gone := place.downloads / f".gone-{model_id}-{number}").exists():
        number += 1
    place.model(model_id).rename(gone)
    sync_folder(place.models)


def withdraw(place: Place, model_id: str) -> None:
    """Takes a model out of service; the next pull keeps what is there and fetches the rest."""
    staging = place.staging(model_id)
    drop(staging)
    make_folder(place.downloads)
    place.model(model_id).rename(staging)
    sync_folder(place.models)


def sweep(place: Place) -> None:
    """Frees the space of folders that were taken away."""
    for folder in place.downloads.glob(".gone-*"):
        drop(folder)


def _manifest_name(model: KnownModel) -> str:
    """While the model is put together."""
    if model.single_file is None:
        return MANIFEST_NAME
    return f"{model.single_file.removesuffix(SUFFIX)}.{MANIFEST_NAME}"


def drop(folder: Path) -> None:
    """Deletes a folder that may not be there."""
    if folder.exists():
        shutil.rmtree(folder)

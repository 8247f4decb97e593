"""Models in a cache of Hugging Face's own library, read where they are.

A snapshot there is a folder of links into the blobs of its repository; no link may lead further.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rockiln.domain.model import ModelProfile
from rockiln.registry.folder import INDEX_NAME, read_model_folder
from rockiln.registry.known_models import KnownModel, known_models

_PREFIX = "models--"


@dataclass(frozen=True)
class CachedModel:
    """One snapshot of one repository.

    Attributes:
        id: of the known model that it is, else made of owner and name.
        root: the repository's folder, which its links may not leave.
    """

    id: str
    folder: Path
    root: Path
    known: KnownModel | None

    def read(self) -> ModelProfile:
        """Raises BrokenModelError."""
        profile = read_model_folder(self.folder, self.root, model_id=self.id)
        if self.known is None:
            return replace(profile, title=self.id)
        return self.known.manifest().applied_to(profile)


def cached_models(cache_dir: Path) -> Iterator[CachedModel]:
    """A snapshot of each repository that holds a model of diffusers: the pinned one, else main."""
    if not cache_dir.is_dir():
        return
    rows = {row.repository: row for row in known_models().values() if not row.unsupported}
    for root in sorted(cache_dir.glob(f"{_PREFIX}*")):
        repository = root.name.removeprefix(_PREFIX).replace("--", "/", 1)
        known = rows.get(repository)
        wanted = [known.commit] if known is not None and known.commit else []
        main = root / "refs" / "main"
        if main.is_file():
            wanted.append(main.read_text(encoding="utf-8", errors="replace").strip()[:64])
        held = {folder.name: folder for folder in (root / "snapshots").glob("*")}
        for commit in wanted:
            folder = held.get(commit)
            if folder is not None and (folder / INDEX_NAME).is_file():
                pinned = known is not None and commit in {known.commit, None}
                own_id = repository.lower().replace("/", "--")[:64]
                model_id = known.id if pinned and known is not None else own_id
                yield CachedModel(model_id, folder, root, known if pinned else None)
                break

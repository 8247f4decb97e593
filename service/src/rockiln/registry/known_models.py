"""The models that this version knows by name, from ``known_models.toml``. No network, no torch.

Nothing there is guessed: a commit, a hash or a size without a source is left out, and ``lacks``
says so. A row without a commit is "to be locked": the commit is resolved at the first pull, kept in
the store and enforced from then on.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rockiln.domain.model import ModelProfile
from rockiln.domain.request import MODEL_ID_PATTERN
from rockiln.registry.architecture import architecture_of_parts
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.manifest import Defaults, Limits, Manifest, SchedulerConfig, profile_of

_FILE = Path(__file__).with_name("known_models.toml")
REPOSITORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
_COMMIT_PATTERN = r"^[0-9a-f]{40}$"
_ITEM_BYTES = {"float16": 2, "float32": 4}

Source = Annotated[str, Field(min_length=8, max_length=300)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class KnownFile(_Row):
    """One file of a repository. A hash or size that no source gives is left out."""

    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    size_bytes: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _stays_in_its_folder(self) -> Self:
        if ".." in self.path.split("/"):
            raise ValueError(f"{self.path} leads out of the folder")
        return self


class KnownModel(_Row):
    """One row.

    Attributes:
        repository: owner/name on the hub; None for the model that ships here.
        single_file: of the repository, a checkpoint that holds all parts: all that is fetched.
        variant: which weights are taken where a repository has several.
        parameters: component → how many numbers it holds.
        configs: component → name of a table of its config.
        shapes: component → what of its config tells its shape; filled in from those tables.
        distilled: guidance has been distilled away, as the folder's index will say.
        unsupported: why this version cannot run it; then there is nothing but its name.
        sources: group of values → where they are from.
    """

    id: str = Field(pattern=MODEL_ID_PATTERN)
    title: str = Field(min_length=1, max_length=200)
    licence: str = Field(min_length=1, max_length=200)
    licence_page: str | None = Field(default=None, pattern=r"^https://")
    family: str | None = None
    repository: str | None = Field(default=None, pattern=REPOSITORY_PATTERN)
    commit: str | None = Field(default=None, pattern=_COMMIT_PATTERN)
    single_file: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9._-]{0,50}\.safetensors$"
    )
    variant: Literal["fp16"] | None = None
    gated: bool = False
    unsupported: str | None = None
    defaults: Defaults | None = None
    limits: Limits | None = None
    scheduler_config: SchedulerConfig = SchedulerConfig()
    parameters: dict[str, Annotated[int, Field(ge=1)]] = {}
    configs: dict[str, str] = {}
    shapes: dict[str, dict[str, Any]] = {}
    distilled: bool = False
    files: tuple[KnownFile, ...] = Field(default=(), strict=False)
    sources: dict[
        Literal["commit", "licence", "gated", "defaults", "limits", "parameters", "files",
                "unsupported"],
        Source,
    ]  # fmt: skip

    @model_validator(mode="after")
    def _every_value_has_its_source(self) -> Self:
        given = {
            "commit": self.commit,
            "licence": self.licence,
            "gated": self.repository and not self.unsupported,
            "defaults": self.defaults,
            "limits": self.limits,
            "parameters": self.parameters or self.configs,
            "files": self.files,
            "unsupported": self.unsupported,
        }
        missing = [name for name, value in given.items() if value and name not in self.sources]
        if missing:
            raise ValueError(f"{self.id}: no source for {', '.join(missing)}")
        if self.unsupported is None and self.repository is not None:
            if self.family not in LAYOUTS or self.defaults is None or self.limits is None:
                raise ValueError(f"{self.id}: family, defaults and limits are needed to run it")
            if self.licence_page is None:
                raise ValueError(f"{self.id}: licence_page is needed to pull it")
            if set(self.parameters) - set(LAYOUTS[self.family].weighted):
                raise ValueError(f"{self.id}: parameters of parts that the family does not have")
            if self.configs and set(self.configs) != set(LAYOUTS[self.family].weighted):
                raise ValueError(f"{self.id}: configs of all the family's parts, or of none")
        return self

    @property
    def bundled(self) -> bool:
        """Whether it ships with the service."""
        return self.repository is None

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        return f"https://huggingface.co/{self.repository}"

    @property
    def lacks(self) -> list[str]:
        """What no source gives; the first pull reads it from the hub and pins it."""
        if self.bundled or self.unsupported:
            return []
        parts = set(LAYOUTS[self.family or ""].weighted)
        hashed = {file.path.split("/")[0] for file in self.files if file.sha256 is not None}
        unhashed = set() if self.single_file in hashed else parts - hashed
        found = [] if self.commit else ["commit"]
        found += [f"sha256 of {part}" for part in sorted(unhashed)]
        return found + [f"parameters of {part}" for part in sorted(parts - set(self.parameters))]

    @property
    def download_bytes(self) -> int | None:
        """About what a pull fetches; None where a part's size is not known."""
        if not self.complete:
            return None
        # Two bytes a number is what the repositories hold at least.
        return sum(self.parameters.values()) * _ITEM_BYTES["float16"]

    @property
    def complete(self) -> bool:
        """Whether the size of every part is known."""
        return self.family is not None and set(self.parameters) >= (
            set(LAYOUTS[self.family].weighted)
        )

    @property
    def component_bytes(self) -> dict[str, dict[str, int]]:
        """dtype → component → bytes in memory."""
        return {
            dtype: {name: count * size for name, count in self.parameters.items()}
            for dtype, size in _ITEM_BYTES.items()
        }

    def shaped_by(self, tables: Mapping[str, dict[str, Any]]) -> Self:
        """With its ``shapes``.

        Raises:
            KeyError: a config has no table.
        """
        shapes = {part: tables[name] for part, name in self.configs.items()}
        return self.model_copy(update={"shapes": shapes})

    def manifest(self) -> Manifest:
        """What is written into the folder of a download."""
        if self.defaults is None or self.limits is None:
            raise ValueError(f"{self.id} cannot be pulled")
        return Manifest(
            schema=1,
            title=self.title,
            licence=self.licence,
            defaults=self.defaults,
            limits=self.limits,
            scheduler_config=self.scheduler_config,
        )

    def profile(self) -> ModelProfile | None:
        """What its folder would be, for the planner; None where a part's size is not known."""
        if not self.complete or self.defaults is None or self.limits is None:
            return None
        layout = LAYOUTS[self.family or ""]
        shape = (
            architecture_of_parts(self.shapes, layout.name, distilled=self.distilled)
            if self.shapes
            else None
        )
        return replace(
            profile_of(self.id, layout, self.manifest(), shape),
            component_bytes={
                name: count * _ITEM_BYTES["float16"] for name, count in self.parameters.items()
            },
            component_parameters=dict(self.parameters),
        )


class _Catalogue(_Row):
    schema_number: Literal[1] = Field(alias="schema")
    configs: dict[str, dict[str, Any]]
    models: list[KnownModel]


@cache
def known_models() -> dict[str, KnownModel]:
    """Id → row, in the order of the file.

    Raises:
        ValidationError, ValueError: the file that ships here is wrong.
    """
    read = _Catalogue.model_validate(tomllib.loads(_FILE.read_text(encoding="utf-8")))
    rows = read.models
    found = {row.id: row.shaped_by(read.configs) for row in rows}
    if len(found) != len(rows):
        raise ValueError(f"{_FILE.name} has an id twice")
    return found

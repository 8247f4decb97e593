"""Every setting of every process, in one class.

Read from ``ROCKILN_*`` variables, else ``settings.toml`` in the public folder, else the defaults.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rockiln.domain.engine_variables import check_variables
from rockiln.store.postgresql import ANSWER_SECONDS

ENV_PREFIX = "ROCKILN_"
DEFAULT_PUBLIC_DIR = Path("/etc/rockiln/public")
PORT_MAX = 65535
HUB_SECRETS = frozenset(
    {
        f"{ENV_PREFIX}HUB_TOKEN",
        f"{ENV_PREFIX}HUB_TOKEN_FILE",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
    }
)
# The engine runs what model files and prompts reach; it needs neither the store nor a hub.
_SECRETS = HUB_SECRETS | {
    f"{ENV_PREFIX}DATABASE_URL",
    f"{ENV_PREFIX}DATABASE_URL_FILE",
    "PGPASSWORD",
}


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` into its parts; IPv6 hosts stand in brackets.

    Raises:
        ValueError: no port, or not a number from 1 to 65535.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or not 0 < int(port) <= PORT_MAX:
        raise ValueError(f"{address!r} is not HOST:PORT with a port from 1 to {PORT_MAX}")
    return host.strip("[]"), int(port)


def on_loopback(address: str) -> bool:
    """Whether this host alone reaches ``host:port``; a name may be anywhere."""
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """Settings shared by api, worker and command line."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    public_dir: Path = Field(
        default=DEFAULT_PUBLIC_DIR, description="Settings and host facts; read-only in containers."
    )
    data_dir: Path = Field(
        default=Path("/var/lib/rockiln"), description="store/, artefacts/, models/, cache/."
    )
    bundled_models_dir: Path | None = Field(
        default=None, description="A second folder of models, such as the one that ships here."
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql://… of the job store. Default: SQLite in the store folder.",
    )
    database_url_file: Path | None = Field(
        default=None,
        description="A file with that address, such as one in /etc/rockiln/secrets.",
    )
    database_answer_seconds: float = Field(
        default=ANSWER_SECONDS,
        gt=0,
        description="A PostgreSQL that is silent for it is called anew.",
    )
    keep_jobs_days: float | None = Field(
        default=None, gt=0, description="Ended jobs and their pictures. Default: for ever."
    )
    keep_picture_bytes: int | None = Field(
        default=None, ge=0, description="All pictures; beyond it the oldest jobs are deleted."
    )
    keep_events_days: float | None = Field(
        default=30.0, gt=0, description="The event log of ended jobs."
    )
    keep_evidence_days: float | None = Field(
        default=30.0, gt=0, description="What is known of engines' deaths."
    )

    published_address: str = Field(
        default="127.0.0.1:8000",
        description="Where users reach the service; off loopback every call needs a key.",
    )
    tls_address: str = Field(
        default="",
        description="Where a proxy serves it with https too; off loopback every call needs a key.",
    )
    api_bind: str = Field(default="127.0.0.1:8000", description="Where gunicorn listens.")
    api_threads: int = Field(default=48, ge=8, description="Request threads of the api.")
    waiting_slots: int = Field(
        default=32, ge=0, description="Threads of those that may wait for pictures."
    )
    stream_slots: int = Field(default=512, ge=0, description="Event streams at once.")
    stream_heartbeat_seconds: float = Field(
        default=15.0, gt=0, description="Silence of a stream before a comment is sent."
    )
    wait_seconds: float = Field(
        default=120.0, gt=0, description="How long POST /generate waits before it answers 202."
    )
    max_body_bytes: int = Field(default=16 << 20, ge=1024, description="Largest request body.")
    session_seconds: float = Field(
        default=43_200.0, gt=0, description="After it a browser has to sign in again."
    )
    allowed_hosts: str = Field(
        default="",
        description="Host names the api answers to beside loopback's, separated by commas.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call the api, such as https://a.example, by commas.",
    )
    worker_stale_seconds: float = Field(
        default=5.0, gt=1, description="A worker that said nothing for this long is not there."
    )
    queue_max_jobs: int = Field(default=200, ge=1, description="Jobs that may wait.")
    queue_max_seconds: float = Field(
        default=14_400.0, gt=0, description="Estimated work that may wait, seconds of a device."
    )
    queue_max_jobs_per_owner: int = Field(
        default=100, ge=1, description="Jobs of one owner that may wait."
    )
    min_free_disk_bytes: int = Field(
        default=1 << 30, ge=0, description="Below this much free disk nothing is accepted."
    )
    default_model: str = Field(default="vista", description="Model of a request that names none.")

    fetcher_enabled: bool = Field(
        default=True, description="Whether rockiln serve runs the fetcher, which downloads models."
    )
    fetcher_downloads: int = Field(default=2, ge=1, le=16, description="Downloads at once.")
    hub_endpoint: str = Field(
        default="https://huggingface.co",
        pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$",
        description="Where models come from: the Hugging Face hub, or a mirror of it.",
    )
    hub_token: SecretStr | None = Field(
        default=None, description="For gated models. The fetcher alone needs it."
    )
    hub_token_file: Path | None = Field(
        default=None, description="A file with that token, such as one in /etc/rockiln/secrets."
    )
    hub_cache_dir: Path | None = Field(
        default=None,
        description="A cache of Hugging Face (…/huggingface/hub) whose models are used; read-only.",
    )
    hub_stall_seconds: float = Field(
        default=60.0, gt=0, description="A download without a byte for this long connects anew."
    )
    hub_backoff_seconds: float = Field(
        default=1.0, ge=0, description="Before a broken connection is followed; doubled each time."
    )

    backend: Literal["cpu", "rocm", "cuda"] = Field(
        default="cpu",
        description="What torch is built for. cuda is for measuring: nothing sets it up.",
    )
    compute_device: Literal["auto", "gpu", "cpu"] = Field(
        default="auto", description="Where to compute; apart from the backend."
    )
    worker_name: str = Field(
        default="cpu0", pattern=r"^[a-z0-9-]{1,32}$", description="One name per GPU or CPU slot."
    )
    worker_python: Path = Field(
        default=Path(sys.executable), description="Interpreter that has torch."
    )
    torch_threads: int = Field(default=0, ge=0, description="0: one per CPU core.")
    pinned_models: str = Field(
        default="", description="Ids of models that never leave memory, separated by commas."
    )
    model_idle_seconds: float | None = Field(
        default=None,
        gt=0,
        description="A model that no job used for it leaves memory. Default: only for another.",
    )
    quantisation_allowed: bool = Field(
        default=False,
        description="Whether weights are rounded to 8 bits where a job fits no other way: lossy.",
    )
    reserved_vram_bytes: int = Field(
        default=0, ge=0, description="Memory of the GPU that is left to others."
    )
    engine_environment: dict[str, str] = Field(
        default_factory=dict, description="Variables of the ROCm release, from its catalogue row."
    )
    start_seconds: float = Field(
        default=300.0, gt=0, description="Engine start to ready, beside the load of its model."
    )
    model_load_seconds: float = Field(
        default=120.0, ge=0, description="What loading a model may add, beside its size."
    )
    gib_load_seconds: float = Field(
        default=10.0, ge=0, description="What each GiB of a model may add to its load."
    )
    first_step_seconds: float = Field(
        default=600.0, gt=0, description="First step, and first decode, of a size not seen before."
    )
    step_seconds: float = Field(
        default=30.0, gt=0, description="A later step; 8 times the usual where that is longer."
    )
    decode_seconds: float = Field(
        default=60.0, gt=0, description="A decode; 8 times the usual where that is longer."
    )
    warm_up_decode_seconds: float = Field(
        default=3600.0, gt=0, description="A decode of a warm-up, which may search for kernels."
    )
    encode_seconds: float = Field(
        default=30.0, gt=0, description="Writing a picture's file and publishing it."
    )
    attempt_deadline_seconds: float = Field(default=1800.0, gt=0, description="One attempt.")
    job_deadline_seconds: float = Field(
        default=7200.0, gt=0, description="A job from its first attempt on, all attempts together."
    )
    abort_grace_seconds: float = Field(
        default=2.0, ge=0, description="From SIGABRT, for a dump of all stacks, to SIGKILL."
    )
    reap_seconds: float = Field(
        default=10.0, gt=0, description="From SIGKILL to giving the engine up: the GPU is wedged."
    )
    drain_seconds: float = Field(
        default=8.0, ge=0, description="What a job in hand may still take when the worker stops."
    )
    restart_backoff_seconds: float = Field(
        default=0.5, ge=0, description="Before an engine follows a dead one; doubled each time."
    )
    restart_backoff_max_seconds: float = Field(
        default=60.0, ge=0, description="Longest wait before an engine follows a dead one."
    )
    restart_budget: int = Field(
        default=10, ge=1, description="Engines that may die within restart_window_seconds."
    )
    restart_window_seconds: float = Field(default=600.0, gt=0, description="See restart_budget.")
    wedged_probe_seconds: float = Field(
        default=300.0, gt=0, description="Between two proofs of a GPU that is wedged."
    )
    refusal_seconds: float = Field(
        default=3600.0, ge=0, description="How long a request like a quarantined one is refused."
    )
    lease_seconds: float = Field(
        default=15.0, gt=1, description="A lease that is not renewed ends after this."
    )
    max_attempts: int = Field(default=3, ge=1, description="Attempts before a job fails.")
    cancel_grace_seconds: float = Field(
        default=10.0, gt=0, description="From a cancel to killing an engine that ignores it."
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("published_address", "tls_address", "api_bind")
    @classmethod
    def _address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name != "tls_address":
            split_address(value)
        return value

    @field_validator("engine_environment")
    @classmethod
    def _documented(cls, value: dict[str, str]) -> dict[str, str]:
        check_variables(value)
        return value

    @model_validator(mode="after")
    def _threads_that_never_wait(self) -> Self:
        if self.waiting_slots >= self.api_threads:
            raise ValueError(
                f"waiting_slots ({self.waiting_slots}) must be less than api_threads "
                f"({self.api_threads}): health and submissions need threads too"
            )
        return self

    @property
    def key_required(self) -> bool:
        """Whether users reach the service from outside this host."""
        return bool(self.open_address)

    @property
    def open_address(self) -> str:
        """Where users reach it from outside this host; empty if nowhere."""
        addresses = (self.published_address, self.tls_address)
        return next((each for each in addresses if each and not on_loopback(each)), "")

    @property
    def clocks(self) -> dict[str, float]:
        """Every clock in seconds, by the name of its setting."""
        return {
            name: seconds
            for name in sorted(type(self).model_fields)
            if name.endswith("_seconds") and not name.startswith("queue_")
            if (seconds := getattr(self, name)) is not None
        }

    @property
    def pinned_ids(self) -> tuple[str, ...]:
        """The ids in ``pinned_models``."""
        return tuple(word.strip() for word in self.pinned_models.split(",") if word.strip())

    @property
    def store_dir(self) -> Path:
        return self.data_dir / "store"

    @property
    def artefacts_dir(self) -> Path:
        return self.data_dir / "artefacts"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    @property
    def own_models_dir(self) -> Path:
        """Where downloads go."""
        return self.data_dir / "models"

    @property
    def model_dirs(self) -> tuple[Path, ...]:
        """Folders searched for models, the site's own first."""
        own = self.own_models_dir
        return (own,) if self.bundled_models_dir is None else (own, self.bundled_models_dir)

    def resolve_database_url(self) -> str:
        """Where the jobs are. It may hold a password: show ``Database.shown`` instead.

        Raises:
            OSError: ``database_url_file`` cannot be read.
        """
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.database_url_file is not None:
            return self.database_url_file.read_text().strip()
        return f"sqlite:///{self.store_dir / 'rockiln.db'}"

    def as_environment(self, *, trusted: bool = True) -> dict[str, str]:
        """These settings as variables for a child process, over the present environment.

        Args:
            trusted: whether the child may see secrets.
        """
        values = {
            f"{ENV_PREFIX}{name.upper()}": (
                json.dumps(value) if isinstance(value, dict) else str(value)
            )
            for name, value in self.model_dump(
                mode="json", exclude={"database_url", "hub_token"}
            ).items()
            if value is not None
        }
        if self.database_url is not None:
            values[f"{ENV_PREFIX}DATABASE_URL"] = self.database_url.get_secret_value()
        found = {**os.environ, **values}
        return found if trusted else {n: v for n, v in found.items() if n not in _SECRETS}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the library's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (likewise)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        public_dir = Path(os.environ.get(f"{ENV_PREFIX}PUBLIC_DIR", DEFAULT_PUBLIC_DIR))
        file = TomlConfigSettingsSource(settings_cls, toml_file=public_dir / "settings.toml")
        return init_settings, env_settings, file

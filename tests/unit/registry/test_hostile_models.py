"""Hostile model folders: each is refused with a reason, and nothing that they bring ever runs.

Cases from the field: pickles under other names (CVE-2024-12029), configs that name code
(CVE-2026-4372, CVE-2026-5241), paths that lead out (bulk downloads of InvokeAI before 6.7.0).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rockiln.domain.errors import BrokenModelError, RockilnError
from rockiln.engine.families.sd1 import FAMILY
from rockiln.registry import load_catalogue
from rockiln.registry.config_gate import check_config
from support.tiny_sd1 import make_tiny_sd1

Spoil = Callable[[Path, Path], object]
UNET = "unet/diffusion_pytorch_model"


class Payload:
    """Unpickled, it makes a file at ``canary``."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.canary}",))


def pickled(canary: Path, protocol: int = 2) -> bytes:
    return pickle.dumps(Payload(canary), protocol=protocol)


def zipped(canary: Path) -> bytes:
    """The layout that torch.save writes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(canary))
    return data.getvalue()


def tarred(canary: Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../../escape.pkl")
        content = pickled(canary)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def script(canary: Path) -> bytes:
    return f"#!/bin/sh\ntouch {canary}\n".encode()


def module(canary: Path) -> bytes:
    return f"import os\nos.system('touch {canary}')\n".encode()


def put(name: str, make: Callable[[Path], bytes]) -> Spoil:
    def spoil(folder: Path, canary: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make(canary))

    return spoil


def says(name: str, **values: Any) -> Spoil:
    def spoil(folder: Path, canary: Path) -> None:
        said = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        text = json.dumps(said | values).replace("CANARY", str(canary))
        (folder / name).write_text(text)

    return spoil


def instead(name: str, make: Callable[[Path], bytes]) -> Spoil:
    """A disguised file in place of a component's weights."""

    def spoil(folder: Path, canary: Path) -> None:
        (folder / name).unlink()
        (folder / name).write_bytes(make(canary))

    return spoil


def weights(change: Callable[[dict[str, Any]], object], *, tail: bytes = b"") -> Spoil:
    """Rewrites the header of the UNet's weights."""

    def spoil(folder: Path, _canary: Path) -> None:
        path = folder / f"{UNET}.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        data = content[8 + length :]
        path.write_bytes(len(text).to_bytes(8, "little") + text + data + tail)

    return spoil


def first(header: dict[str, Any], **values: Any) -> None:
    next(entry for name, entry in header.items() if name != "__metadata__").update(values)


def raw(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder, _: (folder / name).write_bytes(change((folder / name).read_bytes()))


def pipe(folder: Path, _canary: Path) -> None:
    os.mkfifo(folder / "card.json")


def link(name: str, target: str) -> Spoil:
    def spoil(folder: Path, _canary: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 0


UNET_CONFIG, TEXT_CONFIG = "unet/config.json", "text_encoder/config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
TOKENIZER_CONFIG = "tokenizer/tokenizer_config.json"

CORPUS: dict[str, tuple[Spoil, str]] = {
    # Pickles under their own names and under others.
    "torch-bin": (put(f"{UNET}.bin", zipped), "can run code"),
    "ckpt": (put("model.ckpt", zipped), "can run code"),
    "pt": (put("vae/model.PT", pickled), "can run code"),
    "pth": (put("vae/model.pth", pickled), "can run code"),
    "pkl": (put("tokenizer/vocab.pkl", pickled), "can run code"),
    "joblib": (put("scheduler/state.joblib", pickled), "can run code"),
    **{
        f"pickle-{protocol}-as-safetensors": (
            instead(f"{UNET}.safetensors", partial(pickled, protocol=protocol)),
            "unet/",
        )
        for protocol in range(6)
    },
    "zip-as-safetensors": (instead(f"{UNET}.safetensors", zipped), "unet/"),
    "zip-as-txt": (put("tokenizer/merges2.txt", zipped), "an archive or a program"),
    "zip-as-json": (put("tokenizer/extra.json", zipped), "an archive or a program"),
    "zip-as-png": (put("card.png", zipped), "an archive or a program"),
    "zip-as-sentencepiece": (put("tokenizer/spiece.model", zipped), "an archive or a program"),
    "pickle-as-txt": (put("notes.txt", pickled), "an archive or a program"),
    "pickle-as-model": (put("tokenizer/spiece.model", pickled), "an archive or a program"),
    "pickle-in-other-safetensors": (put("extra.safetensors", pickled), "extra.safetensors"),
    "gzip-as-md": (put("README.md", tarred), "an archive or a program"),
    "archive-with-traversal": (put("model.tar.gz", tarred), "is not a file"),
    "zip-behind-weights": (weights(lambda _: None, tail=b"PK\x03\x04" + bytes(64)), "padded"),
    # Code.
    "python": (put("pipeline.py", module), "is code"),
    "python-in-component": (put("unet/unet.py", module), "is code"),
    "compiled-python": (put("unet/__init__.pyc", module), "is code"),
    "shared-object": (put("unet/libx.so", script), "is code"),
    "script": (put("setup.sh", script), "is code"),
    "script-as-txt": (put("notes.txt", script), "an archive or a program"),
    "elf-as-png": (put("card.png", lambda _: b"\x7fELF" + bytes(60)), "an archive or a program"),
    "template": (put("tokenizer/template.jinja", module), "is not a file"),
    "path-config": (put("sitecustomize.pth.txt.exe", module), "is not a file"),
    # The index and configs that name foreign classes or code.
    "foreign-pipeline": (says("model_index.json", _class_name="EvilPipeline"), "EvilPipeline"),
    "pipeline-of-code": (says("model_index.json", _class_name=["pipeline", "Evil"]), "is not one"),
    "foreign-library": (says("model_index.json", unet=["os", "system"]), "unet is"),
    "local-library": (says("model_index.json", unet=["unet", "Evil"]), "unet is"),
    "class-by-path": (says("model_index.json", vae=["diffusers", "../../evil"]), "vae is"),
    "foreign-unet-class": (says(UNET_CONFIG, _class_name="AutoencoderKL"), "names"),
    "auto-map": (says(UNET_CONFIG, auto_map={"AutoModel": "evil.Evil"}), "code of its own"),
    "auto-map-text": (says(TEXT_CONFIG, auto_map={"AutoModel": "e--r/x.y"}), "code of its own"),
    "auto-map-tokenizer": (
        says(TOKENIZER_CONFIG, auto_map={"AutoTokenizer": ["evil.Evil", None]}),
        "code of its own",
    ),
    "auto-map-scheduler": (says(SCHEDULER_CONFIG, auto_map={"x": "evil"}), "code of its own"),
    "attention-from-a-hub": (
        says(TEXT_CONFIG, _attn_implementation="someone/kernels"),
        "'_attn_implementation' is no setting",
    ),
    "attention-internal": (
        says(TEXT_CONFIG, _attn_implementation_internal="someone/kernels"),
        "is no setting",
    ),
    "experts-from-a-hub": (says(TEXT_CONFIG, _experts_implementation_internal="x/y"), "no setting"),
    "quantiser": (says(TEXT_CONFIG, quantization_config={"quant_method": "x"}), "no setting"),
    "quantiser-unet": (says(UNET_CONFIG, quantization_config={}), "no setting"),
    "trust": (says(TEXT_CONFIG, trust_remote_code=True), "no setting"),
    "base-model": (says(TEXT_CONFIG, base_model_name_or_path="http://x/y"), "no setting"),
    "custom-pipelines": (says(TEXT_CONFIG, custom_pipelines={"x": {"impl": "e.E"}}), "no setting"),
    "dunder-key": (says(UNET_CONFIG, __class__="x"), "no setting"),
    "foreign-architecture": (says(TEXT_CONFIG, architectures=["EvilModel"]), "EvilModel"),
    "foreign-model-type": (says(TEXT_CONFIG, model_type="custom"), "model type"),
    "foreign-tokenizer": (says(TOKENIZER_CONFIG, tokenizer_class="EvilTokenizer"), "Evil"),
    "tokenizer-file": (says(TOKENIZER_CONFIG, tokenizer_file="/etc/passwd"), "no setting"),
    "special-file": (
        says(TOKENIZER_CONFIG, special_tokens_map_file="../../../etc/shadow"),
        "names a file",
    ),
    "tokenizer-template": (says(TOKENIZER_CONFIG, chat_template="{{ x }}"), "no setting"),
    "processor-class": (says(TOKENIZER_CONFIG, processor_class="Evil"), "no setting"),
    "scheduler-key": (says(SCHEDULER_CONFIG, callback="os.system"), "no setting"),
    "deep-config": (says(UNET_CONFIG, block_out_channels=nested(30)), "values within"),
    "long-text": (says(UNET_CONFIG, act_fn="x" * 10_000), "a text of such a length"),
    "long-list": (says(UNET_CONFIG, block_out_channels=[1] * 100_000), "a list of such"),
    "giant-number": (says(UNET_CONFIG, sample_size=10**400), "a number of such a size"),
    "not-a-number": (raw(UNET_CONFIG, lambda text: text[:-2] + b',"dropout":NaN}'), "of such"),
    "unending-json": (raw(UNET_CONFIG, lambda _: b'{"a":' * 100_000), "is not JSON"),
    # Weights that lie.
    "empty-weights": (raw(f"{UNET}.safetensors", lambda _: b""), "truncated"),
    "half-weights": (raw(f"{UNET}.safetensors", lambda data: data[: len(data) // 2]), "truncated"),
    "one-byte-short": (raw(f"{UNET}.safetensors", lambda data: data[:-1]), "truncated"),
    "huge-header": (
        raw(f"{UNET}.safetensors", lambda data: (1 << 40).to_bytes(8, "little") + data[8:]),
        "header over",
    ),
    "header-of-17-mb": (
        raw(f"{UNET}.safetensors", lambda _: (17 << 20).to_bytes(8, "little") + b" " * (17 << 20)),
        "header over",
    ),
    "header-no-json": (
        raw(f"{UNET}.safetensors", lambda _: (9).to_bytes(8, "little") + b"not json!"),
        "not a safetensors",
    ),
    "dtype-of-objects": (weights(lambda header: first(header, dtype="O")), "not a safetensors"),
    "integers": (weights(lambda header: first(header, dtype="I32")), "weights of I32"),
    "negative-shape": (weights(lambda header: first(header, shape=[-1])), "is no count"),
    "fractional-shape": (weights(lambda header: first(header, shape=[0.5])), "is no count"),
    "true-as-shape": (weights(lambda header: first(header, shape=[True])), "is no count"),
    "giant-shape": (weights(lambda header: first(header, shape=[1 << 62, 8])), "does not fit"),
    "offsets-outside": (weights(lambda header: first(header, data_offsets=[0, 1 << 50])), "fit"),
    "overlap": (
        weights(lambda header: header.update(copy=dict(next(iter(header.values()))))),
        "unet/",
    ),
    # Paths.
    "link-out": (link("card.json", "/etc/passwd"), "leads out"),
    "link-up": (link("card.json", "../../outside.json"), "leads out"),
    "link-to-weights": (link(f"{UNET}.safetensors", "/dev/zero"), "leads out"),
    "folder-link": (link("linked", "/etc"), "leads out"),
    "dangling": (link("card.json", "nowhere"), "not a plain file"),
    "loop": (link("card.json", "card.json"), "leads nowhere"),
    "pipe": (pipe, "not a plain file"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sound") / "tiny"
    make_tiny_sd1(folder)
    return folder


def test_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 60


def test_what_the_cases_spoil_is_sound(sound: Path) -> None:
    assert load_catalogue([sound.parent]).broken == {}


@pytest.mark.parametrize("case", CORPUS)
def test_hostile_folder_is_refused_and_nothing_of_it_runs(
    case: str, sound: Path, tmp_path: Path
) -> None:
    spoil, words = CORPUS[case]
    (tmp_path / "outside.json").write_text("{}")
    folder = tmp_path / "models" / "hostile"
    shutil.copytree(sound, folder)
    canary = tmp_path / "canary"
    spoil(folder, canary)
    catalogue = load_catalogue([folder.parent])
    assert catalogue.models == {}
    assert words in catalogue.broken["hostile"]
    assert not canary.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [name for name in CORPUS if name not in {"link-to-weights", "pipe", "loop"}]
)
def test_loading_past_the_gate_runs_nothing_either(
    case: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line: were the gate to fail, loading is local, safetensors only, own classes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "hostile"
    shutil.copytree(sound, folder)
    canary = tmp_path / "canary"
    CORPUS[case][0](folder, canary)
    # Refused, or no library for it; a file that nobody reads loads nothing.
    with contextlib.suppress(RockilnError, ImportError):
        FAMILY.load(folder, torch.float32, torch.device("cpu"))
    assert not canary.exists()


VISION_LANGUAGE = "Qwen2_5_VLForConditionalGeneration"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}, "code of its own"),
        ({"vision_config": {"trust_remote_code": True}}, "is no setting of"),
        ({"text_config": {"architectures": ["EvilModel"]}}, "names 'EvilModel'"),
        ({"text_config": {"model_type": "auto"}}, "of the model type 'auto'"),
        ({"text_config": {"hidden_size": "9" * 600}}, "a text of such a length"),
    ],
)
def test_a_config_within_a_config_is_judged_likewise(config: dict[str, Any], words: str) -> None:
    with pytest.raises(BrokenModelError) as raised:
        check_config(config, "text_encoder/config.json", VISION_LANGUAGE)
    assert words in raised.value.detail


def test_a_chat_template_may_be_there_and_is_data(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "models" / "talkative")
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    assert load_catalogue([tmp_path / "models"]).models["talkative"]
    FAMILY.load(folder, torch.float32, torch.device("cpu"))
    check_config({"chat_template": "{{ x }}" * 1000}, "tokenizer_config.json", "Qwen2Tokenizer")
    for kind, template in (("Qwen2Tokenizer", "x" * 100_000), ("CLIPTokenizer", "x")):
        with pytest.raises(BrokenModelError):
            check_config({"chat_template": template}, "tokenizer_config.json", kind)

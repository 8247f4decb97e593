"""Single-file checkpoints that lie, or that are something else: refused, and nothing of them runs.

``test_hostile_models`` has folders; these are the same tricks on one file, and some of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rockiln.engine.families.sd1 import FAMILY
from rockiln.registry import load_catalogue
from support.hostile_file import assert_load_runs_nothing, assert_refused
from support.single_file import write_checkpoint
from support.tiny_sd1 import make_tiny_sd1
from unit.registry.test_hostile_models import link, pickled, put, script, zipped

Spoil = Callable[[Path, Path], object]
NAME = "hostile.safetensors"
OUT = "model.diffusion_model.out.2.bias"


def raw(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda root, _: (root / NAME).write_bytes(change((root / NAME).read_bytes()))


def header(change: Callable[[dict[str, Any]], object], *, tail: bytes = b"") -> Spoil:
    def spoil(root: Path, _canary: Path) -> None:
        content = (root / NAME).read_bytes()
        length = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + length])
        change(said)
        text = json.dumps(said).encode()
        data = content[8 + length :]
        (root / NAME).write_bytes(len(text).to_bytes(8, "little") + text + data + tail)

    return spoil


def instead(name: str, make: Callable[[Path], bytes]) -> Spoil:
    """A file of another kind, under its own or a false name."""

    def spoil(root: Path, canary: Path) -> None:
        (root / NAME).unlink()
        (root / name).write_bytes(make(canary))

    return spoil


def pipe(root: Path, _canary: Path) -> None:
    (root / NAME).unlink()
    os.mkfifo(root / NAME)


def lender(spoil: Spoil) -> Spoil:
    """The folder that lends its configs is spoilt: the file then fits none."""
    return lambda root, canary: spoil(root / "lender", canary)


def rename(said: dict[str, Any], old: str, new: str) -> None:
    said[new] = said.pop(old)


CORPUS: dict[str, tuple[Spoil, str]] = {
    "ckpt": (instead("hostile.ckpt", zipped), "can run code"),
    "pt": (instead("hostile.pt", pickled), "can run code"),
    "bin": (instead("hostile.bin", zipped), "can run code"),
    "pickle-in-capitals": (instead("hostile.CKPT", pickled), "can run code"),
    **{
        f"pickle-{protocol}": (instead(NAME, partial(pickled, protocol=protocol)), "")
        for protocol in range(6)
    },
    "zip": (instead(NAME, zipped), "header over"),
    "script": (instead(NAME, script), "header over"),
    "zip-behind-weights": (header(lambda _: None, tail=b"PK\x03\x04" + bytes(64)), "padded"),
    "empty": (raw(lambda _: b""), "truncated"),
    "half": (raw(lambda data: data[: len(data) // 2]), "truncated"),
    "one-byte-short": (raw(lambda data: data[:-1]), "truncated"),
    "huge-header": (raw(lambda data: (1 << 40).to_bytes(8, "little") + data[8:]), "header over"),
    "header-of-17-mb": (
        raw(lambda _: (17 << 20).to_bytes(8, "little") + b" " * (17 << 20)), "header over",
    ),
    "header-no-json": (
        raw(lambda _: (9).to_bytes(8, "little") + b"not json!"), "not a safetensors",
    ),
    "header-a-list": (raw(lambda _: (2).to_bytes(8, "little") + b"[]"), "not a safetensors"),
    "deep-header": (
        raw(lambda _: (600_000).to_bytes(8, "little") + b'{"a":' * 120_000), "not a safetensors",
    ),
    "dtype-of-objects": (header(lambda said: said[OUT].update(dtype="O")), "not a safetensors"),
    "negative-shape": (header(lambda said: said[OUT].update(shape=[-4])), "is no count"),
    "giant-shape": (header(lambda said: said[OUT].update(shape=[1 << 62, 8])), "does not fit"),
    "offsets-outside": (header(lambda said: said[OUT].update(data_offsets=[0, 1 << 50])), "fit"),
    "integers": (header(lambda said: said[OUT].update(dtype="I32")), "weights of I32"),
    "other-shape": (header(lambda said: said[OUT].update(shape=[2, 2])), "is [2, 2], not [4]"),
    "renamed-tensor": (header(lambda said: rename(said, OUT, "x")), "is missing (and 1 more)"),
    "name-as-path": (header(lambda said: rename(said, OUT, "../../../etc/x")), "is missing"),
    "giant-name": (header(lambda said: rename(said, OUT, "x" * 1_000_000)), "is missing"),
    "link-out": (link(NAME, "/etc/passwd"), "leads out"),
    "link-up": (link(NAME, "../outside.safetensors"), "leads out"),
    "dangling": (link(NAME, "nowhere"), "not a plain file"),
    "loop": (link(NAME, NAME), "leads nowhere"),
    "pipe": (pipe, "not a plain file"),
    "manifest-as-pickle": (put("hostile.rockiln.json", pickled), "hostile.rockiln.json"),
    "manifest-link-out": (link("hostile.rockiln.json", "/etc/passwd"), "leads out"),
    "lender-with-code": (lender(put("unet/unet.py", script)), "fits the configs of no sd1"),
    "lender-with-pickle": (lender(put("unet/x.bin", zipped)), "fits the configs of no sd1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a sound file and the folder that lends its configs."""
    root: Path = tmp_path_factory.mktemp("sound")
    make_tiny_sd1(root / "lender")
    write_checkpoint(root / "lender", root / NAME)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    (tmp_path / "outside.safetensors").write_bytes((sound / NAME).read_bytes())
    shutil.copytree(sound, tmp_path / "models")
    return tmp_path / "models"


def test_what_the_cases_spoil_is_sound(sound: Path) -> None:
    catalogue = load_catalogue([sound])
    assert (catalogue.broken, sorted(catalogue.models)) == ({}, ["hostile", "lender"])


@pytest.mark.parametrize("case", CORPUS)
def test_hostile_file_is_refused_and_nothing_of_it_runs(case: str, root: Path) -> None:
    assert_refused(root, *CORPUS[case])


@pytest.mark.parametrize("case", [name for name in CORPUS if name not in {"pipe", "loop"}])
def test_loading_past_the_gate_runs_nothing_either(case: str, root: Path) -> None:
    """The second line, as for folders."""
    assert_load_runs_nothing(root, CORPUS[case][0], FAMILY, NAME)


def test_a_broken_file_hides_no_sound_one(root: Path) -> None:
    (root / "hostile.ckpt").write_bytes(b"\x80\x04")
    assert load_catalogue([root]).broken == {}


def test_names_that_are_no_id_are_told(root: Path) -> None:
    (root / NAME).rename(root / "Dream Shaper_8.safetensors")
    assert "is no model id; rename it" in load_catalogue([root]).broken["Dream Shaper_8"]

"""Lines between supervisor and engine."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from rockiln.worker.engine_process import LineReader
from rockiln.worker.protocol import (
    Cancel,
    StepDone,
    decode_command,
    decode_event,
    encode,
)


def test_what_is_sent_is_what_is_read() -> None:
    step = StepDone(job_id="a", index=0, step=1, steps=2)
    assert decode_event(encode(step)) == step
    assert decode_command(encode(Cancel(job_id="a"))) == Cancel(job_id="a")


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"event": "joy"}', b'{"event": "step_done"}', b"\xff", b"[1]"]
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_event(line)


def test_lines_are_whole_however_they_arrive() -> None:
    read, write = os.pipe()
    reader = LineReader(read)
    seen: list[bytes] = []
    for part in (b"on", b"e\ntw", b"o\n", b"", b"\nthree"):
        os.write(write, part)
        seen.extend(reader.lines())
    assert seen == [b"one", b"two", b""]
    os.close(write)
    assert list(reader.lines()) == []
    os.close(read)

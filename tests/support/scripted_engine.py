"""An engine child that speaks the real protocol, draws nothing and fails on cue.

Stands in for the interpreter (``worker_python``) of a supervisor under test. ENGINE_SCRIPT names a
file of JSON: a list with one cue per start, the last one repeating. Cues:

    good                       every job ends in a picture
    exit-before-ready          exits with status 1
    silent                     never says anything
    start-failed               says why it cannot work
    gibberish                  sends a line that is no event when a job comes
    die-at-step                SIGKILLs itself after the first step
    die-before-decode          SIGKILLs itself when the latents are stored
    abort-after-publishing     hands over the last picture, then aborts as a broken heap does
    half                       ends a job without its picture
    request-bug                fails a job for good
    deaf                       works for ever and ignores a cancel
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from rockiln.domain.fault import FaultCode
from rockiln.domain.model import DeviceFacts
from rockiln.engine.lifeline import bind_to_parent
from rockiln.store.artefacts import ArtefactStore
from rockiln.worker import protocol

DEVICE = DeviceFacts(kind="cpu", name="scripted", total_bytes=1 << 30, threads=1)


def next_cue() -> str:
    """The cue of this start; the starts are counted in a file beside the script."""
    script = Path(os.environ["ENGINE_SCRIPT"])
    cues: list[str] = json.loads(script.read_text())
    counter = script.with_suffix(".starts")
    start = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(start + 1))
    return cues[min(start, len(cues) - 1)]


def main() -> None:
    bind_to_parent()
    # The supervisor's line: PYTHON -m rockiln.engine.child DESCRIPTOR
    events = os.fdopen(int(sys.argv[-1]), "wb", buffering=0)
    cue = next_cue()
    commands = map(protocol.decode_command, sys.stdin.buffer)
    start = next(commands)
    assert isinstance(start, protocol.Start)
    match cue:
        case "exit-before-ready":
            sys.exit("no GPU in sight")
        case "silent":
            signal.pause()
        case "start-failed":
            failed = protocol.StartFailed(code=FaultCode.BROKEN_MODEL, detail="unet is torn")
            events.write(protocol.encode(failed))
            sys.exit(1)
    ready = protocol.Ready(device=DEVICE, versions={"torch": "none"}, proof_seconds=0.0)
    events.write(protocol.encode(ready))
    artefacts = ArtefactStore(Path(start.artefacts_dir))
    for command in commands:
        if isinstance(command, protocol.Run):
            for event in act(cue, command, artefacts):
                events.write(event if isinstance(event, bytes) else protocol.encode(event))
            if cue == "abort-after-publishing":
                os.abort()


def act(cue: str, job: protocol.Run, artefacts: ArtefactStore):  # type: ignore[no-untyped-def]
    """The events of one job, up to what the cue says happens."""
    job_id = job.job_id
    if cue == "gibberish":
        yield b'{"event": "wisdom"}\n'
    if cue == "request-bug":
        yield protocol.JobFailed(job_id=job_id, code=FaultCode.REQUEST_BUG, detail="no such thing")
        return
    if cue == "half":
        yield protocol.JobEnded(job_id=job_id, outcome="encoded")
        return
    for task in job.pictures:
        if task.latents is None:
            yield protocol.StepDone(job_id=job_id, index=task.index, step=1, steps=4)
            if cue == "die-at-step":
                os.kill(os.getpid(), signal.SIGKILL)
            while cue == "deaf":
                signal.pause()
            name = artefacts.put_latents(job_id, task.index, b"latents")
            yield protocol.LatentsStored(job_id=job_id, index=task.index, latents=name)
            if cue == "die-before-decode":
                os.kill(os.getpid(), signal.SIGKILL)
        yield protocol.DecodeStarted(job_id=job_id, index=task.index)
        digest = artefacts.put_picture(f"{job_id} {task.index}".encode(), "png")
        yield protocol.PictureEncoded(
            job_id=job_id,
            index=task.index,
            digest=digest,
            size_bytes=1,
            details={"resumed": task.latents is not None},
            warnings=[],
            seconds={},
        )
    if cue != "abort-after-publishing":
        yield protocol.JobEnded(job_id=job_id, outcome="encoded")


if __name__ == "__main__":
    main()

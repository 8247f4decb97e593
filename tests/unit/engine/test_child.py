"""The engine child as a process: what it says, and that it always leaves in the agreed way."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rockiln.domain.fault import FaultCode
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import plan
from rockiln.domain.request import GenerationParameters
from rockiln.engine.child import EXIT_OUT_OF_STEP, EXIT_START_FAILED, EXIT_USAGE
from rockiln.engine.picture_file import read_record
from rockiln.store.artefacts import ArtefactStore
from rockiln.worker import protocol
from support.child_process import DEADLINE_SECONDS, SOURCE, ChildProcess
from support.engine_harness import read_profile
from support.parameters import parameters
from support.tiny_sd1 import make_tiny_sd1

pytestmark = pytest.mark.slow


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    """A child that has heard nothing yet; torch is not loaded."""
    with ChildProcess(tmp_path / "child") as process:
        yield process


@pytest.fixture(scope="module")
def ready(
    tmp_path_factory: pytest.TempPathFactory, tiny: ModelProfile
) -> Iterator[tuple[ChildProcess, protocol.Ready]]:
    """A child that has proven itself; tests leave it idle and alive."""
    with ChildProcess(tmp_path_factory.mktemp("ready")) as process:
        process.start(tiny)
        yield process, process.expect(protocol.Ready)


def _run(
    model: ModelProfile, wanted: GenerationParameters, device: protocol.Ready, job_id: str = "job"
) -> protocol.Run:
    return protocol.Run(
        job_id=job_id,
        attempt=1,
        parameters=wanted,
        plan=plan(wanted, model, device.device),
        model=model,
        pictures=[protocol.PictureTask(index=index) for index in range(wanted.num_images)],
    )


def _pictures(child: ChildProcess) -> list[protocol.PictureEncoded]:
    """What one job sent to the child gives."""
    events = child.events_until(protocol.JobEnded)
    return [event for event in events if isinstance(event, protocol.PictureEncoded)]


def test_ready_tells_device_and_versions(ready: tuple[ChildProcess, protocol.Ready]) -> None:
    _, event = ready
    assert (event.device.kind, event.device.threads) == ("cpu", 1)
    assert event.device.total_bytes > 1 << 30
    assert {"rockiln", "torch", "diffusers", "transformers", "pillow"} <= set(event.versions)
    assert event.proof_seconds > 0


def test_picture_is_made_and_handed_over(
    ready: tuple[ChildProcess, protocol.Ready], tiny: ModelProfile
) -> None:
    child, device = ready
    child.send(_run(tiny, parameters(num_inference_steps=2), device))
    store = ArtefactStore(child.artefacts_dir)
    child.expect(protocol.JobTaken)
    child.expect(protocol.DenoiseStarted)
    for step in (1, 2):
        assert child.expect(protocol.StepDone).step == step
    stored = child.expect(protocol.LatentsStored)
    assert store.latents_path(stored.latents).is_file()
    child.expect(protocol.DecodeStarted)
    child.expect(protocol.EncodeStarted)
    picture = child.expect(protocol.PictureEncoded)
    assert child.expect(protocol.JobEnded).outcome == "encoded"
    data = store.picture_path(picture.digest, "png").read_bytes()
    assert hashlib.sha256(data).hexdigest() == picture.digest
    assert len(data) == picture.size_bytes
    assert read_record(data) == picture.details


def test_cancel_drops_the_job_and_another_one_is_made(
    ready: tuple[ChildProcess, protocol.Ready], tiny: ModelProfile
) -> None:
    child, device = ready
    child.send(_run(tiny, parameters(num_inference_steps=150, num_images=8), device, "long"))
    child.expect(protocol.JobTaken)
    child.expect(protocol.DenoiseStarted)
    child.expect(protocol.StepDone)
    child.send(_run(tiny, parameters(), device, "short"))
    child.send(protocol.Cancel(job_id="long"))
    ended = child.events_until(protocol.JobEnded)[-1]
    assert isinstance(ended, protocol.JobEnded)
    assert (ended.job_id, ended.outcome) == ("long", "cancelled")
    ended = child.events_until(protocol.JobEnded)[-1]
    assert isinstance(ended, protocol.JobEnded)
    assert (ended.job_id, ended.outcome) == ("short", "encoded")


def test_malformed_command_about_a_job_fails_that_job_alone(
    ready: tuple[ChildProcess, protocol.Ready], tiny: ModelProfile
) -> None:
    child, device = ready
    child.write(b'{"op": "run", "job_id": "odd", "attempt": "no number"}\n')
    failed = child.expect(protocol.JobFailed)
    assert (failed.job_id, failed.code) == ("odd", FaultCode.ENGINE_ERROR)
    child.send(_run(tiny, parameters(num_inference_steps=1), device))
    child.events_until(protocol.JobEnded)


def test_child_ignores_the_terminals_interrupt(
    ready: tuple[ChildProcess, protocol.Ready], tiny: ModelProfile
) -> None:
    child, device = ready
    child.signal(signal.SIGINT)
    child.send(_run(tiny, parameters(num_inference_steps=1), device))
    child.events_until(protocol.JobEnded)


def test_job_of_a_model_that_breaks_fails_with_the_reason(
    ready: tuple[ChildProcess, protocol.Ready], tiny: ModelProfile, tmp_path: Path
) -> None:
    child, device = ready
    gone = replace(tiny, path=str(tmp_path / "gone"))
    child.send(_run(gone, parameters(), device))
    child.expect(protocol.JobTaken)
    failed = child.expect(protocol.JobFailed)
    assert failed.code is FaultCode.BROKEN_MODEL
    assert "is gone" in failed.detail


def test_an_idle_model_leaves_a_pinned_one_stays_and_the_next_job_loads_again(
    tmp_path: Path, tiny: ModelProfile
) -> None:
    pinned = read_profile(make_tiny_sd1(tmp_path / "models" / "pinned", seed=1))
    with ChildProcess(tmp_path / "child") as child:

        def in_memory() -> list[str]:
            return [model.id for model in child.expect(protocol.ModelsInMemory).models]

        child.start(tiny, pinned=[pinned], model_idle_seconds=0.1)
        assert in_memory() == ["tiny"]
        assert in_memory() == ["tiny", "pinned"]
        device = child.expect(protocol.Ready)
        made = []
        for number in range(2):
            assert in_memory() == ["pinned"]
            child.send(_run(tiny, parameters(), device, f"job{number}"))
            events = child.events_until(protocol.JobEnded)
            made += [each for each in events if isinstance(each, protocol.PictureEncoded)]
        assert made[0].digest == made[1].digest


def test_picture_of_a_killed_child_is_finished_by_another_with_the_same_bytes(
    ready: tuple[ChildProcess, protocol.Ready], tiny: ModelProfile, tmp_path: Path
) -> None:
    child, device = ready
    run = _run(tiny, parameters(scheduler="euler_ancestral"), device)
    child.send(run)
    (whole,) = _pictures(child)
    with ChildProcess(tmp_path / "child") as killed:
        killed.start(tiny)
        killed.expect(protocol.Ready)
        killed.send(run)
        while not isinstance(event := killed.next_event(), protocol.LatentsStored):
            assert event is not None
        killed.process.kill()
        assert killed.wait() == -signal.SIGKILL
        latents = ArtefactStore(killed.artefacts_dir).latents_path(event.latents)
        shutil.copy(latents, ArtefactStore(child.artefacts_dir).latents_path(event.latents))
    task = protocol.PictureTask(index=0, latents=event.latents)
    child.send(run.model_copy(update={"pictures": [task]}))
    (resumed,) = _pictures(child)
    assert resumed.digest == whole.digest
    assert set(resumed.seconds) == {"load", "decode", "postprocess"}


def test_garbage_ends_a_ready_child_at_work(tmp_path: Path, tiny: ModelProfile) -> None:
    with ChildProcess(tmp_path / "child") as child:
        child.start(tiny)
        device = child.expect(protocol.Ready)
        child.send(_run(tiny, parameters(num_inference_steps=150, num_images=8), device))
        child.expect(protocol.JobTaken)
        child.expect(protocol.DenoiseStarted)
        child.expect(protocol.StepDone)
        child.write(b"\xff\xfe not json\n")
        assert child.wait() == EXIT_OUT_OF_STEP
        assert "a command that is none" in child.output()


def test_end_of_commands_ends_a_child_at_work(tmp_path: Path, tiny: ModelProfile) -> None:
    with ChildProcess(tmp_path / "child") as child:
        child.start(tiny)
        device = child.expect(protocol.Ready)
        child.send(_run(tiny, parameters(num_inference_steps=150, num_images=8), device))
        child.expect(protocol.JobTaken)
        child.expect(protocol.DenoiseStarted)
        child.expect(protocol.StepDone)
        child.close_commands()
        assert child.wait() == 0


def test_model_that_cannot_be_loaded_fails_the_start(tmp_path: Path, tiny: ModelProfile) -> None:
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(tiny.path, folder)
    (folder / "unet" / "config.json").unlink()
    with ChildProcess(tmp_path / "child") as child:
        child.start(replace(tiny, path=str(folder), root=str(folder.parent)))
        failed = child.expect(protocol.StartFailed)
        assert failed.code is FaultCode.BROKEN_MODEL
        assert "unet" in failed.detail
        assert child.wait() == EXIT_START_FAILED


# None of these loads torch.


def test_wheels_of_another_backend_fail_the_start(child: ChildProcess, tiny: ModelProfile) -> None:
    child.start(tiny, backend="rocm")
    failed = child.expect(protocol.StartFailed)
    assert failed.code is FaultCode.BOOT_FAILURE
    assert "is a cpu build" in failed.detail
    assert child.wait() == EXIT_START_FAILED


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"hello\n", "the first command is none"),
        (b'{"op": "cancel", "job_id": "a"}\n', "the first command is 'cancel'"),
        (b'{"op": "start"}\n', "the first command is none"),
        (b"\n", "the first command is none"),
    ],
)
def test_first_command_that_is_no_start_fails_the_start(
    child: ChildProcess, line: bytes, words: str
) -> None:
    child.write(line)
    failed = child.expect(protocol.StartFailed)
    assert failed.code is FaultCode.BOOT_FAILURE
    assert words in failed.detail
    assert child.wait() == EXIT_START_FAILED


def test_end_of_commands_before_the_start_ends_the_child(child: ChildProcess) -> None:
    child.close_commands()
    assert child.next_event() is None
    assert child.wait() == 0


def test_abort_leaves_a_stack_on_stderr(child: ChildProcess) -> None:
    _wait_for_commands_thread(child.process.pid)
    child.signal(signal.SIGABRT)
    assert child.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in child.output()
    assert "child.py" in child.output()


@pytest.mark.parametrize("arguments", [[], ["x"], ["1", "2"]])
def test_wrong_call_says_how(arguments: list[str]) -> None:
    called = subprocess.run(
        [sys.executable, "-m", "rockiln.engine.child", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    assert called.returncode == EXIT_USAGE
    assert "usage:" in called.stderr


# Stands between the test and the child, as the supervisor does: its death has to take the child
# along although the test still holds the other end of the child's commands.
_PARENT = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-m", "rockiln.engine.child", sys.argv[2]],
    stdin=int(sys.argv[1]), pass_fds=(int(sys.argv[2]),),
)
print(child.pid, flush=True)
child.wait()
"""


def test_death_of_the_parent_takes_the_child_along() -> None:
    commands, test_end = os.pipe()
    events, child_end = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(commands), str(child_end)],
        stdout=subprocess.PIPE,
        pass_fds=(commands, child_end),
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    os.close(commands)
    os.close(child_end)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        exited = os.pidfd_open(pid)
        _wait_for_commands_thread(pid)
        parent.kill()
        readable, _, _ = select.select([exited], [], [], DEADLINE_SECONDS)
    for descriptor in (exited, test_end, events):
        os.close(descriptor)
    assert readable, "the child outlived its parent"


def _wait_for_commands_thread(pid: int) -> None:
    """Returns once the child has a second thread: by then it is bound to its parent."""
    tasks = Path(f"/proc/{pid}/task")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(list(tasks.iterdir())) == 1:
        assert time.monotonic() < deadline
        os.sched_yield()


def test_variable_that_nothing_reads_fails_the_start(tmp_path: Path, tiny: ModelProfile) -> None:
    with ChildProcess(tmp_path) as child:
        child.start(tiny, environment={"MIOPEN_FIND_TIME_LIMIT": "60"})
        failed = child.expect(protocol.StartFailed)
    assert failed.code is FaultCode.BOOT_FAILURE
    assert "MIOPEN_FIND_MODE=FAST" in failed.detail

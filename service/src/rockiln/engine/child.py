"""The engine child: ``python -m rockiln.engine.child EVENTS_FD``.

Reads commands on stdin, writes events to EVENTS_FD, prints whatever libraries print to stdout and
stderr. It starts no process and always leaves by ``os._exit``:

0  end of commands, or nobody reads events any more
1  could not start; StartFailed says why
2  called wrongly
3  a command that is none and names no job: the pipe is out of step
4  the device refuses further work; JobFailed was sent for the jobs concerned
5  an error outside any job; its stack is on stderr
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from rockiln.domain.errors import RockilnError
from rockiln.domain.fault import FaultCode
from rockiln.engine.environment import prepare_environment
from rockiln.engine.lifeline import bind_to_parent, leave, read_lines, write_line
from rockiln.platforms.wheel_guard import check_wheels
from rockiln.worker import protocol

if TYPE_CHECKING:
    from rockiln.engine.engine import Engine

EXIT_START_FAILED = 1
EXIT_USAGE = 2
EXIT_OUT_OF_STEP = 3
EXIT_UNFIT_DEVICE = 4
EXIT_ENGINE_BUG = 5

Send = Callable[[protocol.Event], None]


def main() -> NoReturn:
    """Runs the child until it leaves."""
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():  # noqa: PLR2004 (the program and one word)
        sys.stderr.write("usage: python -m rockiln.engine.child EVENTS_FD\n")
        leave(EXIT_USAGE)
    descriptor = int(sys.argv[1])
    try:
        bind_to_parent()
        os.set_inheritable(descriptor, False)
        lines = read_lines(sys.stdin.buffer, at_end=lambda: leave(0))

        def send(event: protocol.Event) -> None:
            write_line(descriptor, protocol.encode(event))

        _work(_start(lines.get(), send), lines, send)
    except BaseException:  # noqa: BLE001 (nothing may reach the interpreter's own way out)
        traceback.print_exc()
        leave(EXIT_ENGINE_BUG)


def _start(line: bytes, send: Send) -> Engine:
    """Obeys the first command, which has to be Start."""

    def fail(code: FaultCode, detail: str) -> NoReturn:
        send(protocol.StartFailed(code=code, detail=detail))
        leave(EXIT_START_FAILED)

    try:
        start = protocol.decode_command(line)
    except ValidationError as error:
        fail(FaultCode.BOOT_FAILURE, f"the first command is none: {error.error_count()} errors")
    if not isinstance(start, protocol.Start):
        fail(FaultCode.BOOT_FAILURE, f"the first command is {start.op!r}, not 'start'")
    try:
        check_wheels(start.backend)
        prepare_environment(start.backend, Path(start.cache_dir), start.environment)
        gc.disable()  # to look through modules while they load took a quarter of the start
        # torch comes in here, after the guard and with the environment set.
        from rockiln.engine.start import ProofError, start_engine  # noqa: PLC0415

        gc.freeze()  # they stay; models come later, and are found again when they are dropped
        gc.enable()
        try:
            engine, ready = start_engine(start, send)
        except ProofError as error:
            fail(error.fault.code, f"no proof picture with model {start.model.id}: {error.detail}")
    except RockilnError as error:
        fail(FaultCode.BOOT_FAILURE, error.detail)
    except Exception as error:  # noqa: BLE001 (whatever it is, the supervisor is told)
        traceback.print_exc()
        fail(FaultCode.BOOT_FAILURE, f"{type(error).__name__}: {error}")
    send(ready)
    return engine


def _work(engine: Engine, lines: queue.SimpleQueue[bytes], send: Send) -> NoReturn:
    """Obeys commands at step boundaries, and works in between."""
    from rockiln.engine.engine import UnfitDeviceError  # noqa: PLC0415 (brings torch)

    try:
        while True:
            while engine.idle or not lines.empty():
                due_seconds = engine.use_pause() if engine.idle else None
                try:
                    line = lines.get(timeout=due_seconds)
                except queue.Empty:
                    continue  # what a pause is for is due
                _obey(line, engine, send)
            engine.advance()
    except UnfitDeviceError as error:
        sys.stderr.write(f"{error.detail}\n")
        leave(EXIT_UNFIT_DEVICE)


def _obey(line: bytes, engine: Engine, send: Send) -> None:
    try:
        command = protocol.decode_command(line)
    except ValidationError as error:
        detail = f"a command that is none: {error.errors(include_url=False, include_input=False)}"
        sys.stderr.write(f"{detail}\n")
        job_id = _job_named_in(line)
        if job_id is None:
            leave(EXIT_OUT_OF_STEP)
        send(protocol.JobFailed(job_id=job_id, code=FaultCode.ENGINE_ERROR, detail=detail))
        return
    match command:
        case protocol.Run():
            send(protocol.JobTaken(job_id=command.job_id))
            engine.submit(command)
        case protocol.Cancel():
            engine.cancel(command.job_id)
        case protocol.Start():
            sys.stderr.write("start was sent twice\n")
            leave(EXIT_OUT_OF_STEP)


def _job_named_in(line: bytes) -> str | None:
    """The job that a malformed command was about, if it says so."""
    try:
        job_id = json.loads(line)["job_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return job_id if isinstance(job_id, str) else None


if __name__ == "__main__":
    main()

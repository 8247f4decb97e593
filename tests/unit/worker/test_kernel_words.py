"""What the kernel says and counts, read from the kernel itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rockiln.worker.kernel_log import KernelLog
from rockiln.worker.oom_counter import counter_file, read_counter
from support.service import eventually

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
LIMIT_BYTES = 64 << 20
# Takes memory until somebody stops it.
HUNGRY = "held = []\nwhile True: held.append(bytearray(b'x' * (8 << 20)))"


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with a real limit, of the version that this host has."""
    root = V1 if (V1 / "memory.limit_in_bytes").exists() else V2
    folder = root / f"rockiln-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    name = "memory.limit_in_bytes" if root is V1 else "memory.max"
    (folder / name).write_text(str(LIMIT_BYTES))
    yield folder
    eventually(lambda: not (folder / "cgroup.procs").read_text(), "the group is empty")
    folder.rmdir()


def test_a_kill_for_memory_is_counted_in_the_group_of_the_killed(small_group: Path) -> None:
    join = f"open({str(small_group / 'cgroup.procs')!r}, 'w').write('0')"
    script = f"import sys\n{join}\nprint(flush=True)\nsys.stdin.read(1)\n{HUNGRY}"
    log = KernelLog()
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        file = counter_file(child.pid)
        assert file is not None
        assert small_group in file.parents
        before = read_counter(file)
        child.stdin.write(b"x")
        child.stdin.flush()
        assert child.wait(60) == -signal.SIGKILL
    assert (before, read_counter(file)) == (0, 1)
    if not log.unreadable:
        said: list[str] = []

        def told() -> bool:
            said.extend(log.lines())
            return any(f"process {child.pid} " in line for line in said)

        eventually(told, "the kernel logs the kill")
    log.close()


def test_this_process_has_a_counter() -> None:
    assert read_counter(counter_file()) is not None


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/box\n", "memory.events"),
        ("4:cpu:/\n3:cpu,memory:/box\n", "memory.oom_control"),
        ("nothing", None),
    ],
)
def test_where_no_group_can_be_read_the_host_counts(
    tmp_path: Path, groups: str, file: str | None
) -> None:
    (tmp_path / "7").mkdir()
    if file is not None:
        (tmp_path / "7" / "cgroup").write_text(groups)
    (tmp_path / "vmstat").write_text("nr_free 5\noom_kill 3\n")
    found = counter_file(7, proc=tmp_path)
    assert found is not None
    assert found.name in {file, "vmstat"}


def test_counters_that_do_not_count_are_none(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert read_counter(tmp_path / "memory.oom_control") is None
    assert read_counter(tmp_path / "missing") is None
    assert read_counter(None) is None


def test_records_are_read_from_now_on(tmp_path: Path) -> None:
    fifo = tmp_path / "kmsg"
    os.mkfifo(fifo)
    log = KernelLog(fifo)
    assert "seek" in log.unreadable  # what cannot be sought is no kernel log
    assert log.lines() == []


def test_a_log_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    log = KernelLog(tmp_path / "missing")
    assert "No such file" in log.unreadable
    assert log.lines() == []

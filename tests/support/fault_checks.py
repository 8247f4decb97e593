"""What must hold of a store after any fault. Each check raises AssertionError with what broke."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from rockiln.store.records import Job
from support.fault_bench import FaultBench


def check_all_done(bench: FaultBench, jobs: Iterable[Job]) -> list[Job]:
    """Every job is done, with every picture's file whole."""
    found = [bench.store.jobs.get(job.id) for job in jobs]
    wrong = Counter((job.state, job.failure_code) for job in found if job.state != "done")
    assert not wrong, f"not done: {dict(wrong)}"
    for job in found:
        check_pictures(bench, job)
    return found


def check_pictures(bench: FaultBench, job: Job) -> None:
    """The files of a done job are what their names say."""
    for picture in job.pictures:
        assert picture.digest is not None, f"job {job.id} is done without picture {picture.index}"
        path = bench.store.artefacts.picture_path(picture.digest, job.parameters.format)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == picture.digest, f"{path} is torn"


def check_no_torn_file(bench: FaultBench) -> int:
    """Each picture file on disk is whole, published or not. Returns how many there are."""
    files = [path for path in bench.settings.artefacts_dir.glob("pictures/*/*") if path.is_file()]
    whole = [path for path in files if not path.name.startswith(".tmp-")]
    for path in whole:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == path.stem, f"{path} is torn"
    return len(whole)


def check_published_once(bench: FaultBench, jobs: Iterable[Job]) -> None:
    """No picture was published by two attempts: the event log has each once."""
    for job in jobs:
        published = Counter(
            event.payload["index"]
            for event in bench.store.events.after(job.id, 0, 10_000)
            if event.kind == "published"
        )
        twice = [index for index, times in published.items() if times > 1]
        assert not twice, f"job {job.id}: pictures {twice} were published twice"
        missing = {picture.index for picture in job.pictures} - set(published)
        assert not missing, f"job {job.id}: pictures {missing} were never published"


def check_no_step_repeated(bench: FaultBench) -> None:
    """Each step of each picture was done once."""
    steps = Counter((line["job"], line["index"], line["step"]) for line in bench.ledger("step"))
    repeated = [key for key, times in steps.items() if times > 1]
    assert not repeated, f"denoised twice: {repeated[:3]}"


def check_no_latents_left(bench: FaultBench) -> None:
    """Latents go with their job."""
    left = [path.name for path in bench.settings.artefacts_dir.glob("latents/*")]
    assert not left, f"latents of ended jobs are left: {left[:3]}"

"""How an attempt ends without its pictures: next rungs, evidence, the store, a refusal."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from rockiln.domain.errors import LeaseLostError
from rockiln.domain.fault import Fault
from rockiln.domain.fingerprint import fingerprint
from rockiln.domain.job import JobState
from rockiln.domain.ladder import Rungs
from rockiln.settings import Settings
from rockiln.store.records import Job, Lease
from rockiln.store.store import Store
from rockiln.worker.attempt import Attempt
from rockiln.worker.classify import Death
from rockiln.worker.engine_host import EngineHost
from rockiln.worker.evidence import bundle, store_bundle
from rockiln.worker.rung_choice import next_rungs

log = structlog.get_logger()


class Endings:
    """Ends attempts in the store."""

    def __init__(self, settings: Settings, store: Store, engine: EngineHost) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine

    def end(self, attempt: Attempt, fault: Fault, death: Death | None) -> Job | None:
        """Ends an attempt for a fault; ``death`` if an engine died of it.

        Returns the job as it is now; None if the attempt did not own it any more.
        """
        device = attempt.ready.device
        if attempt.choice.trial and fault.climbs:
            # We tried a rung up; that it failed is not the job's fault.
            rungs, fault = attempt.choice.remembered, replace(fault, outside=True)
        else:
            rungs = next_rungs(attempt, fault, device, max_killed=self._settings.max_attempts)
        evidence = self._keep_evidence(attempt, fault, death) if death is not None else None
        return self.record(attempt.lease, fault, rungs=rungs, evidence=evidence)

    def record(
        self,
        lease: Lease,
        fault: Fault,
        *,
        rungs: Rungs | None = None,
        evidence: str | None = None,
    ) -> Job | None:
        """Writes the end down. ``rungs``: where the next attempt is to stand, if elsewhere."""
        try:
            job = self._store.jobs.end_attempt(
                lease,
                fault,
                max_attempts=self._settings.max_attempts,
                rungs=rungs,
                climbed=rungs is not None,
                evidence=evidence,
            )
        except LeaseLostError:
            log.warning("lease.lost", job_id=lease.job_id, attempt=lease.attempt)
            return None
        log.warning("attempt.failed", job_id=job.id, code=fault.code, state=job.state)
        if job.state is JobState.QUARANTINED:
            self._refuse(job, fault)
        return job

    def _keep_evidence(self, attempt: Attempt, fault: Fault, death: Death) -> str | None:
        if fault.outside:
            return None
        unreadable = self._engine.kernel_log_unreadable
        content = bundle(attempt, fault, death, kernel_log_unreadable=unreadable)
        try:
            return store_bundle(self._store.artefacts.evidence_dir, content)
        except OSError as error:
            log.error("evidence.lost", job_id=attempt.job.id, error=str(error))
            return None

    def _refuse(self, job: Job, fault: Fault) -> None:
        """Requests like this one are refused for a while."""
        until = time.time() + self._settings.refusal_seconds
        self._store.refusals.refuse(
            fingerprint(job.parameters), until, job_id=job.id, code=fault.code, detail=fault.detail
        )

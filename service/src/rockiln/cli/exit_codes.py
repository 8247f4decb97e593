"""Exit codes of ``rockiln``. 2 is a wrong command line, 130 an interrupt, as everywhere."""

from __future__ import annotations

FAILED = 1  # not ready, not healthy, could not start
USAGE = 2  # the command line is wrong
UNREACHABLE = 3  # no service answers at the address
REFUSED = 4  # the service refused the request; another request may pass
JOB_FAILED = 5  # the job was accepted and failed
JOB_CANCELLED = 6  # the job was cancelled by somebody
INTERRUPTED = 130

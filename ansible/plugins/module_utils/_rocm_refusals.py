"""PRIVATE to the collection. apt's words → the cause and the command that helps; pure."""

from __future__ import annotations

import re

CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|enough free space",
        "no space for apt in /var",
        "apt-get clean; df -h /var",
    ),
    (
        r"Conflicting values set for option Signed-By",
        "another source file names the same repository with another key",
        "grep -rl {host} /etc/apt/sources.list.d, and rename that file to *.disabled",
    ),
    (
        r"NO_PUBKEY|EXPKEYSIG|REVKEYSIG|BADSIG|is not signed|signatures? (?:were|was) invalid"
        r"|signatures couldn't be verified",
        "{source} is not signed by the catalogue's key",
        "compare the fingerprint with the vendor's page; a proxy may have replaced files",
    ),
    (
        r"Could not (?:connect|resolve)|Unable to connect|Temporary failure|timed out|Connection "
        r"|404|403|502|503|does not have a Release file|no longer has a Release file"
        r"|Failed to fetch|Certificate verification failed|Unable to fetch",
        "{source} cannot be reached",
        "curl -I {source}; behind a proxy, Acquire::http::Proxy in /etc/apt/apt.conf.d",
    ),
    (
        r"Could not get lock|Unable to lock",
        "another apt or dpkg is at work",
        "wait for it, then run again",
    ),
    (
        r"unmet dependencies|held broken packages|Unable to correct problems",
        "apt cannot install the row's packages beside what is here",
        "apt-cache policy of what it names; apt-get update where that is the distribution's",
    ),
)


def explain(words: str, source: str) -> str:
    """Cause, apt's own words, and what to do next."""
    words = words.rstrip(". ")
    host = re.sub(r"^[a-z]+://([^/]+).*$", r"\1", source)
    for pattern, cause, repair in CAUSES:
        if re.search(pattern, words):
            what, then = (text.format(source=source, host=host) for text in (cause, repair))
            return f"{what}: {words}. Next: {then}"
    return f"apt failed: {words}. Next: apt-get --simulate install shows the same by hand"

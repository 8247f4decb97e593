"""``python -m rockiln.doctor``: the table of findings, as service/docs/doctor.md has it."""

from __future__ import annotations

from rockiln.doctor.kinds import KINDS


def table() -> str:
    """Markdown, one row for an id."""
    rows = [
        f"| `{name}` | {kind.severity} | {kind.cause} | {kind.next_step} |"
        for name, kind in KINDS.items()
    ]
    return "\n".join(["| id | severity | cause | next step |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())  # noqa: T201

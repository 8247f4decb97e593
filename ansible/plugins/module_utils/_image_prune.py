"""PRIVATE to the collection. Which images of the service nothing needs any more."""

from __future__ import annotations

from ansible_collections.rockiln.host.plugins.module_utils._engine import Engine


def superfluous(engine: Engine, names: list[str], *, keep: set[str], newest: int) -> list[str]:
    """References without use; children before what they stand on."""
    listed = engine.call("ps", "--all", "--no-trunc", "--format", "{{.Image}}").output.split()
    kept = keep.union(listed)
    found = []
    for name in reversed(names):
        references = engine.call(
            "images", "--format", "{{.Repository}}:{{.Tag}}", name
        ).output.split()  # the engine lists the newest first
        found += [reference for reference in references[newest:] if reference not in kept]
    return found

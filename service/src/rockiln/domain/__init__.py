"""Pure types and rules: no I/O, no torch, no framework."""

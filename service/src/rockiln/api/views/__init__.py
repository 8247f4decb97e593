"""One blueprint per resource. Views read the request, call, and answer; nothing else."""

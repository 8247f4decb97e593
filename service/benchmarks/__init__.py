"""Figures of the service. Each result carries hardware, versions and the command."""

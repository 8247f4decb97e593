"""The ``rockiln`` command."""

"""Which models exist on this host. Reads folders; loads nothing; no torch."""

from rockiln.registry.catalogue import Catalogue, load_catalogue

__all__ = ["Catalogue", "load_catalogue"]

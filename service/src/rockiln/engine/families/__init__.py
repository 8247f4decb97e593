"""Families by the name that the registry gives their models."""

from rockiln.engine.families import sd1, sdxl
from rockiln.engine.families.interface import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (sd1.FAMILY, sdxl.FAMILY)}

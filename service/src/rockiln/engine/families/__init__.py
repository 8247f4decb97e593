"""Families by the name that the registry gives their models."""

from rockiln.engine.families import flux, sd1, sd3, sdxl
from rockiln.engine.families.interface import Family

FAMILIES: dict[str, Family] = {
    family.name: family for family in (sd1.FAMILY, sdxl.FAMILY, sd3.FAMILY, flux.FAMILY)
}

"""Families by the name that the registry gives their models."""

from rockiln.engine.families import flux, flux2, qwen_image, sd1, sd3, sdxl, z_image
from rockiln.engine.families.interface import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (sd1, sdxl, sd3, flux, flux2, z_image, qwen_image)
}

"""One model folder in the diffusers layout, checked before anything of it is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import Architecture, ModelProfile
from rockiln.registry.architecture import architecture_of_parts
from rockiln.registry.config_gate import check_config
from rockiln.registry.file_gate import check_files, check_model_id
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import FAMILY_BY_PIPELINE, FamilyLayout
from rockiln.registry.manifest import MANIFEST_NAME, profile_of, read_manifest
from rockiln.registry.quantised_weights import quantisable_parts
from rockiln.registry.weights import component_shapes, component_weights

INDEX_NAME = "model_index.json"


def read_model_folder(folder: Path, root: Path, *, model_id: str | None = None) -> ModelProfile:
    """The profile of the model in ``folder``.

    Args:
        root: what links of its files may not leave.
        model_id: the folder's name by default.

    Raises:
        BrokenModelError: the folder cannot be used; the detail says which file and why.
    """
    model_id = folder.name if model_id is None else model_id
    check_model_id(model_id)
    check_files(folder, root)
    index = read_json(folder / INDEX_NAME)
    layout = FAMILY_BY_PIPELINE.get(str(index.get("_class_name")))
    if layout is None:
        known = ", ".join(FAMILY_BY_PIPELINE)
        raise BrokenModelError(
            f"{INDEX_NAME}: pipeline {index.get('_class_name')!r} is not one this version runs "
            f"({known})"
        )
    _check_components(index, folder, layout)
    manifest = read_manifest(folder / MANIFEST_NAME, layout.name, folder.name)
    weights = component_weights(folder, layout)
    profile = replace(
        profile_of(model_id, layout, manifest, architecture_in(folder, layout)),
        path=str(folder.resolve()),
        root=str(root.resolve()),
        component_bytes={name: file.file_bytes for name, file in weights.items()},
        component_parameters={name: file.parameters for name, file in weights.items()},
        quantised={name: file.quantised for name, file in weights.items() if file.quantised},
        quantisable=quantisable_parts(
            {
                name: shapes
                for name, shapes in component_shapes(folder, layout).items()
                if weights[name].quantised is None
            }
        ),
    )
    return manifest.applied_to(profile)


def architecture_in(folder: Path, layout: FamilyLayout) -> Architecture | None:
    """The shape of a model with the configs in ``folder``, as far as they tell."""
    configs = {
        name: read_json(folder / name / "config.json") for name in layout.weighted_in(folder)
    }
    index = folder / INDEX_NAME
    distilled = index.is_file() and read_json(index).get("is_distilled") is True
    return architecture_of_parts(configs, layout.name, distilled=distilled)


def _check_components(index: dict[str, Any], folder: Path, layout: FamilyLayout) -> None:
    """Every component the family needs is declared, by a class on the list, with its config."""
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {
        **{name: (library, (kind,)) for name, (library, kind, _) in layout.weighted.items()},
        **layout.plain,
    }
    for component, (library, classes) in wanted.items():
        declared = index.get(component)
        if component in layout.optional and declared in (None, [None, None]):
            continue
        if declared not in [[library, name] for name in classes]:
            raise BrokenModelError(
                f"{INDEX_NAME}: {component} is {declared!r}, not {library} {' or '.join(classes)}"
            )
    for component, (_, kind, _) in layout.weighted_in(folder).items():
        config = read_json(folder / component / "config.json")
        check_config(config, f"{component}/config.json", kind)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    check_config(scheduler, "scheduler/scheduler_config.json", "scheduler")
    for component, (_, classes) in layout.plain_in(folder).items():
        tokenizer = folder / component
        names = ("tokenizer.json", "vocab.json")
        if not any((tokenizer / name).is_file() for name in names):
            raise BrokenModelError(f"{component}/ has neither {' nor '.join(names)}")
        own = tokenizer / "tokenizer_config.json"
        if own.exists():
            check_config(read_json(own), f"{component}/{own.name}", *classes)

"""Schedulers by name, from a model's own config."""

from __future__ import annotations

import pytest

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS
from rockiln.engine.schedulers import make_scheduler, takes_generator

# As early SD 1.x checkpoints ship it.
PNDM_CONFIG = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 0,
    "trained_betas": None,
}


@pytest.mark.parametrize("name", DIFFUSION_SCHEDULERS)
def test_every_name_has_a_scheduler_with_the_models_noise(name: str) -> None:
    scheduler = make_scheduler(name, PNDM_CONFIG | {"prediction_type": "v_prediction"})
    assert scheduler.config.beta_end == 0.012
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(7)
    # Heun looks at the network twice for each step but the last.
    assert len(scheduler.timesteps) == (13 if name == "heun" else 7)


@pytest.mark.parametrize("name", DIFFUSION_SCHEDULERS)
def test_each_row_has_an_object_of_its_own(name: str) -> None:
    assert make_scheduler(name, PNDM_CONFIG) is not make_scheduler(name, PNDM_CONFIG)


def test_early_configs_are_corrected() -> None:
    config = make_scheduler("ddim", PNDM_CONFIG).config
    assert (config.clip_sample, config.steps_offset) == (False, 1)


def test_name_decides_over_the_config() -> None:
    karras = PNDM_CONFIG | {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}
    plain = make_scheduler("dpmpp_2m", karras).config
    assert (plain.use_karras_sigmas, plain.algorithm_type) == (False, "dpmsolver++")
    assert make_scheduler("dpmpp_2m_karras", PNDM_CONFIG).config.use_karras_sigmas


def test_noise_source_goes_where_it_is_taken() -> None:
    assert takes_generator(make_scheduler("euler_ancestral", PNDM_CONFIG))
    assert not takes_generator(make_scheduler("unipc", PNDM_CONFIG))


@pytest.mark.parametrize("name", DIFFUSION_SCHEDULERS)
def test_config_that_no_scheduler_takes_is_a_broken_model(name: str) -> None:
    with pytest.raises(BrokenModelError, match=r"scheduler_config\.json"):
        make_scheduler(name, PNDM_CONFIG | {"beta_schedule": "no such schedule"})

"""What the planner makes of weights in few bits: exact ways first, and only what is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rockiln.domain.ladder import DenoiseRung, Rungs
from rockiln.domain.memory import Workload, estimate, weights_at_rest
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import Plan, admit, plan
from rockiln.domain.quantisation import QuantisedWeights
from rockiln.domain.residency import held_by
from rockiln.registry.quantised_weights import quantisable_parts
from rockiln.registry.transformer_names import diffusers_shapes, transformer_tensors
from support.known_models import CONFIGS, known_profile
from support.parameters import parameters

GIB = 1 << 30
ASKED = parameters(scheduler="flow_euler", width=1024, height=1024)
# T5-XXL: 24 blocks of four matrices of 4096 and three of 10,240.
T5: dict[str, tuple[int, ...]] = {
    f"encoder.block.{block}.layer.{name}.weight": shape
    for block in range(24)
    for name, shape in [
        *((f"0.SelfAttention.{one}", (4096, 4096)) for one in "qkvo"),
        ("1.DenseReluDense.wi_0", (10240, 4096)),
        ("1.DenseReluDense.wi_1", (10240, 4096)),
        ("1.DenseReluDense.wo", (4096, 10240)),
    ]
}


def card(gib: int, host_gib: int = 64) -> DeviceFacts:
    return DeviceFacts("gpu", "simulated", gib * GIB, 2, "rocm", "gfx1100", host_gib * GIB)


@pytest.fixture(scope="module")
def flux() -> ModelProfile:
    """With all that may be rounded."""
    transformer = transformer_tensors(CONFIGS["flux"]["transformer"], "flux")
    parts = {"transformer": diffusers_shapes(transformer), "text_encoder_2": T5}
    return replace(known_profile("flux"), quantisable=quantisable_parts(parts))


def test_rounding_is_left_out_where_something_exact_fits(flux: ModelProfile) -> None:
    assert plan(ASKED, flux, card(24)).quantisation == {}
    assert admit(ASKED, flux, card(24)).quantisation == {}


def test_t5_in_pieces_needs_no_rounding(flux: ModelProfile) -> None:
    chosen = plan(ASKED, flux, card(8))
    assert (chosen.placement, chosen.quantisation) == ("group_offload", {})


def test_t5_is_rounded_first_and_only_where_it_is_allowed(flux: ModelProfile) -> None:
    flux = replace(flux, architecture=None)  # its pieces are not known
    refused = admit(ASKED, replace(flux, quantisable={}), card(10))
    assert (refused.fits, refused.largest) == (False, None)
    found = admit(ASKED, flux, card(10))
    assert (found.fits, found.quantisation) == (True, {"text_encoder_2": "q8_0"})
    chosen = plan(ASKED, flux, card(10))
    assert chosen.quantisation == {"text_encoder_2": "q8_0"}
    assert chosen.placement != "resident"
    assert chosen.predicted_bytes <= 10 * GIB
    assert Plan.from_dict(chosen.as_dict()) == chosen
    assert chosen.needs_new_child(replace(chosen, quantisation={}))


def test_an_owner_rounds_more_and_more_stays_on_the_card(flux: ModelProfile) -> None:
    """12.6 GB of transformer and 5.2 of T5 work whole on 24 GiB, where 16 bits are offloaded."""
    both = flux.rounded(["transformer", "text_encoder_2"])
    assert plan(ASKED, flux, card(24)).placement != "resident"
    chosen = plan(ASKED, both, card(24))
    assert chosen.placement == "resident"
    assert chosen.quantisation == {"transformer": "q8_0", "text_encoder_2": "q8_0"}
    held = weights_at_rest(both, "float16", "float16", resident=True, device="gpu")
    assert held_by(flux, chosen).device_bytes == held[0]
    assert held[0] < 20e9


def test_the_part_that_is_rounded_needs_the_host_once(flux: ModelProfile) -> None:
    """FLUX's transformer is read in 16 bits before it is rounded; a GGUF file is not."""
    work = Workload(1024, 1024, 1, "float16", guided=False)
    rungs = plan(ASKED, flux, card(8)).rungs
    at_load = flux.rounded(["transformer"])
    held = replace(at_load.quantised["transformer"], at_load=False)
    from_file = replace(flux, quantised={"transformer": held})
    hosts = [estimate(each, work, rungs, card(8)).host_bytes for each in (from_file, at_load, flux)]
    whole = flux.loaded_bytes(2)["transformer"]
    assert hosts[1] - hosts[0] == whole
    assert hosts[0] < hosts[2] < hosts[1]


def test_a_layer_that_comes_back_takes_room_in_its_stage(flux: ModelProfile) -> None:
    work = Workload(1024, 1024, 1, "float16", guided=False)
    rungs = Rungs(DenoiseRung.MODEL_OFFLOAD)
    roomy = QuantisedWeights("q4_k", 0, 0, largest_parameters=0, workspace_bytes=0)
    tight = replace(roomy, workspace_bytes=GIB)
    (one, other) = (
        estimate(replace(flux, quantised={"transformer": held}), work, rungs, card(80)).by_stage
        for held in (roomy, tight)
    )
    # Not at the peak of what else is there.
    assert 0.9 * GIB < other["denoise"] - one["denoise"] < 1.1 * GIB
    assert other["encode_prompt"] == one["encode_prompt"]
    # It comes back as float16; bfloat16 is a copy more.
    wide = replace(roomy, largest_parameters=GIB // 2)
    (half, brain) = (
        estimate(
            replace(flux, quantised={"transformer": wide}),
            replace(work, dtype=dtype),
            rungs,
            card(80),
        ).by_stage["denoise"]
        for dtype in ("float16", "bfloat16")
    )
    assert 0.9 * GIB < brain - half < 1.1 * GIB

"""The plan on simulated cards. Pure: no device is asked."""

from __future__ import annotations

from dataclasses import replace

from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.model import DeviceFacts, ModelDefaults, ModelProfile
from rockiln.domain.plan import Plan, admit, plan
from support.parameters import parameters

GIB = 1 << 30
HOST = DeviceFacts(kind="cpu", name="host", total_bytes=16 * GIB, threads=2)


def card(gib: float) -> DeviceFacts:
    return DeviceFacts(kind="gpu", name="simulated", total_bytes=int(gib * GIB), threads=2)


def rocm_card(gib: float) -> DeviceFacts:
    return replace(card(gib), backend="rocm", capability="gfx1100")


def model_of(billions: float, *, bytes_on_disk: int = 4, counted: bool = True) -> ModelProfile:
    """A model of so many parameters."""
    count = int(billions * 1e9)
    return ModelProfile(
        id="simulated",
        title="",
        family="sd1",
        licence="",
        path="/nowhere",
        defaults=ModelDefaults(512, 512, 25, 7.5, "dpmpp_2m"),
        min_side_px=64,
        max_side_px=2048,
        component_bytes={"unet": count * bytes_on_disk},
        component_parameters={"unet": count} if counted else {},
    )


def test_weights_count_as_loaded_and_not_as_stored() -> None:
    stored_small = plan(parameters(), model_of(7, bytes_on_disk=2), card(24))
    stored_large = plan(parameters(), model_of(7, bytes_on_disk=4), card(24))
    assert stored_small == stored_large
    unknown = plan(parameters(), model_of(7, bytes_on_disk=4, counted=False), card(24))
    assert unknown.placement != "resident"


def test_cpu_is_exact_and_never_offloads() -> None:
    chosen = plan(parameters(), model_of(1), HOST)
    assert (chosen.device, chosen.dtype, chosen.placement) == ("cpu", "float32", "resident")
    assert (chosen.decode_dtype, chosen.decode_device) == ("float32", "device")
    assert chosen.max_batch_rows == 1
    assert chosen.rungs == Rungs()


def test_a_resident_model_is_chosen_where_it_fits_and_offload_where_it_does_not() -> None:
    placements = [plan(parameters(), model_of(3), card(gib)).placement for gib in (24, 8, 2.5)]
    assert placements == ["resident", "resident", "group_offload"]


def test_what_worked_before_is_used_before_what_is_predicted() -> None:
    remembered = Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.SMALL_TILES)
    chosen = plan(parameters(width=512, height=512), model_of(1), card(24), remembered=remembered)
    assert chosen.rungs == remembered
    assert (chosen.placement, chosen.vae_tile_px) == ("group_offload", 256)


def test_a_job_never_goes_above_the_rungs_it_climbed_to() -> None:
    floor = Rungs(DenoiseRung.MODEL_OFFLOAD, DecodeRung.CPU)
    chosen = plan(parameters(), model_of(1), card(24), remembered=Rungs(), floor=floor)
    assert chosen.rungs == floor
    assert (chosen.decode_device, chosen.decode_dtype) == ("cpu", "float32")


def test_rungs_a_device_does_not_have_are_not_planned() -> None:
    floor = Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.CPU)
    chosen = plan(parameters(), model_of(1), HOST, floor=floor)
    assert chosen.rungs == Rungs(DenoiseRung.FULL, DecodeRung.SMALL_TILES)
    assert chosen.decode_device == "device"


def test_the_last_rung_sends_one_sample_at_a_time() -> None:
    floor = Rungs(DenoiseRung.SPLIT_BATCH)
    chosen = plan(parameters(num_images=2), model_of(1), card(24), floor=floor)
    assert (chosen.split_samples, chosen.max_batch_rows) == (True, 1)


def test_a_new_child_is_needed_for_weights_dtypes_and_variables_only() -> None:
    def on(**rungs: str) -> Plan:
        floor = Rungs.from_dict({"denoise": "full", "decode": "full"} | rungs)
        return plan(parameters(width=512, height=512), model_of(1), rocm_card(24), floor=floor)

    assert not on().needs_new_child(on())
    assert not on().needs_new_child(on(decode="small_tiles"))
    assert on().needs_new_child(on(denoise="model_offload"))
    assert on().needs_new_child(on(decode="other_dtype"))
    assert on().needs_new_child(on(decode="miopen_fast_find"))
    assert on(decode="miopen_fast_find").environment == {"MIOPEN_FIND_MODE": "FAST"}


def test_plan_survives_its_own_dictionary() -> None:
    chosen = plan(parameters(), model_of(1), card(8))
    assert Plan.from_dict(chosen.as_dict()) == chosen


def test_admission_names_the_largest_size_that_fits() -> None:
    wanted = parameters(width=2048, height=1024)
    floor = Rungs(DenoiseRung.SPLIT_BATCH, DecodeRung.SMALL_TILES)
    enough = plan(parameters(width=1024, height=512), model_of(1), HOST, floor=floor)
    small = replace(HOST, total_bytes=int(enough.predicted_bytes / 0.9) + 1)
    refused = admit(wanted, model_of(1), small)
    assert not refused.fits
    assert refused.rungs is None
    assert refused.largest is not None
    width, height = refused.largest
    assert (width, height) >= (1024, 512)
    assert width == 2 * height
    assert admit(parameters(width=width, height=height), model_of(1), small).fits
    assert admit(wanted, model_of(1), card(24)).fits


def test_admission_says_when_no_size_fits() -> None:
    tiny_host = DeviceFacts(kind="cpu", name="host", total_bytes=1 * GIB, threads=2)
    refused = admit(parameters(), model_of(1), tiny_host)
    assert (refused.fits, refused.largest) == (False, None)

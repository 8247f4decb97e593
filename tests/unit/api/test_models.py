"""What is said of models, and asking for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from rockiln.domain.quantisation import QuantisedWeights
from rockiln.registry.known_models import known_models
from support.front import Front
from support.paper_model import PAPER, write_paper_model

GATED = "flux1-dev"


def model(client: FlaskClient, model_id: str) -> dict[str, Any]:
    answer = client.get(f"/models/{model_id}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.get_json()
    return document


def refused(answer: Any, slug: str, status: int = 409) -> dict[str, Any]:
    assert (answer.status_code, answer.get_json()["type"]) == (status, f"/problems/{slug}")
    document: dict[str, Any] = answer.get_json()
    return document


def test_every_known_model_has_a_state_and_what_is_here_comes_first(client: FlaskClient) -> None:
    listed = {each["id"]: each for each in client.get("/models").get_json()["models"]}
    assert next(iter(listed)) == "paper"
    assert listed["sd15"]["state"] == "downloadable"
    assert listed["sd15"]["commit"] == known_models()["sd15"].commit
    assert listed[GATED]["state"] == "gated"
    assert listed["sd21"]["lacks"][0] == "commit"
    assert listed["sdxl-lightning-4step"]["state"] == "downloadable"
    assert listed["flux2-dev"]["state"] == "unsupported"
    assert "Mistral" in listed["flux2-dev"]["reason"]
    assert "vista" not in listed  # its folder is not here


def test_a_model_says_on_which_rung_it_fits_this_device(front: Front) -> None:
    front.hand.report()
    (worker,) = front.store.workers.all()
    card = {
        "kind": "gpu", "name": "a card", "total_bytes": 8 << 30, "threads": 8, "backend": "rocm",
        "host_bytes": 64 << 30,
    }  # fmt: skip
    front.store.workers.report(replace(worker, device=card))
    (small,) = model(front.client, "sd15")["fits"]
    assert (small["fits"], small["denoise_rung"]) == (True, "full")
    (large,) = model(front.client, "sdxl")["fits"]
    assert large["fits"]
    assert large["denoise_rung"] != "full"
    assert large["predicted_bytes"] <= 8 << 30
    assert model(front.client, "flux2-dev")["fits"] == []  # no family here runs it


def test_a_model_in_few_bits_says_so(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    held = QuantisedWeights("q8_0", 32, 34, largest_parameters=32, workspace_bytes=64)
    other = replace(held, kind="q4_k")
    parts = {"unet": 10, "text_encoder": 10}
    lossy = replace(PAPER, component_bytes=parts, quantised={"unet": held, "text_encoder": other})
    monkeypatch.setitem(front.services.catalogue.models, "paper", lossy)
    assert model(front.client, "paper")["quantisation"] == {
        "unet": {"kind": "q8_0", "exact": False, "weight_error": 0.0054},
        "text_encoder": {"kind": "q4_k", "exact": False, "weight_error": 0.079},
    }
    assert "unet q8_0, text encoder q4_k" in front.client.get("/ui/models").text


def test_a_pull_is_asked_once_and_can_be_cancelled(front: Front) -> None:
    answer = front.client.post("/models/sd15/pull")
    assert answer.status_code == 202
    document = answer.get_json()
    assert (document["state"], document["task"]["state"]) == ("downloading", "asked")
    assert "rockiln fetcher" in document["reason"]
    front.store.model_tasks.sign(has_token=False, endpoint="x")
    assert "its turn" in model(front.client, "sd15")["reason"]
    again = front.client.post("/models/sd15/pull", json={})
    assert again.get_json()["task"]["asked_at"] == document["task"]["asked_at"]
    (task,) = front.store.model_tasks.open_tasks()
    front.store.model_tasks.start(task.seq)
    front.store.model_tasks.progress(task.seq, 10, bytes_total=40)
    shown = model(front.client, "sd15")["task"]
    assert (shown["bytes_done"], shown["bytes_total"]) == (10, 40)
    assert front.client.delete("/models/sd15/pull").status_code == 202
    assert not front.store.model_tasks.progress(task.seq, 20)
    front.store.model_tasks.end(task.seq, "cancelled")
    refused(front.client.delete("/models/sd15/pull"), "nothing-to-cancel")
    assert model(front.client, "sd15")["state"] == "downloadable"


def test_a_failed_download_is_broken_and_its_reason_is_told(front: Front) -> None:
    front.client.post("/models/sd15/pull")
    (task,) = front.store.model_tasks.open_tasks()
    front.store.model_tasks.end(task.seq, "failed", "other bytes", reason="broken")
    document = model(front.client, "sd15")
    assert (document["state"], document["reason"]) == ("broken", "other bytes")
    refused(
        front.client.post("/generate", json={"prompt": "x", "model": "sd15"}), "unknown-model", 404
    )
    assert front.client.post("/models/sd15/pull").status_code == 202


def test_a_gated_model_names_page_and_command_and_the_acceptance_is_kept(front: Front) -> None:
    known = known_models()[GATED]
    problem = refused(front.client.post(f"/models/{GATED}/pull"), "gated-model")
    assert problem["licence_page"] == known.licence_page
    assert problem["command"] == f"rockiln models pull {GATED} --accept-licence"
    front.store.model_tasks.sign(has_token=False, endpoint="x")
    problem = refused(
        front.client.post(f"/models/{GATED}/pull", json={"accept_licence": True}), "gated-model"
    )
    assert "token" in problem["detail"]
    accepted = front.store.model_tasks.acceptances()[GATED]
    assert (accepted.licence, accepted.commit) == (known.licence, known.commit)
    assert model(front.client, GATED)["licence_accepted"]["commit"] == known.commit
    front.store.model_tasks.sign(has_token=True, endpoint="x")
    assert front.client.post(f"/models/{GATED}/pull").status_code == 202
    (task,) = front.store.model_tasks.open_tasks()
    front.store.model_tasks.end(task.seq, "failed", "accept it there", reason="gated")
    assert model(front.client, GATED)["state"] == "gated"


@pytest.mark.parametrize(
    ("method", "path", "slug", "status"),
    [
        ("GET", "/models/none", "unknown-model", 404),
        ("POST", "/models/none/pull", "unknown-model", 404),
        ("DELETE", "/models/none/pull", "unknown-model", 404),
        ("POST", "/models/none/verify", "unknown-model", 404),
        ("DELETE", "/models/none", "unknown-model", 404),
        ("GET", "/models/..%2fetc", "unknown-route", 404),
        ("POST", "/models/paper/pull", "model-elsewhere", 409),
        ("POST", "/models/paper/verify", "model-elsewhere", 409),
        ("DELETE", "/models/paper", "model-elsewhere", 409),
        ("DELETE", "/models/sd15", "model-elsewhere", 409),
        ("POST", "/models/flux2-dev/pull", "unsupported-model", 409),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: FlaskClient, method: str, path: str, slug: str, status: int
) -> None:
    refused(client.open(path, method=method), slug, status)


def test_no_room_is_told_before_anything_is_asked(new_front: Callable[..., Front]) -> None:
    front = new_front(min_free_disk_bytes=1 << 60)
    problem = refused(front.client.post("/models/sd15/pull"), "no-space-for-model")
    assert problem["needed_bytes"] > problem["free_bytes"]
    assert front.store.model_tasks.open_tasks() == []


def test_a_model_in_use_stays_and_one_task_at_a_time(front: Front) -> None:
    write_paper_model(front.settings.own_models_dir / PAPER.id)
    job = front.submit()
    assert refused(front.client.delete("/models/paper"), "model-in-use")["jobs"] == 1
    front.client.delete(f"/jobs/{job}")
    assert front.client.post("/models/paper/verify").status_code == 202
    assert refused(front.client.delete("/models/paper"), "model-busy")["task_kind"] == "verify"
    (task,) = front.store.model_tasks.open_tasks()
    front.store.model_tasks.end(task.seq, "done", "all files have their digest")
    assert front.client.delete("/models/paper").status_code == 202


def test_a_damaged_model_is_broken_until_it_is_pulled_again(front: Front) -> None:
    seq = front.store.model_tasks.ask("sd15", "verify", owner="").seq
    front.store.model_tasks.end(seq, "failed", "unet has other bytes", reason="broken")
    document = model(front.client, "sd15")
    assert (document["state"], document["reason"]) == ("broken", "unet has other bytes")
    assert front.client.post("/models/sd15/pull").get_json()["state"] == "downloading"


def test_a_folder_that_is_no_id_is_left_alone(new_front: Callable[..., Front]) -> None:
    name = "x" * 100
    front = new_front(broken={name: "no model id"})
    refused(front.client.delete(f"/models/{name}"), "model-elsewhere")
    assert model(front.client, name)["state"] == "broken"


@pytest.mark.parametrize("body", [{"accept_licence": "yes"}, {"other": 1}])
def test_bodies_are_read_strictly(client: FlaskClient, body: dict[str, Any]) -> None:
    answer = client.post("/models/sd15/pull", json=body)
    assert answer.status_code in {400, 422}
    assert answer.get_json()["type"] == "/problems/invalid-request"

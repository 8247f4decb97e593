"""``rockiln warmup`` against the real api, worker and engine, as an operator runs it."""

from __future__ import annotations

import json

from support.service import Service


def test_a_size_is_warmed_and_nothing_is_published(service: Service) -> None:
    before = service.files("artefacts")
    ran = service.command("warmup", "tiny", "--sizes", "64x64,96x64", "--json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["model"] == "tiny"
    assert [(size["size"], size["state"]) for size in said["sizes"]] == [
        ("64x64", "done"),
        ("96x64", "done"),
    ]
    jobs = service.get("/jobs?limit=2").json()["jobs"]
    assert [(job["purpose"], job["state"]) for job in jobs] == [("warm_up", "done")] * 2
    for job in jobs:
        assert service.get(f"/jobs/{job['id']}/artefacts/0").status_code == 404
        assert job["id"] not in service.get("/ui/gallery").text
    assert service.files("artefacts") == before
    # The size's times are known from here on: its next decode has the clock of a warmed one.
    picture = service.submit(prompt="a boat", width=96, height=64, num_inference_steps=2)
    assert service.wait_for(picture, "done")["purpose"] == "picture"


def test_kernels_of_a_host_without_a_gpu_are_not_exported(service: Service) -> None:
    ran = service.command("cache", "export", str(service.data_dir / "kernels.tar"))
    assert ran.returncode == 1
    assert "no engine has worked on a GPU" in ran.stderr
    assert not (service.data_dir / "kernels.tar").exists()

"""A PNG dragged onto the gallery fills the form; sending that form makes the same bytes."""

from __future__ import annotations

import io
import json
import os
import random
from html.parser import HTMLParser
from typing import Any

import httpx
from PIL import Image

from support.service import Service

# The long form: ROCKILN_TEST_PICTURES=100.
PICTURES = int(os.environ.get("ROCKILN_TEST_PICTURES", "3"))
WORDS = (
    "a red boat", "(fog:1.3)", "[snow]", "Wald & Wiesen", "\u5c71\u6c34", 'a "sign"', "<b>", "\\(",
)  # fmt: skip


class Form(HTMLParser):
    """What a browser would send of the form ``#form`` as it stands."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._inside = False
        self._name: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = given.get("id") == "form"
        name = given.get("name")
        if not self._inside:
            return
        if tag == "input" and name and given.get("type") != "file":
            if given.get("type") != "radio" or "checked" in given:
                self.fields[name] = given.get("value") or ""
        elif tag in {"textarea", "select"} and name:
            self._name = name
            if tag == "textarea":
                self.fields[name] = ""
        elif tag == "option" and self._name is not None:
            value = given.get("value") or ""
            if "selected" in given:
                self.fields[self._name] = value
            self.fields.setdefault(self._name, value)

    def handle_data(self, data: str) -> None:
        if self._name and self.lasttag == "textarea":
            self.fields[self._name] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in {"textarea", "select"}:
            self._name = None
        if tag == "form":
            self._inside = False


def made_up(chance: random.Random, schedulers: list[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": " ".join(chance.choices(WORDS, k=chance.randrange(1, 6))),
        "negative_prompt": " ".join(chance.choices(WORDS, k=chance.randrange(3))),
        "width": 8 * chance.randrange(8, 13),
        "height": 8 * chance.randrange(8, 13),
        "num_inference_steps": chance.randrange(2, 5),
        "guidance_scale": chance.choice([1, 1.5, 2.3456789, 4]),
        "seed": chance.choice([0, 2**32 - 1, chance.randrange(2**32)]),
        "scheduler": chance.choice(schedulers),
        "prompt_syntax": chance.choice(["plain", "weighted"]),
    }
    if chance.random() < 0.3:
        body["hires"] = {"width": 128, "height": 136, "strength": chance.choice([0.55, 0.7])}
    return body


def differences(one: bytes, other: bytes) -> dict[str, Any]:
    """Of what the two pictures say of themselves, and whether their pixels are equal."""
    first, second = (Image.open(io.BytesIO(data)) for data in (one, other))
    said, again = (json.loads(str(each.info["rockiln"]))["parameters"] for each in (first, second))
    told = {name: (said.get(name), again.get(name)) for name in said.keys() | again.keys()}
    different: dict[str, Any] = {name: pair for name, pair in told.items() if pair[0] != pair[1]}
    return {**different, "pixels": first.tobytes() == second.tobytes(), "of": said}


def test_a_dragged_picture_is_made_again(service: Service) -> None:
    chance = random.Random(3)  # noqa: S311 (no secret)
    (model,) = service.get("/models").json()["models"][:1]
    # With random weights an ancestral sampler soon gives noise that is no number.
    schedulers = [name for name in model["schedulers"] if "ancestral" not in name]
    with httpx.Client(base_url=service.url, timeout=120) as browser:
        done = 0
        while done < PICTURES:
            body = made_up(chance, schedulers)
            made = browser.post("/generate", json=body)
            if made.status_code == 500 and made.json()["code"] == "bad_output":
                continue  # likewise, now and then
            assert made.status_code == 200, (body, made.text)
            done += 1
            token = Form(browser.get("/ui/").text).fields["form_token"]
            filled = browser.post(
                "/ui/restore",
                files={"form_token": (None, token), "file": ("a.png", made.content, "image/png")},
            )
            assert filled.status_code == 200, filled.text
            form = Form(filled.text).fields
            sent = browser.post(
                "/ui/generate", files={name: (None, text) for name, text in form.items()}
            )
            assert sent.status_code == 303, (body, form, sent.text)
            job_id = sent.headers["Location"].partition("/jobs/")[2].partition("?")[0]
            service.wait_for(job_id, "done")
            again = browser.get(f"/jobs/{job_id}/artefacts/0")
            assert again.content == made.content, differences(made.content, again.content)

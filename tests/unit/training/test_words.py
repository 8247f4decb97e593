"""Captions say what the scene has; the tokenizer reads what captions say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from training import phrases
from training.attributes import ATTRIBUTES, UNKNOWN, labels, scene_attributes
from training.captions import caption_at, describe, foreign_word
from training.evaluate import held_out_prompts
from training.networks import TOKEN_COUNT
from training.scenes import Scene, scene_at
from training.tokenizer import build_tokenizer

SCENES = [scene_at(11, i) for i in range(300)]


def caption_pairs() -> list[tuple[Scene, str, dict[str, str]]]:
    found = []
    for i, scene in enumerate(SCENES):
        caption = describe(scene, random.Random(i))
        found.append((scene, caption.text, caption.said))
    return found


def test_a_caption_says_only_what_is_there() -> None:
    for scene, _, said in caption_pairs():
        true = scene_attributes(scene)
        assert {name: true[name] for name in said} == said


def test_what_is_said_is_in_the_text() -> None:
    for _, text, said in caption_pairs():
        for thing, nouns in (("house", phrases.HOUSE), ("boat", phrases.BOAT)):
            assert (thing in said) == any(
                f" {noun.split()[-1]} " in f" {text.replace(',', '')} " for noun in nouns
            )
            if f"{thing}_colour" in said:
                assert said[f"{thing}_colour"] in text
        for name, table in (("relief", phrases.RELIEF), ("clouds", phrases.CLOUDS)):
            if name in said:
                assert any(phrase in text for phrase in table[said[name]])


def test_every_attribute_is_named_often_enough_to_be_judged() -> None:
    said = [caption.said for caption in held_out_prompts(1000)]
    for name in ATTRIBUTES:
        assert sum(name in one for one in said) >= 50


def test_labels_follow_the_table() -> None:
    row = labels({"time": "night", "house_colour": "purple"})
    assert row[list(ATTRIBUTES).index("time")] == ATTRIBUTES["time"].index("night")
    assert row[list(ATTRIBUTES).index("house_colour")] == ATTRIBUTES["house_colour"].index("purple")
    assert row.count(UNKNOWN) == len(ATTRIBUTES) - 2


def test_caption_stream_is_a_function_of_its_numbers() -> None:
    scene = SCENES[0]
    assert caption_at(scene, 1, 2, 3) == caption_at(scene, 1, 2, 3)
    assert len({caption_at(scene, 1, 2, k).text for k in range(6)}) > 3


def test_every_caption_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    for word in phrases.vocabulary():
        ids = tokenizer.encode(word)
        assert ids[2] == tokenizer.vocabulary["<|endoftext|>"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_encodes_as_the_library_does_and_decodes_back(reference: CLIPTokenizer) -> None:
    tokenizer = build_tokenizer()
    rng = random.Random(3)
    texts = [text for _, text, _ in caption_pairs()[:100]]
    texts += ["", "!!!", "a cat in a car", "Überraschung 42 & #tags", "word " * 100]
    texts += [" ".join(foreign_word(rng) for _ in range(4)) for _ in range(50)]
    theirs = reference(
        texts, padding="max_length", truncation=True, max_length=TOKEN_COUNT
    ).input_ids
    for text, ids in zip(texts, theirs, strict=True):
        assert tokenizer.encode(text) == ids
    for text in texts[:100]:
        back = reference.decode(tokenizer.encode(text), skip_special_tokens=True)
        assert back.replace(" ,", ",") == text.replace(" ,", ",")

"""Captions of scenes, and what each of them says."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from training import phrases
from training.attributes import Presence
from training.scenes import LightKind, Placed, Scene, Sky, Trees


@dataclass(frozen=True, slots=True)
class Caption:
    """``said``: attribute name -> value, only for what the text states."""

    text: str
    said: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Fragment:
    text: str
    lead: tuple[str, ...]
    said: dict[str, str]


_FOREIGN_SHARE = 0.06
_NONSENSE_SHARE = 0.03


def foreign_word(rng: random.Random) -> str:
    """A word from outside the vocabulary: random letters, or halves of known words."""
    words = phrases.vocabulary()
    if rng.random() < 0.5:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9)))
    if rng.random() < 0.15:
        return "".join(rng.choices(string.digits + ".;:!?-éüñß中山海#&'()", k=rng.randint(1, 4)))
    first, second = rng.choice(words), rng.choice(words)
    return first[: rng.randint(1, 4)] + second[-rng.randint(1, 4) :]


def _placed(rng: random.Random, name: str, placed: Placed, nouns: tuple[str, ...]) -> _Fragment:
    said: dict[str, str] = {name: Presence.PRESENT}
    noun = rng.choice(nouns)
    if rng.random() < 0.9:
        said[f"{name}_colour"] = placed.colour
        noun = f"{placed.colour} {noun}"
    if rng.random() < 0.75:
        noun = f"a {noun}"
    if rng.random() < 0.75:
        said[f"{name}_side"] = placed.side
        noun = f"{noun} {rng.choice(phrases.SIDE[placed.side])}"
    return _Fragment(noun, ("with", "and", ""), said)


def _speaks(rng: random.Random, absent: bool = False) -> bool:
    """Whether to mention a thing; what is absent is mostly left out."""
    return rng.random() < (0.35 if absent else 0.85)


def _sky_words(rng: random.Random, scene: Scene) -> list[_Fragment]:
    found: list[_Fragment] = []
    if _speaks(rng):
        found.append(_Fragment(rng.choice(phrases.TIME[scene.time]), ("",), {"time": scene.time}))
    if _speaks(rng):
        lead: tuple[str, ...] = ("under a", "a", "")
        if scene.sky is Sky.AURORA and rng.random() < 0.7:
            text, lead = rng.choice(phrases.AURORA), ("with", "under", "")
        else:
            text = f"{rng.choice(phrases.SKY[scene.sky])} sky"
        found.append(_Fragment(text, lead, {"sky": scene.sky}))
    return found


def _land_words(rng: random.Random, scene: Scene) -> list[_Fragment]:
    found: list[_Fragment] = []
    if _speaks(rng, scene.relief == "none"):
        text = rng.choice(phrases.RELIEF[scene.relief])
        lead: tuple[str, ...] = ("with", "in front of", "and", "")
        found.append(_Fragment(text, lead, {"relief": scene.relief}))
    if _speaks(rng, scene.water == "none"):
        lead = ("",) if scene.water == "none" else ("by", "near", "with", "")
        text = rng.choice(phrases.WATER[scene.water])
        found.append(_Fragment(text, lead, {"water": scene.water}))
    if _speaks(rng):
        text = rng.choice(phrases.GROUND[scene.ground])
        found.append(_Fragment(text, ("with", "and", ""), {"ground": scene.ground}))
    return found


def _tree_words(rng: random.Random, trees: Trees | None) -> list[_Fragment]:
    if trees is None:
        if not _speaks(rng, absent=True):
            return []
        return [_Fragment(rng.choice(phrases.TREES["none"]), ("",), {"trees": "none"})]
    if not _speaks(rng):
        return []
    said: dict[str, str] = {}
    text = "trees"
    if rng.random() < 0.93:
        said["trees"] = trees.kind
        text = rng.choice(phrases.TREES[trees.kind])
    if rng.random() < 0.75:
        said["tree_side"] = trees.side
        text = f"{text} {rng.choice(phrases.TREE_SIDE[trees.side])}"
    return [_Fragment(text, ("with", "and", ""), said)]


def _fragments(rng: random.Random, scene: Scene) -> list[_Fragment]:
    """The things to say, each left out now and then."""
    found = _sky_words(rng, scene) + _land_words(rng, scene) + _tree_words(rng, scene.trees)
    if scene.house and rng.random() < 0.94:
        found.append(_placed(rng, "house", scene.house, phrases.HOUSE))
    if scene.boat and rng.random() < 0.94:
        found.append(_placed(rng, "boat", scene.boat, phrases.BOAT))
    if _speaks(rng):
        text = rng.choice(phrases.CLOUDS[scene.clouds])
        found.append(_Fragment(text, ("with", "and", ""), {"clouds": scene.clouds}))
    found += _light(rng, scene)
    if scene.birds and rng.random() < 0.94:
        said: dict[str, str] = {"birds": Presence.PRESENT}
        found.append(_Fragment(rng.choice(phrases.BIRDS), ("with", "and", ""), said))
    return found


def _light(rng: random.Random, scene: Scene) -> list[_Fragment]:
    light = scene.light
    if light is None:
        if rng.random() < 0.25:
            text = rng.choice(phrases.LIGHT["none"])
            return [_Fragment(text, ("",), {"light": LightKind.NONE})]
        return []
    if rng.random() > 0.85:
        return []
    said: dict[str, str] = {"light": light.kind}
    text = rng.choice(phrases.LIGHT[light.kind])
    if light.kind is not LightKind.SUN and rng.random() < 0.15:
        # "the moon" leaves its shape open.
        text, said = "the moon", {}
    if rng.random() < 0.7:
        said["light_side"] = light.side
        text = f"{text} {rng.choice(phrases.SIDE[light.side])}"
    return [_Fragment(text, ("with", "and", ""), said)]


def _join(rng: random.Random, fragments: list[_Fragment]) -> str:
    tags = rng.random() < 0.5
    parts: list[str] = []
    for i, fragment in enumerate(fragments):
        lead = "" if tags or i == 0 else rng.choice(fragment.lead)
        text = f"{lead} {fragment.text}".strip().replace("a a ", "a ")
        comma = "," if parts and (tags or rng.random() < 0.6) else ""
        parts.append(f"{comma} {text}" if parts else text)
    text = "".join(parts)
    if rng.random() < 0.3:
        text = f"{rng.choice(phrases.OPENINGS)}{rng.choice((',', '', ''))} {text}"
    return text


def describe(scene: Scene, rng: random.Random) -> Caption:
    """A caption in the model's own words."""
    fragments = _fragments(rng, scene)
    rng.shuffle(fragments)
    if rng.random() < 0.25 and len(fragments) > 3:
        # Short prompts are what people type first.
        fragments = fragments[: rng.randint(1, 4)]
    said: dict[str, str] = {}
    for fragment in fragments:
        said |= fragment.said
    return Caption(_join(rng, fragments), said)


def training_caption(scene: Scene, rng: random.Random) -> Caption:
    """As ``describe``, now and then with words that mean nothing here.

    They teach the text encoder to overlook what it does not know: a prompt from outside this world
    must still give a landscape.
    """
    chance = rng.random()
    if chance < _NONSENSE_SHARE:
        return Caption(" ".join(foreign_word(rng) for _ in range(rng.randint(1, 6))), {})
    caption = describe(scene, rng)
    if chance > _NONSENSE_SHARE + _FOREIGN_SHARE:
        return caption
    words = caption.text.split(" ")
    for _ in range(rng.randint(1, 3)):
        words.insert(rng.randint(0, len(words)), foreign_word(rng))
    return Caption(" ".join(words), caption.said)


def caption_at(scene: Scene, seed: int, index: int, variant: int) -> Caption:
    """Training caption number ``variant`` of scene ``index``: a function of its numbers alone."""
    rng = random.Random(((seed << 32) ^ index) * 64 + variant + 1)
    return training_caption(scene, rng)

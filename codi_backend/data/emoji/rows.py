"""The rows of the manifest: which files belong together, their captions, their split and their licences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .captions import image_caption, speech_caption, video_caption
from .concepts import Concept, by_emoji
from .packages import SPEECH_LICENCE, licence_of
from .performances import Performance
from .speech import HELD_OUT, VOICES, Voice
from .splits import choose, held_out_style, share
from .styles import STYLES, THREE_D, Style

_SAMPLES = 0.1  # held out
_VOICES_AN_IMAGE = 3  # so that there are about as many pairs with speech as with instruments
_SOUNDFONT, _SAMPLE_PACKAGE = "fluid-soundfont-gm", "supersonic-scsynth-samples"


@dataclass(frozen=True)
class Row:
    """A row of the manifest; its fields are the columns."""

    text: str
    image: str = ""
    video: str = ""
    audio: str = ""
    split: str = "train"
    kind: str = ""
    emoji: str = ""
    concept: str = ""
    style: str = ""
    voice: str = ""
    licence: str = ""
    source: str = ""


@dataclass
class Inventory:
    """What there is.

    Attributes
    ----------
    images, speech : dict of str to set of str
        Keys of concepts by style and by voice.
    videos : dict of str to str
        The package of an animation by the key of its concept.
    samples : mapping of str to str
        Captions by name.
    """

    concepts: Sequence[Concept] = ()
    images: dict[str, set[str]] = field(default_factory=dict)
    videos: dict[str, str] = field(default_factory=dict)
    speech: dict[str, set[str]] = field(default_factory=dict)
    performances: Sequence[Performance] = ()
    samples: Mapping[str, str] = field(default_factory=dict)

    def styles(self, concept: Concept) -> list[Style]:
        """The styles that have a concept."""
        return [style for style in STYLES if concept.key in self.images.get(style.name, ())]


def image_path(style: Style, key: str) -> str:
    return f"images/{style.name}/{key}.png"


def video_path(key: str) -> str:
    return f"videos/{THREE_D.name}/{key}.webp"


def speech_path(voice: Voice, key: str) -> str:
    return f"speech/{voice.name.replace('+', '-')}/{key}.flac"


def performance_path(performance: Performance) -> str:
    return f"instruments/{performance.name}.flac"


def sample_path(name: str) -> str:
    return f"samples/{name}.flac"


def rows(there: Inventory) -> Iterator[Row]:
    """All rows, in a fixed order.

    A concept in a style, an animation, a spoken name, a performance and a sample each have a row. Further rows join the
    image, and the animation where there is one, with voices that speak the name, or with what the instrument plays.
    """
    for concept in there.concepts:
        yield from _seen(there, concept)
        yield from _spoken(there, concept)
    yield from _played(there)
    for name, caption in there.samples.items():
        split = "test" if share("sample", name) < _SAMPLES else "train"
        yield Row(caption, audio=sample_path(name), split=split, kind="sample", **_from(_SAMPLE_PACKAGE))


def _seen(there: Inventory, concept: Concept) -> Iterator[Row]:
    for style in there.styles(concept):
        parts = _parts(there, concept, style)
        image = parts | {"video": ""} | _from(style.package)
        yield Row(image_caption(concept, style.words), kind="image", **image)
        if parts["video"]:
            yield Row(video_caption(concept, style.words), kind="video", **parts)


def _spoken(there: Inventory, concept: Concept) -> Iterator[Row]:
    able = [voice for voice in VOICES if concept.key in there.speech.get(voice.name, ())]
    for voice in able:
        split = "test" if voice.name in HELD_OUT else "train"
        yield Row(
            speech_caption(concept, voice.words),
            audio=speech_path(voice, concept.key), split=split, kind="speech", emoji=concept.emoji,
            concept=concept.name, voice=voice.name, licence=SPEECH_LICENCE, source="espeak-ng",
        )  # fmt: skip
    for style in there.styles(concept):
        parts = _parts(there, concept, style)
        # Pairs for testing are new in both parts.
        voices = [voice for voice in able if (voice.name in HELD_OUT) == (parts["split"] == "test")]
        voices.sort(key=lambda voice: share("voice", concept.key, style.name, voice.name))
        for voice in voices[:_VOICES_AN_IMAGE]:
            text = f"{_look(concept, style, parts)}, and {speech_caption(concept, voice.words)}"
            joined = parts | {"audio": speech_path(voice, concept.key), "voice": voice.name}
            joined |= {
                "licence": f"{parts['licence']} AND {SPEECH_LICENCE}",
                "source": f"{parts['source']}; espeak-ng",
            }
            yield Row(text, kind="image+speech", **joined)


def _played(there: Inventory) -> Iterator[Row]:
    for performance in there.performances:
        audio = performance_path(performance)
        split = "test" if performance.held_out else "train"
        emoji = performance.instrument.emoji
        yield Row(
            performance.caption, audio=audio, split=split, kind="instrument", emoji=emoji,
            concept=performance.instrument.name.replace("_", " "), **_from(_SOUNDFONT),
        )  # fmt: skip
        concept = by_emoji(there.concepts, emoji)
        if concept is None or not there.styles(concept):
            continue
        style = choose(there.styles(concept), "style", performance.name)
        parts = _parts(there, concept, style)
        joined = parts | _from(*parts["source"].split("; "), _SOUNDFONT) | {"audio": audio}
        joined["split"] = "test" if "test" in (split, parts["split"]) else "train"
        yield Row(f"{_look(concept, style, parts)}, and {performance.caption}", kind="image+instrument", **joined)


def _parts(there: Inventory, concept: Concept, style: Style) -> dict[str, str]:
    """The columns of a concept in a style, with its animation if there is one."""
    held_out = held_out_style(concept.key, [other.name for other in there.styles(concept)])
    animation = there.videos.get(concept.key) if style is THREE_D else None
    return {
        "image": image_path(style, concept.key),
        "video": video_path(concept.key) if animation else "",
        "split": "test" if held_out == style.name else "train",
        "emoji": concept.emoji,
        "concept": concept.name,
        "style": style.words,
        **_from(style.package, *([animation] if animation else [])),
    }


def _look(concept: Concept, style: Style, parts: Mapping[str, str]) -> str:
    return (video_caption if parts["video"] else image_caption)(concept, style.words)


def _from(*packages: str) -> dict[str, str]:
    """The columns on the origin of files."""
    licences = dict.fromkeys(licence_of(package) for package in packages)
    return {"licence": " AND ".join(licences), "source": "; ".join(packages)}


def counts(made: Collection[Row]) -> dict[str, dict[str, int]]:
    """Numbers of rows by kind and split."""
    kinds = dict.fromkeys(row.kind for row in made)
    return {
        kind: {split: sum((row.kind, row.split) == (kind, split) for row in made) for split in ("train", "test")}
        for kind in kinds
    }

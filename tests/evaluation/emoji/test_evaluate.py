"""`codi evaluate --data` on a made dataset, by an oracle that is always right and by one that is always wrong."""

import json

import numpy as np
import pytest
import torch
from emoji_dataset import COLOURS, HARMONICS, STYLES, WORDS, picture, tone, word, write_dataset
from torch import nn

from codi_backend.cli.main import main
from codi_backend.conditioning.prompt import Prompt
from codi_backend.config import AudioAutoencoderConfig, CoDiConfig, ImageAutoencoderConfig
from codi_backend.data.emoji.captions import NUMBERS
from codi_backend.evaluation.emoji import build_judge
from codi_backend.evaluation.emoji.manifest import number_of_notes
from codi_backend.evaluation.emoji.runs import RUNS, first_concept
from codi_backend.evaluation.evaluate import evaluate

CONCEPTS, PLAYED = tuple(COLOURS), tuple(HARMONICS)
SAMPLES = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"))


class Oracle(nn.Module):
    """Embeddings are (concept, style, instrument, notes), with -1 for what a prompt does not state."""

    config = CoDiConfig(
        name="oracle",
        image_autoencoder=ImageAutoencoderConfig(image_size=64),
        audio_autoencoder=AudioAutoencoderConfig(seconds=2.56),
    )
    outputs = ("text", "image", "audio")
    prompt_encoders = ("text", "image", "audio")

    def __init__(self, dataset):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.judges = {name: build_judge(dataset, name) for name in ("concept", "style", "word")}

    def prompt(self, name, content, sample_rate=None):
        assert sample_rate == (16000 if name == "audio" else None)
        stated = torch.tensor([getattr(self, f"_of_{name}")(one) for one in content], dtype=torch.float)
        return Prompt(stated[:, None], stated[:, None])

    def _of_text(self, text):
        style = next((i for i, name in enumerate(STYLES) if name in text), -1)
        player = next((i for i, name in enumerate(PLAYED) if f"{name} plays" in text), -1)
        concept = first_concept(text, list(CONCEPTS))
        notes = number_of_notes({"text": text})
        return CONCEPTS.index(concept) if concept else -1, style, player, NUMBERS.index(notes) if notes else -1

    def _of_image(self, pixels):
        concept, style = (self.judges[name].rank(pixels)[0] for name in ("concept", "style"))
        return CONCEPTS.index(concept), STYLES.index(style), 0 if concept == "flute" else -1, -1

    def _of_audio(self, wave):
        return CONCEPTS.index(self.judges["word"].rank(wave)[0]), -1, -1, -1

    def encode(self, name, content):
        return content

    def generate(self, prompts, outputs, *, steps, sampler, guidance, seed, alignment, candidates, held=None):
        made = {name: [] for name in outputs}
        for i, row in enumerate(prompts.embedding[:, 0].int().tolist()):
            stated = self._of_image(held["image"][i]) if held else row
            for name in outputs:
                rng = np.random.default_rng((seed, i, *(b"all" if alignment == "paper" else name.encode())))
                drawn = int(rng.integers(len(CONCEPTS))), int(rng.integers(len(STYLES)))
                concept, style = (s if s >= 0 else d for s, d in zip(stated, drawn))
                made[name].append(self._make(name, concept, style, *stated[2:]))
        waves = torch.stack(made.pop("audio"))[:, None] if "audio" in made else None
        images = {name: torch.stack(made[name]) for name in made if name == "image"}
        return made | images | ({} if waves is None else {"audio": {"waveform": waves, "sample_rate": 16000}})

    @staticmethod
    def _make(name, concept, style, player, notes):
        if name == "text":
            return f"a {CONCEPTS[concept]}, {STYLES[style]} style"
        if name == "image":
            pixels = picture(list(COLOURS.values())[concept], 64, 15, 30, STYLES[style])
            return torch.from_numpy(pixels).permute(2, 0, 1) / 255
        if player >= 0:
            return torch.from_numpy(tone(HARMONICS[PLAYED[player]], 320, max(notes, 1)))
        return torch.from_numpy(word(WORDS[CONCEPTS[concept]], 7))


@pytest.fixture(scope="module")
def tables(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("evidence")
    text = evaluate(Oracle(dataset), out, SAMPLES, data=dataset, log=lambda line: None)
    made = json.loads((out / "evaluation.json").read_text())
    assert text == (out / "evaluation.md").read_text() and made["prompts"] == dict.fromkeys(RUNS, SAMPLES)
    assert not made["missing"] and len(made["data"]) == 12
    return {key: {(f["row"], f["column"]): f for f in figures} for key, figures in made["tables"].items()}


@pytest.mark.parametrize("table", ["images", "speech", "instruments"])
def test_all_is_right(tables, table):
    assert {f["value"] for f in tables[table].values()} == {1.0}
    assert all(f["met"] in (True, None) for f in tables[table].values())


def test_every_run_is_in_a_table(tables):
    assert {row for row, _ in tables["images"]} == {
        "text → image", "text → image, unseen pairs", "image → text", "image → text, unseen pairs",
        "speech → image", "speech → image, unseen voices",
    }  # fmt: skip
    assert len({row for row, _ in tables["speech"]}) == len({row for row, _ in tables["instruments"]}) == 4
    assert len({row for row, _ in tables["joint"]}) == 3


def test_agreement(tables):
    joint, apart = (tables["joint"][f"style alone{how}", "all three"] for how in ("", ", independent"))
    assert joint["value"] == 1 and joint["met"] and apart["value"] < 0.5 and apart["target"] is None
    assert tables["joint"]["style alone", "style of the image"]["value"] == 1


def test_notes_of_all_instruments_are_counted(tables):
    for row in ("text → instrument", "text → instrument, unseen performances"):
        assert tables["instruments"][row, "notes"]["n"] == tables["instruments"][row, "instrument"]["n"] == SAMPLES


class Wrong(Oracle):
    def _make(self, name, concept, *others):
        return super()._make(name, (concept + 1) % 4, 0, -1, -1)


def test_wrong_results_are_wrong(dataset, tmp_path):
    runs = ["text_to_image", "text_to_instrument", "image_to_speech", "held_image_instrument"]
    evaluate(Wrong(dataset), tmp_path, SAMPLES, runs=runs, data=dataset, log=lambda line: None)
    made = json.loads((tmp_path / "evaluation.json").read_text())["tables"]
    figures = {(f["row"], f["column"]): f["value"] for key in ("images", "speech", "instruments") for f in made[key]}
    assert figures["text → image", "concept"] == figures["image → speech", "word"] == 0
    assert figures["text → instrument", "instrument"] == figures["held image → instrument", "instrument"] == 0
    assert 0 < figures["text → image", "style"] < 1


@pytest.mark.parametrize(
    ("text", "concept"),
    [("a pine apple, fruit", "pine apple"), ("an apple, sea", "apple"), ("applesauce", None), ("the Sea", "sea")],
)
def test_first_concept(text, concept):
    assert first_concept(text, ["apple", "pine apple", "sea"]) == concept


def test_command_without_a_dataset(tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "metadata.csv" in capsys.readouterr().err

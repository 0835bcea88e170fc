"""An oracle for Shapes & Chimes: prompts are votes for attributes, outputs are rendered.

Joint streams agree on the attributes that the prompt leaves out and on the start; independent streams draw their own.
"""

import dataclasses

import numpy as np
import torch
from torch import nn

from codi_backend.conditioning.prompt import Prompt
from codi_backend.config import AudioAutoencoderConfig, CoDiConfig, ImageAutoencoderConfig, VisionEncoderConfig
from codi_backend.data import sample_scene
from codi_backend.data.captions import caption
from codi_backend.data.world import COLOURS, COUNTS, SHAPES, TEMPI
from codi_backend.evaluation import judge_audio, judge_image, judge_text, judge_video
from codi_backend.evaluation.prompts import render

VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "count": COUNTS, "tempo": tuple(TEMPI)}


class Oracle(nn.Module):
    config = CoDiConfig(
        name="oracle",
        image_encoder=VisionEncoderConfig(),
        image_autoencoder=ImageAutoencoderConfig(frame_rate=6.25),
        audio_autoencoder=AudioAutoencoderConfig(),
    )
    outputs = ("text", "image", "video", "audio")
    prompt_encoders = ("text", "image", "audio")

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.generated = 0
        self.asked = []  # (alignment, candidates) of every call

    def prompt(self, name, content, sample_rate=None):
        votes = torch.tensor([self._votes(judge(name, one)) for one in content])
        return Prompt(votes[:, None], torch.zeros_like(votes)[:, None])

    @staticmethod
    def _votes(judged):
        return [float(getattr(judged, a, None) == v) for a, values in VALUES.items() for v in values]

    def encode(self, name, content, sample_rate=None):
        return content

    def generate(self, prompts, outputs, *, steps, sampler, guidance, seed, alignment, candidates, held=None):
        made = {name: [] for name in outputs}
        self.asked.append((alignment, candidates))
        for i, votes in enumerate(prompts.embedding[:, 0]):
            self.generated += 1
            for name in outputs:
                source = "all" if alignment == "paper" else name
                rng = np.random.default_rng((seed, i, *source.encode()))
                made[name].append(self._scene(votes, rng, {k: judge(k, z[i]) for k, z in (held or {}).items()}))
        return {name: self._render(name, scenes) for name, scenes in made.items()}

    @staticmethod
    def _scene(votes, rng, held):
        chosen = {}
        for (attribute, values), part in zip(VALUES.items(), votes.split([len(v) for v in VALUES.values()])):
            given = next((getattr(j, attribute, None) for j in held.values()), None)
            best = (part + 1e-6 * torch.from_numpy(rng.random(len(part)))).argmax()  # ties are broken at random
            chosen[attribute] = given or values[int(best)]
        start = next((j.onsets[0] for j in held.values()), rng.uniform(0.1, 0.5))
        drawn = (sample_scene(int(rng.integers(1000)), i, "all") for i in range(1000))
        places = next(s.places for s in drawn if s.count == chosen["count"])
        return dataclasses.replace(sample_scene(0, 0), **chosen, places=places, start=float(start))

    @staticmethod
    def _render(name, scenes):
        if name == "text":
            return [caption(scene) for scene in scenes]
        made = render(name, scenes)
        return {"waveform": made, "sample_rate": 16000} if name == "audio" else made


def judge(name, content):
    return {"text": judge_text, "image": judge_image, "video": judge_video, "audio": judge_audio}[name](content)

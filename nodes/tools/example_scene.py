"""Example inputs: scenes of Shapes & Chimes, on which the built-in model was trained."""

from __future__ import annotations

from fractions import Fraction

import comfy.model_management
import torch
from comfy_api.latest import InputImpl, Types, io

from ...codi_backend.data.audio import render_audio
from ...codi_backend.data.captions import caption
from ...codi_backend.data.images import render_image, render_video
from ...codi_backend.data.world import COLOURS, COUNTS, FRAME_RATE, SAMPLE_RATE, SHAPES, START_RANGE, TEMPI, make_scene
from ..runtime.types import CATEGORY


class CoDiExampleScene(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoDiExampleScene",
            display_name="CoDi Example Scene",
            category=f"{CATEGORY}/prompts",
            description="Renders one scene of Shapes & Chimes, on which the built-in model was trained, as image, "
            "video, audio and text: an example prompt that needs no file.",
            search_aliases=["example", "test image", "test sound", "shapes and chimes", "demo input", "codi"],
            inputs=[
                io.Combo.Input("colour", options=list(COLOURS), tooltip="Colour of the objects; pitch of the notes."),
                io.Combo.Input("shape", options=list(SHAPES), tooltip="Shape of the objects; timbre of the notes."),
                io.Int.Input(
                    "count", default=3, min=min(COUNTS), max=max(COUNTS), tooltip="How many objects; how many notes."
                ),
                io.Combo.Input(
                    "tempo", options=list(TEMPI), tooltip="How fast objects appear and notes follow each other."
                ),
                io.Float.Input(
                    "start",
                    default=0.3,
                    min=START_RANGE[0],
                    max=START_RANGE[1],
                    step=0.01,
                    tooltip="When the first object appears and the first note begins, in seconds.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=True,
                    tooltip="Sets the positions of the objects and the loudness of the notes.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The objects, 64 x 64 pixels."),
                io.Video.Output(display_name="video", tooltip="The objects appear one after another, with audio."),
                io.Audio.Output(display_name="audio", tooltip="One note for each object, 2.56 s."),
                io.String.Output(display_name="text", tooltip="The description, such as: three red stars, slowly."),
            ],
        )

    @classmethod
    def execute(cls, colour, shape, count, tempo, start, seed) -> io.NodeOutput:
        scene = make_scene(colour, shape, count, tempo, start, seed)
        device = comfy.model_management.intermediate_device()
        image = torch.from_numpy(render_image(scene)).to(device)[None]
        frames = torch.from_numpy(render_video(scene)).to(device)
        waveform = torch.from_numpy(render_audio(scene)).to(device)[None, None]
        audio = {"waveform": waveform, "sample_rate": SAMPLE_RATE}
        video = Types.VideoComponents(images=frames, audio=audio, frame_rate=Fraction(FRAME_RATE))
        return io.NodeOutput(image, InputImpl.VideoFromComponents(video), audio, caption(scene))

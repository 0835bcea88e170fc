"""Encoders of text, image, video and audio prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ..runtime.hints import show_hints
from ..runtime.media_inputs import audio_samples, image_pixels, video_pixels
from ..runtime.required_inputs import require_prompt_encoders
from ..runtime.types import CATEGORY, PromptEncodersType


def _schema(kind: str, description: str, aliases: list[str], content: io.Input, empty: str, **more) -> io.Schema:
    return io.Schema(
        node_id=f"CoDiPrompt{kind}",
        display_name=f"CoDi Prompt ({kind})",
        category=f"{CATEGORY}/prompts",
        description=description,
        search_aliases=[*aliases, "prompt", "conditioning", "codi"],
        inputs=[
            PromptEncodersType.Input("prompt_encoders", tooltip="The prompt encoders from CoDi Load Model."),
            content,
        ],
        outputs=[
            io.Conditioning.Output(display_name="positive", tooltip="The prompt."),
            io.Conditioning.Output(
                display_name="unconditional",
                tooltip=f"The unconditional embedding ({empty}). Connect it to KSampler's negative.",
            ),
        ],
        **more,
    )


def _conditionings(prompt_encoders, kind: str, *content) -> io.NodeOutput:
    embedding, unconditional = require_prompt_encoders(prompt_encoders).prompt(kind, *content)
    return io.NodeOutput([[embedding, {}]], [[unconditional, {}]])


class CoDiPromptText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Text",
            "Encodes a text prompt.",
            ["text encode", "clip text encode"],
            io.String.Input(
                "text",
                multiline=True,
                dynamic_prompts=True,
                default="three red stars, slowly",
                tooltip="A description of the result; leave it empty to generate without a prompt.",
            ),
            "the empty text",
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompt_encoders, text) -> io.NodeOutput:
        output = _conditionings(prompt_encoders, "text", [text])
        show_hints(cls, prompt_encoders.text_hints([text]))
        return output


class CoDiPromptImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Image",
            "Encodes images as prompts.",
            ["image to image", "image variation", "clip vision encode", "unclip", "ip adapter"],
            io.Image.Input(
                "image",
                tooltip="Images of any size. The centre square is encoded; transparent pixels become white. A batch "
                "gives one prompt for each image.",
            ),
            "a mid-grey image",
        )

    @classmethod
    def execute(cls, prompt_encoders, image) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "image", image_pixels(image, "image"))


class CoDiPromptVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Video",
            "Encodes a video as a prompt.",
            ["video to video", "video to audio", "clip vision encode"],
            io.MultiType.Input(
                "video",
                [io.Video, io.Image],
                tooltip="A video, or a batch of images as its frames. The centre squares are encoded; a long video is "
                "sampled at evenly spaced frames.",
            ),
            "mid-grey frames",
        )

    @classmethod
    def execute(cls, prompt_encoders, video) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "video", video_pixels(video))


class CoDiPromptAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "Audio",
            "Encodes audio as prompts.",
            ["audio to image", "audio to video", "clap", "sound to image", "audio encode"],
            io.Audio.Input(
                "audio",
                tooltip="Audio at any sample rate. The channels are averaged; the middle of long audio is encoded. "
                "A batch gives one prompt for each sample.",
            ),
            "silence",
        )

    @classmethod
    def execute(cls, prompt_encoders, audio) -> io.NodeOutput:
        return _conditionings(prompt_encoders, "audio", *audio_samples(audio))

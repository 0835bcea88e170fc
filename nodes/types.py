"""Types of our own on the wires of a graph; everything else that our nodes exchange is native."""

from comfy_api.latest import io

CATEGORY = "CoDi"

PromptEncodersType = io.Custom("CODI_PROMPT_ENCODERS")
AudioVaeType = io.Custom("CODI_AUDIO_VAE")
TextVaeType = io.Custom("CODI_TEXT_VAE")

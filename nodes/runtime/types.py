"""The pack's own socket types. All other sockets have native types."""

from comfy_api.latest import io

CATEGORY = "CoDi"

PromptEncodersType = io.Custom("CODI_PROMPT_ENCODERS")
AudioVaeType = io.Custom("CODI_AUDIO_VAE")
TextVaeType = io.Custom("CODI_TEXT_VAE")
CouplerType = io.Custom("CODI_COUPLER")

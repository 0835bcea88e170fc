"""Configurations and their JSON."""

import dataclasses
import json

import pytest
import tiny

from codi_backend.config import CoDiConfig, DiffuserConfig, UNetConfig
from codi_backend.presets import mini

EVERYTHING = dataclasses.replace(
    tiny.CONFIG,
    diffuser=DiffuserConfig({"text": UNetConfig(768, 320, text_positions=4)}, middle_as_first_skip=True),
    guidance=3.5,
)


@pytest.mark.parametrize("config", [mini.CONFIG, tiny.CONFIG, CoDiConfig(), EVERYTHING])
def test_round_trip(config):
    assert CoDiConfig.from_json(config.to_json()) == config


def test_json_is_stable():
    assert mini.CONFIG.to_json() == CoDiConfig.from_json(mini.CONFIG.to_json()).to_json()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "CoDiConfig"),
        (("diffuser",), "DiffuserConfig"),
        (("diffuser", "networks", "image"), "UNetConfig"),
        (("text_encoder",), "TextEncoderConfig"),
        (("image_autoencoder",), "ImageAutoencoderConfig"),
        (("audio_autoencoder",), "AudioAutoencoderConfig"),
        (("audio_autoencoder", "mel"), "MelConfig"),
    ],
)
def test_field_of_a_newer_version(path, name):
    values = inner = json.loads(tiny.CONFIG.to_json())
    for key in path:
        inner = inner[key]
    inner["flavour"] = 1
    with pytest.raises(ValueError, match=f"{name} has no field flavour.*newer version"):
        CoDiConfig.from_json(json.dumps(values))


def test_missing_field():
    values = json.loads(tiny.CONFIG.to_json())
    del values["diffuser"]["networks"]["image"]["in_channels"]
    with pytest.raises(ValueError, match="UNetConfig.*in_channels"):
        CoDiConfig.from_json(json.dumps(values))


def test_fields_with_a_default_may_be_missing():
    assert CoDiConfig.from_json('{"name": "x"}') == CoDiConfig(name="x")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"diffuser": 3}'])
def test_no_configuration(text):
    with pytest.raises(ValueError, match="not a CoDi configuration"):
        CoDiConfig.from_json(text)

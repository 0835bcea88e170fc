"""Words that a small model never saw, and texts that are cut, are shown on the node; its outputs are as ever."""

import pytest
import torch
from host.graph import Graph, Kept, register

LONG = "red " * 74 + "star " * 10  # 84 tokens, of which 75 are read


@pytest.fixture(scope="module", autouse=True)
def nodes(host):
    register(host._nodes.NODE_CLASS_MAPPINGS)
    yield
    Kept.values.clear()
    host.forget()


def hint(host, kind, loaded, checkpoint="tiny.safetensors", **texts):
    """What the node shows when it is given texts, and None if it shows nothing."""
    graph = Graph()
    model = graph.load(checkpoint)
    if kind == "CoDiEditTextLatent":
        texts |= {"samples": graph.add("CoDiEncodeText", text="red star", text_vae=model[4])}
    name, output = loaded
    node = graph.add(kind, **{name: model[output]}, **texts)
    graph.keep("0", node)
    host.run(graph.prompt)
    return host.shown_texts.get(node[0][0])


NODES = [
    ("CoDiPromptText", ("prompt_encoders", 1), "text", "tiny.safetensors"),
    ("CoDiContextText", ("prompt_encoders", 1), "text", "tiny_versatile.safetensors"),
    ("CoDiEncodeText", ("text_vae", 4), "text", "tiny.safetensors"),
    ("CoDiEditTextLatent", ("text_vae", 4), "negative", "tiny.safetensors"),
    ("CoDiEditTextLatent", ("text_vae", 4), "positive", "tiny.safetensors"),
]


@pytest.mark.parametrize(("kind", "loaded", "name", "checkpoint"), NODES)
def test_words_that_the_model_does_not_know(host, kind, loaded, name, checkpoint):
    texts = {"negative": "", "positive": ""} if kind == "CoDiEditTextLatent" else {}
    text = hint(host, kind, loaded, checkpoint, **texts | {name: "two green cats"})
    assert 'did not contain "green", "cats"' in text and '"two"' not in text and "\n" not in text
    assert hint(host, kind, loaded, checkpoint, **texts | {name: "Two red stars, slowly"}) in (None, " ")
    assert hint(host, kind, loaded, checkpoint, **texts | {name: "  "}) is None


@pytest.mark.parametrize("kind", ["CoDiPromptText", "CoDiContextText"])
def test_a_text_that_is_cut(host, kind):
    checkpoint = {"CoDiContextText": "tiny_versatile.safetensors"}.get(kind, "tiny.safetensors")
    text = hint(host, kind, ("prompt_encoders", 1), checkpoint, text=LONG)
    assert "84 tokens" in text and "first 75" in text and '"red red star"' in text


def test_a_hint_goes_when_its_cause_does(host, caplog):
    args = ("CoDiPromptText", ("prompt_encoders", 1))
    assert "cats" in hint(host, *args, text="cats")
    assert "CoDi Prompt (Text)" in caplog.text and "cats" in caplog.text
    assert hint(host, *args, text="stars") == " "
    assert hint(host, *args, text="red stars") is None


def test_the_outputs_stay_the_same(host, tiny, run_node):
    positive, unconditional = run_node("CoDiPromptText", prompt_encoders=tiny[1], text="two green cats")
    whole = host.module("codi_backend.pipeline").CoDi.load(host.models / "tiny.safetensors")
    with pytest.warns(UserWarning, match="cats"):
        expected = whole.prompt("text", "two green cats")
    torch.testing.assert_close(positive[0][0], expected.embedding, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(unconditional[0][0], expected.unconditional, atol=1e-5, rtol=1e-5)

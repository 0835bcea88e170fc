"""The small autoencoders of the golden cases, with weights by the rule."""

import json
from pathlib import Path

import torch
from detweights import det_array, is_buffer
from safetensors.torch import load_file

from codi_backend.checkpoints.autoencoder_names import from_reference, to_reference

GOLDEN = Path(__file__).parent / "golden" / "autoencoders"


def read(name):
    """Configuration and tensors of a golden case."""
    return json.loads((GOLDEN / f"{name}.json").read_text()), load_file(GOLDEN / f"{name}.safetensors")


def filled(autoencoder, prefix):
    """Give an autoencoder the weights that the rule makes for the published names and shapes."""
    shapes = to_reference(autoencoder.config, autoencoder.state_dict())
    state = {
        name: torch.from_numpy(det_array(prefix + name, tuple(value.shape)))
        for name, value in shapes.items()
        if not is_buffer(name, value)
    }
    autoencoder.load_state_dict(from_reference(autoencoder.config, state))
    return autoencoder.eval()


def write_vocabularies(folder, words, tokens):
    """Vocabularies of the published sizes, of which some words of BERT and tokens of GPT-2 are given by id."""
    bert = [f"[unused{i}]" for i in range(28996)]
    bert[0], bert[100], bert[101], bert[102] = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
    for i, word in words.items():
        bert[i] = word
    (folder / "vocab.txt").write_text("\n".join(bert) + "\n", encoding="utf-8")
    ids = {tokens.get(i, f"Ġw{i}"): i for i in range(50257)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    return folder


@torch.inference_mode()
def released_loop(optimus, latent, how, generator):
    """Token ids of one text as the original draws them: no cache, texts one after the other, all with one generator."""
    end = optimus.config.decoder.vocab_size - 1
    ids = [end - 1]
    while len(ids) < 30 and ids[-1] != end:
        ids.append(how.pick(optimus.logits(latent, torch.tensor([ids]))[0, -1], generator))
    ids[-1] = end
    return ids


def operations(*kinds):
    """Layer classes like `torch.nn`'s, but without weights, as ComfyUI's may be before a checkpoint is read."""

    def weightless(base):
        def __init__(self, *args, **kwargs):
            base.__init__(self, *args, **kwargs)
            for name in list(self._parameters):
                self._parameters[name] = None

        return type(base.__name__, (base,), {"__init__": __init__, "reset_parameters": lambda self: None})

    return type("Operations", (), {kind: weightless(getattr(torch.nn, kind)) for kind in kinds})

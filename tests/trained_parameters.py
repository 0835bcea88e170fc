"""What a stage trains, by the names of parameters."""

import tiny

from codi_backend.training.loop import Options, train

OPTIONS = Options(steps=2, batch_size=3, warmup=0)
ALIGNMENT_PARTS = ("environment_encoder.", "temporal_connectors.", "input_connectors.", "output_connectors.")
OF_FRAMES = r"temporal_|clip_attn|\.1\.ff\.|frameshift"


def trained(stage, out):
    """Names of the parameters that two steps changed."""
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    record = train(stage, OPTIONS, out, lambda line: None)
    assert record["final"]["step"] == 2
    return tiny.changed(before, dict(stage.named_parameters()))


def named(stage, prefix=""):
    return {name for name, _ in stage.named_parameters() if name.startswith(prefix)}


def learning(stage):
    return {name for name, p in stage.named_parameters() if p.requires_grad}

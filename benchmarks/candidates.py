"""By which rule to pick one of several results, of the built-in model on Shapes & Chimes.

    python benchmarks/candidates.py [--outputs text image audio] [--prompts 50] [--results 8] [--device cpu]

The prompts are texts without a count. All results are made to the end, as for CoDi Pick Best, and judged; then
every rule picks from every set of 2, 4 ... of them. Alike: the share of picked results whose streams have one number of
objects, and the same of those that have several by their first stream. Single: the share of those that have one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

import codi_backend as cb
from codi_backend.cli.devices import place
from codi_backend.data.captions import caption
from codi_backend.data.world import sample_scene
from codi_backend.evaluation.runs import SCENE_SEED, judge
from codi_backend.modalities import modality
from codi_backend.models.diffuser.environment import pooled
from codi_backend.sampling.best_of_n import prune, select

Tokens = dict[str, Tensor]
ENCODED = SimpleNamespace(clean_environment=lambda tokens: tokens)  # instead of a diffuser: tokens are given


def size(tokens: Tokens) -> int:
    return len(next(iter(tokens.values())))


def similarity(tokens: Tokens) -> int:
    """The result whose streams are most similar."""
    pairs = itertools.combinations([pooled(t)[:, 0] for t in tokens.values()], 2)
    return int(sum((a * b).sum(-1) for a, b in pairs).argmax())


RULES: dict[str, Callable[[Tokens], int]] = {
    "the first": lambda tokens: 0,
    "similarity": similarity,
    "pruned once": lambda tokens: int(prune(ENCODED, tokens, size(tokens))),
    "pruned twice": lambda tokens: select(ENCODED, tokens),
}


def make(codi: cb.CoDi, index: int, outputs: Sequence[str], results: int) -> tuple[Tokens, list[list[int | None]]]:
    """Environment tokens of each result of one prompt, and how many objects each of its streams has."""
    stated = [a for bit, a in enumerate(("colour", "shape", "tempo")) if index >> bit & 1]
    prompt = codi.prompt("text", [caption(sample_scene(SCENE_SEED, index), stated)] * results)
    latents = codi.generate_latents(prompt, outputs, seed=index, candidates=1)
    with torch.inference_mode():
        scale = {name: codi.autoencoders[modality(name).network].config.scale_factor for name in latents}
        tokens = codi.diffuser.clean_environment({name: z * scale[name] for name, z in latents.items()})
    made = {n: codi.decode(n, z, seed=index) if n == "text" else codi.decode(n, z) for n, z in latents.items()}
    counts = [[judge(codi, name, content[i])["count"] for name, content in made.items()] for i in range(results)]
    return {name: t.cpu() for name, t in tokens.items()}, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", nargs="+", default=["text", "image", "audio"])
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--results", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    codi = place(cb.CoDi.load("mini"), options.device)
    made = []
    for index in range(options.prompts):
        made.append(make(codi, index, options.outputs, options.results))
        print(f"{index + 1} of {options.prompts} prompts", file=sys.stderr, flush=True)
    print("| rule | of | alike, % | of several, % | single, % |\n|---|---|---|---|---|")
    for number in range(2, options.results + 1, 2):
        for rule, pick in RULES.items():
            picked = []
            for tokens, counts in made:
                for rows in itertools.combinations(range(options.results), number):
                    picked.append(counts[rows[pick({name: t[list(rows)] for name, t in tokens.items()})]])
            alike = [len(set(counts)) == 1 and counts[0] is not None for counts in picked]
            several = [same for same, counts in zip(alike, picked) if counts[0] != 1]
            single = 1 - len(several) / len(picked)
            shares = (sum(alike) / len(alike), sum(several) / max(1, len(several)), single)
            print(f"| {rule} | {number} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")


if __name__ == "__main__":
    main()

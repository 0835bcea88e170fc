import pytest
import torch
from torch.nn.functional import normalize

from codi_backend.conditioning.prompt import Prompt, interpolate


def prompt(seed, batch=2):
    g = torch.Generator().manual_seed(seed)
    return Prompt(*(normalize(torch.randn(batch, 1, 8, generator=g), dim=-1) for _ in range(2)))


def test_linear_is_the_weighted_mean_whatever_the_weights_sum_to():
    p, q = prompt(0), prompt(1)
    mixed = interpolate([(p, 3.0), (q, 1.0)])
    torch.testing.assert_close(mixed.embedding, 0.75 * p.embedding + 0.25 * q.embedding)
    torch.testing.assert_close(mixed.unconditional, 0.75 * p.unconditional + 0.25 * q.unconditional)


def test_slerp_keeps_the_length_and_divides_the_angle():
    p, q = prompt(0), prompt(1)
    mixed = interpolate([(p, 0.7), (q, 0.3)], "slerp").embedding
    torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(2, 1))
    whole = (p.embedding * q.embedding).sum(-1).acos()
    torch.testing.assert_close((p.embedding * mixed).sum(-1).acos(), 0.3 * whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_one_prompt_or_twice_the_same_is_that_prompt(method):
    p = prompt(0)
    for prompts in ([(p, 2.0)], [(p, 0.4), (p, 0.6)], [(p, 1.0), (prompt(1), 0.0)], [(prompt(1), 0.0), (p, 1.0)]):
        torch.testing.assert_close(interpolate(prompts, method).embedding, p.embedding, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_three_prompts_and_a_batch_of_one(method):
    mixed = interpolate([(prompt(0), 1.0), (prompt(1, batch=1), 1.0), (prompt(2), 1.0)], method)
    assert mixed.embedding.shape == (2, 1, 8) and mixed.embedding.isfinite().all()


@pytest.mark.parametrize(
    ("prompts", "method", "message"),
    [
        ([], "linear", "no prompts"),
        ([(prompt(0), 0.0)], "linear", "weights: all are 0"),
        ([(prompt(0), -1.0), (prompt(1), 2.0)], "linear", "weights: -1 is out of range"),
        ([(prompt(0), float("nan"))], "linear", "weights"),
        ([(prompt(0), 1.0), (prompt(1, batch=3), 1.0)], "linear", "batch sizes"),
        ([(prompt(0), 1.0)], "cubic", "no interpolation"),
    ],
)
def test_bad_mixtures_are_refused(prompts, method, message):
    with pytest.raises(ValueError, match=message):
        interpolate(prompts, method)

"""The similarity report."""

import pytest
import torch


def conditioning(*rows):
    return [[torch.tensor(rows, dtype=torch.float32)[:, None], {}]]


@pytest.fixture
def report(run_node, tiny):
    """Call the node as the executor does, with a list for each input; labels and numbers of the table."""

    def call(encoders=tiny[1], prompts=(), **outputs):
        named = {f"prompt_{i}": [one] for i, one in enumerate(prompts, start=1)}
        drawn, table = run_node("CoDiSimilarity", prompt_encoders=[encoders], prompts=named, **outputs)
        assert drawn.ndim == 4 and drawn.shape[-1] == 3 and 0 <= drawn.min() < drawn.max() <= 1
        lines = table.splitlines()[1:]
        size = len(lines)
        cells = [line.split()[-size:] for line in lines]
        labels = [" ".join(line.split()[:-size]) for line in lines]
        return labels, torch.tensor([[float(cell) for cell in row] for row in cells])

    return call


def test_cosines_of_prompts_are_averaged_over_the_batch(report):
    one = conditioning([1, 0], [1, 0])
    other = conditioning([2, 0], [3, 3])
    labels, matrix = report(prompts=[one, other, conditioning([0, 1])])
    assert labels == ["prompt 1", "prompt 2", "prompt 3"]
    expected = torch.tensor([[1, (1 + 0.5**0.5) / 2, 0], [0, 1, 0.5**0.5 / 2], [0, 0, 1]])
    torch.testing.assert_close(matrix, expected.triu() + expected.triu(1).T, atol=1e-3, rtol=0)


def test_outputs_are_encoded_as_the_prompt_nodes_encode_them(report, run_node, tiny):
    noise = torch.Generator().manual_seed(0)
    image = torch.rand(2, 64, 64, 3, generator=noise)
    frames = [torch.rand(4, 64, 64, 3, generator=noise) for _ in range(2)]
    audio = {"waveform": torch.rand(2, 1, 16000, generator=noise) - 0.5, "sample_rate": 16000}

    def prompt(kind, **content):
        return run_node(f"CoDiPrompt{kind}", prompt_encoders=tiny[1], **content)[0]

    texts = ["two red stars", "one blue star"]
    written = [[torch.cat([prompt("Text", text=text)[0][0] for text in texts]), {}]]
    from_video = [[torch.cat([prompt("Video", video=video)[0][0] for video in frames]), {}]]
    prompts = [prompt("Image", image=image), from_video, prompt("Audio", audio=audio), written]
    labels, matrix = report(prompts=prompts, image=[image], video=frames, audio=[audio], text=texts)
    assert labels == [f"prompt {i}" for i in range(1, 5)] + ["image", "video", "audio", "text"]
    torch.testing.assert_close(matrix[:4, :4], matrix[4:, 4:])
    torch.testing.assert_close(matrix[:4, 4:].diagonal(), torch.ones(4))


def test_image_shows_the_matrix(run_node, tiny):
    def drawn(*rows):
        named = {f"prompt_{i}": [conditioning(row)] for i, row in enumerate(rows, start=1)}
        return run_node("CoDiSimilarity", prompt_encoders=[tiny[1]], prompts=named)[0][0]

    def redness(image):
        return (image[..., 0] - image[..., 2]).sum()

    alike, opposite = drawn([1, 0], [1, 0]), drawn([1, 0], [-1, 0])
    assert alike.shape == opposite.shape and redness(alike) > 0 and abs(redness(opposite)) < redness(alike) / 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^prompts, image, video, audio, text: there is nothing to compare"),
        ({"prompts": [conditioning([1, 0])]}, "^prompts, image, video, audio, text: there is nothing to compare"),
        ({"prompts": [conditioning([1, 0]) * 2] * 2}, "^prompts: this holds 2 prompts that apply side by side"),
        ({"prompts": [[[torch.zeros(1, 77, 8), {}]]] * 2}, "^prompts: this conditioning of shape .* not one of CoDi's"),
        ({"prompts": [conditioning([1, 0]), conditioning([1, 0, 0])]}, "^prompts: .* of one checkpoint"),
        ({"prompts": [conditioning(*[[1, 0]] * n) for n in (1, 2, 3)]}, "^prompt 2: 2 cannot be compared with 3 of"),
        ({"image": [torch.zeros(0, 64, 64, 3)], "text": ["a"]}, "^image: "),
        ({"encoders": None, "text": ["a"]}, "^prompt_encoders: nothing is connected"),
    ],
)
def test_bad_input(report, given, message):
    with pytest.raises(ValueError, match=message):
        report(**given)


def test_checkpoint_without_the_encoder(report, host):
    encoders = host.module("nodes.runtime.encoder_patchers").PromptEncoders()
    with pytest.raises(ValueError, match="^prompt_encoders: the loaded checkpoint has no audio prompt encoder"):
        report(encoders, audio=[{"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}], text=["a"])

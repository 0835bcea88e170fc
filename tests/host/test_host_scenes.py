"""Ready-made inputs."""

import torch

from codi_backend.evaluation.judges import judge_audio, judge_image, judge_text, judge_video

SCENE = {"colour": "blue", "shape": "heart", "count": 3, "tempo": "fast", "start": 0.25, "seed": 7}


def test_all_four_show_the_same_scene(run_node):
    image, video, audio, text = run_node("CoDiExampleScene", **SCENE)
    components = video.get_components()
    assert image.shape == (1, 64, 64, 3) and components.images.shape == (16, 64, 64, 3)
    assert audio["sample_rate"] == 16000 and audio["waveform"].shape == (1, 1, 40960)
    assert float(components.frame_rate) == 6.25 and torch.equal(components.audio["waveform"], audio["waveform"])
    from_image = judge_image(image[0].movedim(-1, 0))
    from_video, from_audio, from_text = (
        judge_video(components.images.movedim(-1, 0)),
        judge_audio(audio["waveform"][0, 0]),
        judge_text(text),
    )
    for judged in (from_image, from_video, from_audio, from_text):
        assert (judged.colour, judged.shape, judged.count) == ("blue", "heart", 3)
    assert from_video.tempo == from_audio.tempo == from_text.tempo == "fast"
    assert abs(from_audio.onsets[0] - 0.25) < 0.02


def test_the_seed_moves_the_objects(run_node):
    first, again, other = (run_node("CoDiExampleScene", **SCENE | {"seed": s})[0] for s in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)

"""What is seen of the streams while they are sampled."""

import time

import pytest
import torch
from PIL import Image

SIDE = 256


@pytest.fixture
def previews(monkeypatch):
    """Images that ComfyUI would send to the browser, as they come."""
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    images = []
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **named: images.append(preview and preview[1])
    )
    return images


@pytest.fixture(scope="module")
def mini(host):
    with torch.inference_mode():
        return host.node("CoDiLoadModel").execute(checkpoint="mini (built in)").args


def colours(image: Image.Image) -> torch.Tensor:
    """``[H, W, 3]`` in 0..255."""
    return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(
        image.height, image.width, 3
    )


OFF = {"image": False, "video": False, "audio": False, "text": False}


@pytest.mark.parametrize(
    ("streams", "size"),
    [
        (("image",), (SIDE, SIDE)),
        (("video",), (SIDE, SIDE)),
        (("audio",), (SIDE, 96)),
        (("text",), (SIDE, 24)),
        (("audio", "text"), (SIDE, 120)),
        (("image", "video", "audio", "text"), (2 * SIDE, SIDE + 120)),
    ],
)
def test_every_step_shows_every_stream(sample, empty, previews, streams, size):
    sample(empty(**OFF | dict.fromkeys(streams, True)), steps=3)
    assert len(previews) == 3
    assert all((image.width, image.height) == size for image in previews)
    first, _, last = map(colours, previews)
    if streams != ("text",):
        assert (first != last).any()


@pytest.mark.parametrize(("shape", "size"), [((1, 4, 8, 8), (SIDE, SIDE)), ((1, 24, 1, 1), (SIDE, 24))])
def test_versatile_diffusion_is_shown_too(run_node, versatile, sample, previews, shape, size):
    conditioning = run_node("CoDiContextText", prompt_encoders=[versatile[1]], text=["a red star"])
    sample({"samples": torch.zeros(shape)}, versatile[0], steps=2, conditioning=conditioning)
    assert [(image.width, image.height) for image in previews] == [size, size]


def test_our_samplers_and_guider_show_them_too(run_node, tiny, empty, prompts, previews):
    positive, negative = prompts
    settings = {"seed": 0, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
    prompted = {"model": tiny[0], "positive": positive, "negative": negative}
    run_node("CoDiSampler", latent_image=empty(), mode="paper", strength=1.0, denoise=1.0, **prompted, **settings)
    run_node("CoDiSampleAudio", seconds=0.0, batch_size=1, **prompted, **settings)
    assert [(image.width, image.height) for image in previews] == [(256, 352)] * 2 + [(256, 96)] * 2


def test_previews_change_nothing(sample, empty, previews, monkeypatch):
    from comfy.cli_args import LatentPreviewMethod, args

    given = {"video": True, "text": True}
    shown = sample(empty(**given), steps=3, sampler="dpmpp_2m_sde")
    count = len(previews)
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.NoPreviews)
    plain = sample(empty(**given), steps=3, sampler="dpmpp_2m_sde")
    assert all(torch.equal(a, b) for a, b in zip(shown, plain, strict=True))
    assert count == 3 and set(previews[count:]) == {None}


def scene(run_node, colour="red", shape="square", count=4):
    image, video, audio, text = run_node(
        "CoDiExampleScene", colour=colour, shape=shape, count=count, tempo="slow", start=0.3, seed=1
    )
    return image, video.get_components().images, audio["waveform"], text


@pytest.fixture
def drawn(host, mini):
    """Draws latents of the built-in model as a sampler's last step would: ``[H, W, 3]`` in 0..255."""
    previews = host.module("nodes.runtime.previews")
    config = mini[0].model.codi_config
    scale = host.module("codi_backend.modalities").scale_factor

    def draw(streams):
        with torch.inference_mode():
            images = []
            scaled = [z * scale(config, name) for name, z in streams.items()]
            packed = torch.cat([z.reshape(1, 1, -1) for z in scaled], -1) if len(scaled) > 1 else scaled[0]
            callback = mini[0].model.previews.around_callback(
                lambda step, x0, x, total: images.append(mini[0].model.previews.draw(scaled[0])),
                list(streams),
                [z.shape for z in scaled],
                mini[0],
            )
            callback(0, packed, packed, 1)
            (image,) = images
            assert image.ndim == 4 and image.min() >= -1 and image.max() <= 1
            return (image[0].movedim(0, -1) + 1) * 127.5

    assert previews.KEY in mini[0].attachments
    return draw


def test_a_preview_of_an_image_looks_like_the_image(run_node, mini, drawn, previews):
    for colour, channel in (("red", 0), ("green", 1), ("blue", 2)):
        image, *_ = scene(run_node, colour)
        (latent,) = run_node("CoDiEncodeImage", image=image, vae=mini[2])
        shown = drawn({"image": latent["samples"]})
        wanted = torch.nn.functional.interpolate(image.movedim(-1, 1) * 255, size=SIDE)[0].movedim(0, -1)
        assert (shown - wanted).abs().mean() < 10
        assert shown[wanted.min(-1).values < 150].mean(0).argmax() == channel


def test_a_video_shows_four_of_its_frames(run_node, mini, drawn, previews):
    _, frames, *_ = scene(run_node)
    (latent,) = run_node("CoDiEncodeVideo", video=frames, vae=mini[2], frame_rate=0.0, frames=0)
    shown = drawn({"video": latent["samples"]})
    quarters = [shown[top : top + 128, left : left + 128] for top in (0, 128) for left in (0, 128)]
    # Nothing is there at first; more appears from each to the next.
    filled = [int((quarter.min(-1).values < 150).sum()) for quarter in quarters]
    assert filled[0] == 0 and filled == sorted(filled) and filled[3] > filled[1] > 0


@pytest.fixture
def fresh(host, mini, audio_library):
    """Autoencoders whose linear maps are fitted anew."""
    module = host.module("nodes.runtime.previews")
    before = mini[0].get_attachment(module.KEY)
    module.Autoencoders(*mini[2:5]).attach(mini[0])
    yield
    before.attach(mini[0])


@pytest.mark.audio
def test_audio_shows_when_and_how_high_it_is(run_node, mini, fresh, drawn, previews):
    def shown(colour):
        *_, waveform, _ = scene(run_node, colour, "circle", count=1)  # whose tone is pure
        audio = {"waveform": waveform, "sample_rate": 16000}
        (latent,) = run_node("CoDiEncodeAudio", audio=audio, audio_vae=mini[3], seconds=0.0)
        return drawn({"audio": latent["samples"]}).mean(-1)

    low, high = shown("red"), shown("purple")  # 262 and 523 Hz
    before, during = low[:, : int(0.08 * SIDE)], low[:, int(0.13 * SIDE) : int(0.2 * SIDE)]
    assert during.max() > before.max() + 50  # the note begins at 0.3 of 2.56 seconds

    def height(image):
        rows = image[:, int(0.13 * SIDE) : int(0.2 * SIDE)].mean(1) - image.mean()
        return 96 - int(rows.argmax())

    assert height(high) > height(low)


def test_a_text_is_written(host, run_node, mini, drawn, previews):
    *_, text = scene(run_node)
    (latent,) = run_node("CoDiEncodeText", text=[text], text_vae=[mini[4]])
    shown = drawn({"text": latent["samples"]})
    page = host.module("nodes.runtime.previews")._written(text, SIDE).movedim(0, -1) * 255
    assert shown.shape == page.shape and (shown - page).abs().max() < 1
    assert (page.mean(-1) < 100).sum() > 50


def test_a_large_image_autoencoder_is_not_run(host, monkeypatch, run_node, mini, drawn, previews):
    """A fitted map stands in for it; the built-in model's colours are too intricate for one, its shapes are not."""
    module = host.module("nodes.runtime.previews")
    monkeypatch.setattr(module, "MAX_DECODER_BYTES", 0)
    fresh = module.Autoencoders(*mini[2:5])
    before = mini[0].get_attachment(module.KEY)
    fresh.attach(mini[0])
    try:
        image, *_ = scene(run_node)
        (latent,) = run_node("CoDiEncodeImage", image=image, vae=mini[2])
        monkeypatch.setattr(mini[2].first_stage_model, "decode", None)
        shown = drawn({"image": latent["samples"]})
    finally:
        before.attach(mini[0])
    objects = torch.nn.functional.interpolate(image.movedim(-1, 1), size=SIDE)[0].min(0).values < 0.6
    assert shown[~objects].mean() > shown[objects].mean() + 40


def test_without_autoencoders_there_still_is_something(host, run_node, sample, empty, previews):
    model = run_node("CoDiLoadModel", checkpoint="tiny.safetensors")[0]
    model.remove_attachments(host.module("nodes.runtime.previews").KEY)
    sample(empty(video=True, text=True), model, steps=2)
    assert [(image.width, image.height) for image in previews] == [(512, 352)] * 2
    assert colours(previews[-1]).float().std() > 1


def test_texts_are_decoded_when_time_allows(host, monkeypatch):
    previews = host.module("nodes.runtime.previews")
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Decoder:
        count = 0

        def decode(self, latents, **options):
            self.count += 1
            now[0] += 1.0
            return [str(self.count)]

    class Patcher:
        model, load_device = Decoder(), torch.device("cpu")

        def current_loaded_device(self):
            return self.load_device

    text = previews._TextSoFar(Patcher())
    for _ in range(60):
        text.update(torch.zeros(1, 3, 1, 1))
        now[0] += 1.0
    # Of a second each, in a good minute: at the beginning, and when the ones before are a twentieth of the time.
    assert text.text == "4" and Patcher.model.count == 4

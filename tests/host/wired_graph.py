"""Graphs around the tiny model with one input that is wrong, for tests of messages."""

from fractions import Fraction

import torch
from host.graph import Give, Graph, Kept

TINY, TEXT_ONLY, VERSATILE = "tiny.safetensors", "text only.safetensors", "tiny_versatile.safetensors"


def make_audio(samples=16000, channels=1, rate=16000, batch=1, value=None):
    waveform = 0.1 * torch.sin(torch.arange(samples) * 0.2).expand(batch, channels, -1)
    return {"waveform": waveform if value is None else torch.full_like(waveform, value), "sample_rate": rate}


def make_images(count=1, height=32, width=32, value=0.5):
    return torch.full((count, height, width, 3), value)


def video(count=4, audio=None):
    from comfy_api.latest import InputImpl, Types

    components = Types.VideoComponents(images=make_images(count), audio=audio, frame_rate=Fraction(6))
    return InputImpl.VideoFromComponents(components)


def nested(*streams):
    from comfy.nested_tensor import NestedTensor

    return {"samples": NestedTensor(list(streams))}


IMAGE, AUDIO, NAN = torch.zeros(1, 4, 4, 4), torch.zeros(1, 8, 8, 8), float("nan")


class Wired(Graph):
    """A graph with the tiny model loaded and a prompt; everything that is given comes from a node."""

    def __init__(self, checkpoint=TINY):
        super().__init__()
        self.take(checkpoint)

    def take(self, checkpoint):
        """Load a model for what is added from now on."""
        self.loaded = self.load(checkpoint)
        self.model, self.encoders, self.vae, self.audio_vae, self.text_vae = (self.loaded[i] for i in range(5))

    def text(self):
        return self.add("CoDiPromptText", prompt_encoders=self.encoders, text="a red star")

    def context(self, content, **options):
        """A context of a text, or of an image."""
        if isinstance(content, str):
            return self.add("CoDiContextText", prompt_encoders=self.encoders, text=content)
        given = {"weight": 1.0, "focus": 0.5, "unconditional": "auto", "image": self.given(content)} | options
        return self.add("CoDiContextImage", prompt_encoders=self.encoders, **given)

    def given(self, value):
        name = str(len(self.prompt))
        Give.values[name] = value
        return self.add("TestGive", name=name)

    def end(self, *values):
        for number, value in enumerate(values):
            self.keep(str(number), value)


def run(host, wire):
    """Execute the graph that `wire` makes; what it ends in."""
    graph = Wired()
    last = wire(graph)
    graph.end(last)
    host.run(graph.prompt)
    return Kept.values["0"][0]


def works(host):
    """A prompt without a mistake gets through."""

    def wire(g):
        return g.add("CoDiDecodeImage", samples=g.sample(g.model, g.text(), g.empty(g.model, "image")), vae=g.vae)

    image = run(host, wire)
    assert image.shape == (1, 64, 64, 3) and image.isfinite().all()


def sampled(latent, **settings):
    def wire(g):
        return g.sample(g.model, g.text(), g.given(latent() if callable(latent) else latent), **settings)

    return wire


def with_prompts(change, *streams, batch=1):
    """The stock KSampler with the prompt changed."""

    def wire(g):
        latent = g.empty(g.model, *streams, width=32, height=32, batch_size=batch)
        prompt = g.text()
        return g.sample(g.model, [change(g, prompt[0]), prompt[1]], latent)

    return wire


def area(g, prompt):
    inputs = {"conditioning": prompt, "width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0}
    return g.add("ConditioningSetArea", **inputs)


def masked(g, prompt):
    mask = g.given(torch.ones(1, 32, 32))
    inputs = {"conditioning": prompt, "mask": mask, "strength": 1.0, "set_cond_area": "default"}
    return g.add("ConditioningSetMask", **inputs)


def silent(g):
    """The audio of a video without any, as the stock node gives it."""
    return g.add("GetVideoComponents", video=g.given(video()))[1]


def joined(*latents):
    return lambda g: g.add(
        "CoDiJoinLatents", **{f"latents.latent_{i}": wire(g) for i, wire in enumerate(latents, start=1)}
    )


def emptied(*streams, model=None, **sizes):
    return lambda g: g.empty(g.model, *streams, **sizes)


def guided(latent):
    """SamplerCustomAdvanced with CoDi's guider."""

    def wire(g):
        prompt = g.text()
        scales = {f"cfg_{name}": 2.0 for name in ("image", "video", "audio", "text")}
        guider = g.add("CoDiGuider", model=g.model, positive=prompt[0], negative=prompt[1], **scales)
        return g.add(
            "SamplerCustomAdvanced",
            noise=g.add("RandomNoise", noise_seed=0),
            guider=guider,
            sampler=g.add("KSamplerSelect", sampler_name="euler"),
            sigmas=g.add("BasicScheduler", model=g.model, scheduler="normal", steps=1, denoise=1.0),
            latent_image=g.given(latent()),
        )

    return wire


def own_sampler(latent):
    def wire(g):
        prompt = g.text()
        inputs = {"seed": 0, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        inputs |= {"mode": "paper", "strength": 1.0, "latent_image": g.given(latent())}
        return g.add("CoDiSampler", model=g.model, positive=prompt[0], negative=prompt[1], **inputs)

    return wire


def of_text_only(kind, **inputs):
    def wire(g):
        model = g.load(TEXT_ONLY)[0]
        if kind == "CoDiEmptyLatent":
            return g.empty(model, "video")
        prompt = g.text()
        sampler = {"seed": 0, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
        inputs = {"model": model, "positive": prompt[0], "negative": prompt[1], "batch_size": 1}
        return g.add(kind, width=0, height=0, frames=0, **inputs, **sampler)

    return wire


def prompted(kind, value):
    def wire(g):
        name = kind.lower()
        return g.add(f"CoDiPrompt{kind}", prompt_encoders=g.encoders, **{name: _made(g, value)})

    return wire


def encoded(kind, value):
    def wire(g):
        more = {"Video": {"frame_rate": 0.0, "frames": 0}, "Audio": {"seconds": 0.0}}.get(kind, {})
        vae = {"audio_vae": g.audio_vae} if kind == "Audio" else {"vae": g.vae}
        return g.add(f"CoDiEncode{kind}", **{kind.lower(): _made(g, value)}, **vae, **more)

    return wire


def decoded(kind, latent, **more):
    def wire(g):
        vae = {"Audio": {"audio_vae": g.audio_vae}, "Text": {"text_vae": g.text_vae}}.get(kind, {"vae": g.vae})
        inputs = {"frame_rate": 0.0} if kind == "Video" else {}
        inputs |= {name: _made(g, value) for name, value in more.items()}
        return g.add(f"CoDiDecode{kind}", samples=g.given({"samples": latent}), **vae, **inputs)

    return wire


def similar(**outputs):
    def wire(g):
        outs = {name: _made(g, value) for name, value in outputs.items()}
        return g.add("CoDiSimilarity", prompt_encoders=g.encoders, **{"prompts.prompt_1": g.text()}, **outs)[1]

    return wire


def versatile(wire):
    """On the tiny Versatile Diffusion."""

    def made(g):
        g.take(VERSATILE)
        return wire(g)

    return made


def guided_by(prompt, latent=IMAGE):
    """The stock KSampler with what `prompt` makes of the graph."""
    return lambda g: g.sample(g.model, prompt(g), g.given({"samples": latent}))


def in_context(content, **options):
    """`CoDi Context (Image)` with masks that come from a node."""

    def wire(g):
        given = {name: g.given(value) if torch.is_tensor(value) else value for name, value in options.items()}
        return g.context(content, **given)

    return wire


def mixed(*contexts, method="attention", **more):
    """`CoDi Mix Contexts` of what functions make of the graph."""

    def wire(g):
        nodes = [make(g) for make in contexts]
        inputs = {"contexts": str(len(nodes))}
        for i, node in enumerate(nodes, start=1):
            inputs |= {f"contexts.context_{i}": node[0], f"contexts.unconditional_{i}": node[1]}
            inputs[f"contexts.weight_{i}"] = 1.0
        inputs |= {name: value(g) if callable(value) else value for name, value in more.items()}
        return g.add("CoDiMixContextsByWeight", method=method, **inputs)

    return wire


def mixed_by_sockets(*contexts, **more):
    """The older `CoDi Mix Contexts`, in which every socket may be left free."""

    def wire(g):
        nodes = [make(g) for make in contexts]
        inputs = {f"contexts.context_{i}": node[0] for i, node in enumerate(nodes, start=1)}
        inputs |= {f"unconditionals.unconditional_{i}": node[1] for i, node in enumerate(nodes, start=1)}
        return g.add("CoDiMixContexts", method="attention", **inputs, **{name: one(g) for name, one in more.items()})

    return wire


def guided_apart(prompt, **cfgs):
    def wire(g):
        both = prompt(g)
        return g.add("CoDiContextGuider", model=g.model, positive=both[0], negative=both[1], cfg=2.0, **cfgs)

    return wire


def text_edited(samples):
    return lambda g: g.add(
        "CoDiEditTextLatent", samples=g.given({"samples": samples}), text_vae=g.text_vae, negative="red", positive=""
    )


def components(prompt):
    return lambda g: g.add(
        "CoDiContextComponents", conditioning=prompt(g)[0], components="the 10 strongest", whole=False
    )


def of_text(g):
    return g.context("a red star")


def of_image(g):
    return g.context(make_images())


def _made(g, value):
    """A link: from a function of the graph, or to a given value, made late because it may need ComfyUI."""
    if value is silent:
        return silent(g)
    return g.given(value() if callable(value) else value)


def interpolated(g):
    other = g.given([[torch.zeros(1, 77, 768), {}]])
    links = {"prompts.prompt_1": g.text(), "prompts.prompt_2": other}
    weights = {"prompts.weight_1": 1.0, "prompts.weight_2": 1.0}
    return g.add("CoDiInterpolatePrompts", method="linear", prompts="2", **links, **weights)

"""Small media files for tests, made with PyAV or byte by byte."""

import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import torch

from codi_backend.media.read import read_image, read_video


def tone(seconds, rate=16000, frequency=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def video_frame(pixels, pixel_format, seconds):
    frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)
    frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
    return frame


def grey(level, size=(64, 64)):
    """An image of one level of grey in 0..1; `size` is its width and height."""
    return np.full((size[1], size[0], 3), round(255 * level), np.uint8)


def write_film(path, frames=None, tracks=(), video="h264", audio="pcm_s16le", rate=16000, settings=None, **options):
    """Write a film.

    `frames` are (seconds, ``[H, W, 3]``) pairs. Each of `tracks` is a list of (seconds, samples) pairs. `settings`
    are attributes of the video's codec, `options` of the container.
    """
    with av.open(str(path), "w", **options) as container:
        packets = []
        if frames is not None:
            stream = container.add_stream(video, 10, options={"qp": "1"} if video == "h264" else {})
            stream.height, stream.width = frames[0][1].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.gop_size = 8
            for name, value in (settings or {}).items():
                setattr(stream.codec_context, name, value)
        streams = [container.add_stream(audio, rate, layout="mono") for _ in tracks]
        if frames is not None:
            for seconds, pixels in frames:
                packets += stream.encode(video_frame(pixels, "yuv420p", seconds))
            packets += stream.encode(None)
        for stream, pieces in zip(streams, tracks):
            for seconds, samples in pieces:
                frame = av.AudioFrame.from_ndarray(np.float32(samples)[None], "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, round(seconds * rate), Fraction(1, rate)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def ramp(frames=50, rate=10, begin=0.0):
    """Frames whose grey is their number divided by how many there are."""
    return [(begin + k / rate, grey(k / frames)) for k in range(frames)]


def write_planes(path, planes, codec="ffv1", pixel_format="yuv420p", size=(64, 64), **tags):
    """Write two frames whose planes have one value each, lossless; `tags` are attributes of the frame and the codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 10, options={"qp": "0"} if codec == "h264" else {})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        for k in range(2):
            frame = av.VideoFrame(*size, pixel_format)
            for plane, value in zip(frame.planes, planes):
                one = (np.uint16 if pixel_format.endswith("le") else np.uint8)(value).tobytes()
                plane.update(one * (plane.buffer_size // len(one)))
            frame.pts, frame.time_base = k, Fraction(1, 10)
            for name, value in tags.items():
                setattr(stream.codec_context, name, value)
                if hasattr(frame, name):  # PyAV 16 has some in the codec alone
                    setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def levels(pixels):
    """The mean of each frame of ``[3, T, H, W]``."""
    return pixels.mean((0, 2, 3)).tolist()


def colour(path, row=0.5, column=0.5):
    """The colour at a place of an image, or of a video's first frame, in 0..255."""
    pixels = read_image(path) if path.suffix in (".png", ".jpg", ".tiff", ".webp") else read_video(path, 1)[:, 0]
    _, height, width = pixels.shape
    return (pixels[:, int(row * height), int(column * width)] * 255).round().int().tolist()


def loud(samples, rate):
    """Where audio is not silent: the first and the last moment in seconds."""
    places = (samples[0].abs() > 0.02).nonzero()
    return float(places[0]) / rate, float(places[-1] + 1) / rate


def pitch(samples, rate):
    spectrum = torch.fft.rfft(samples[0] * torch.hann_window(samples.shape[1])).abs()
    return float(spectrum.argmax()) * rate / samples.shape[1]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(path, depth, colours, row, *chunks):
    """A PNG two pixels wide and high; `row` are the bytes of a row, `chunks` come before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, depth, colours, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress((b"\0" + row) * 2))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data + chunk(b"IEND", b""))
    return path


def write_wav(path, code, bits, data, rate=16000, channels=1):
    """A WAV file of any format code: 1 for integers, 3 for floats."""
    width = channels * bits // 8
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, code, channels, rate, rate * width, width, bits)
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def icc_profile(space, tags):
    """An ICC profile (version 2) for a device of a colour space, with these tags."""
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    pcs = b"Lab " if b"A2B0" in tags else b"XYZ "
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02100000, b"mntr", space, pcs)
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def display_p3(text=b""):
    """Display P3 but for its curve, a plain gamma of 2.2; `text` makes it long."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags[b"cprt"] = b"text\0\0\0\0" + text + b"\0"
    tags |= {b"rXYZ": xyz(0.51512, 0.2412, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189)}
    return icc_profile(b"RGB ", tags | {b"bXYZ": xyz(0.1571, 0.06657, 0.78407)})


def inverted_cmyk():
    """A printer that prints white where it is given black alone, and black for anything less."""
    outputs = b"".join(bytes([255 if k & 1 else 0, 128, 128]) for k in range(16))
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (k % 4 == 0) for k in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + outputs + identity * 3
    return icc_profile(b"CMYK", {b"A2B0": table})


def grey_profile(gamma):
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    return icc_profile(b"GRAY", {b"wtpt": white, b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))})

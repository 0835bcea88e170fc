"""Miniature packages in the layout of the real ones, and stand-ins for the clients of the registries."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from codi_backend.data.emoji import packages
from codi_backend.data.emoji.files import flac_bytes
from codi_backend.data.emoji.performances import INSTRUMENTS

APPLE, VIOLIN, FRANCE, KEYCAP = "1f34e", "1f3bb", "1f1eb-1f1f7", "0031-20e3"
COLOURS = {APPLE: "#ff0000", VIOLIN: "#885500", FRANCE: "#0000ff", KEYCAP: "#00aaff"}


def record(code_points, label, emoji, group, order, tags=(), subgroup=0):
    made = {"hexcode": code_points, "label": label, "emoji": emoji, "order": order, "tags": list(tags)}
    return made if group is None else made | {"group": group, "subgroup": subgroup}


CONCEPTS = [
    record("1F1EB-1F1F7", "flag: France", "🇫🇷", 9, 40, ["FR", "flag"]),
    record("1F34E", "red apple", "🍎", 4, 10, ["apple", "fruit", "red"], 42),
    record("1F3BB", "violin", "🎻", 7, 20, ["instrument", "music"]),
    record("0031-FE0F-20E3", "keycap: 1", "1️⃣", 8, 30, ["keycap"]),
    record("1F9D1-200D-1F9BD", "person in manual wheelchair: facing right", "🧑‍🦽", 1, 50),
    record("1F3FB", "light skin tone", "🏻", 2, 5),
    record("1F1E6", "regional indicator A", "🇦", None, 1),
]


def write_packages(folder: Path) -> dict[str, Path]:
    """Packages by name."""
    chars = {"1f34e": "red-apple", "1f3bb": "fiddle", "0031-fe0f-20e3": "keycap-1", "1f1eb-1f1f7": "flag-france"}
    made = {"emojibase-data": {"en/data.json": json.dumps(CONCEPTS).encode()}}
    for number, name in enumerate(("noto", "twemoji", "fluent-emoji-flat")):
        icons = {
            chars[code]: {"body": f'<rect x="8" y="8" width="{16 - number}" height="16" fill="{COLOURS[key]}"/>'}
            for code, key in (("1f34e", APPLE), ("0031-fe0f-20e3", KEYCAP), ("1f1eb-1f1f7", FRANCE))
        }
        icons["violin"] = {"body": f'<circle cx="16" cy="16" r="8" fill="{COLOURS[VIOLIN]}"/>'}
        both = {"prefix": name, "width": 32, "height": 32, "icons": icons, "aliases": {"fiddle": {"parent": "violin"}}}
        used = chars if name != "noto" else {code: chars[code] for code in ("1f34e", "1f3bb")}
        made[f"@iconify-json/{name}"] = {
            "icons.json": json.dumps(both).encode(),
            "chars.json": json.dumps(used).encode(),
        }
    made["@lobehub/fluent-emoji-3d"] = {
        f"assets/{key}.webp": webp([disc(COLOURS[key])]) for key in (APPLE, VIOLIN, FRANCE)
    }
    for number in (1, 2, 3, 4):
        made[f"@lobehub/fluent-emoji-anim-{number}"] = {"assets/1f600.webp": webp([disc("yellow")])}
    moving = [disc("red", left) for left in range(0, 96, 12)]
    made["@lobehub/fluent-emoji-anim-2"] |= {
        f"assets/{APPLE}.webp": webp(moving, 100),
        f"assets/{VIOLIN}.webp": webp([disc("brown")]),  # a still
        f"assets/{FRANCE}.webp": webp(moving, 100),  # art of others
    }
    tone = 0.2 * np.sin(np.arange(16000) / 5)
    made["supersonic-scsynth-samples"] = {
        "samples/drum_roll.flac": flac_bytes(tone),
        "samples/tabla_ke3.flac": flac_bytes(np.tile(tone, 5)),
        "samples/tbd_pad_1.flac": flac_bytes(tone),
    }
    paths = {}
    for package in packages.PACKAGES:
        paths[package.name] = folder / package.file
        if package.name in made:
            write_tgz(folder / package.file, made[package.name])
        else:
            paths[package.name].write_bytes(soundfont())
    return paths


def write_tgz(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in ({"package.json": b"{}"} | files).items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def disc(colour, left=0):
    """A transparent image of 128 pixels with a square."""
    image = Image.new("RGBA", (128, 128))
    image.paste(Image.new("RGBA", (32, 32), colour), (left, 48))
    return image


def webp(frames, milliseconds=100):
    stream = io.BytesIO()
    more = (
        {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "kmax": 1} if len(frames) > 1 else {}
    )
    frames[0].save(stream, "webp", lossless=True, **more)
    return stream.getvalue()


def soundfont():
    """A soundfont whose only sample, a decaying tone of 440 Hz at MIDI key 69, serves all programs in use."""
    rate, count = 22050, 22050
    tone = np.sin(2 * np.pi * 440 * np.arange(count) / rate) * np.exp(-np.arange(count) / 3000)
    samples = np.concatenate([np.round(20000 * tone), np.zeros(46)]).astype("<i2").tobytes()
    programs = [(0, max(0, instrument.program)) for instrument in INSTRUMENTS] + [(128, 0)]
    programs = sorted(set(programs))

    def chunk(name, content):
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    def name(text):
        return text.encode().ljust(20, b"\0")

    presets = b"".join(
        name(f"p{i}") + struct.pack("<HHHIII", program, bank, i, 0, 0, 0)
        for i, (bank, program) in enumerate([*programs, (255, 0)])
    )
    bags = b"".join(struct.pack("<HH", i, 0) for i in range(len(programs) + 1))
    generators = struct.pack("<HH", 41, 0) * len(programs) + bytes(4)  # instrument 0
    parts = {
        b"phdr": presets,
        b"pbag": bags,
        b"pmod": bytes(10),
        b"pgen": generators,
        b"inst": name("i") + struct.pack("<H", 0) + name("EOI") + struct.pack("<H", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 2, 0),
        b"imod": bytes(10),
        b"igen": struct.pack("<HhHH", 38, -2786, 53, 0) + bytes(4),  # a release of 0.2 s; sample 0
        b"shdr": name("s") + struct.pack("<IIIIIBbHH", 0, count, 8, count - 8, rate, 69, 0, 0, 1) + bytes(46),
    }
    information = chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"isng", b"EMU8000\0") + chunk(b"INAM", b"test")
    body = chunk(b"LIST", b"INFO" + information)
    body += chunk(b"LIST", b"sdta" + chunk(b"smpl", samples))
    body += chunk(b"LIST", b"pdta" + b"".join(chunk(key, content) for key, content in parts.items()))
    return chunk(b"RIFF", b"sfbk" + body)


def pinned(paths: dict[str, Path]) -> tuple[packages.Package, ...]:
    """The table of packages with the sizes and checksums of these files."""
    return tuple(
        dataclasses.replace(
            package,
            size=paths[package.name].stat().st_size,
            sha256=hashlib.sha256(paths[package.name].read_bytes()).hexdigest(),
        )
        for package in packages.PACKAGES
    )


def write_clients(folder: Path, registry: Path) -> Path:
    """Programs npm, apt-get and espeak-ng; returns the file in which the first two note what they fetch.

    A package whose file is missing in the registry cannot be fetched.
    """
    log = registry / "fetched.txt"
    _program(folder / "npm", _CLIENT, registry=str(registry), log=str(log), ending=".tgz")
    _program(folder / "apt-get", _CLIENT, registry=str(registry), log=str(log), ending=".deb")
    _program(folder / "espeak-ng", _ESPEAK)
    if shutil.which("dpkg-deb"):
        (folder / "dpkg-deb").symlink_to(shutil.which("dpkg-deb"))
    return log


def write_deb(path: Path, member: str, content: bytes) -> None:
    """A Debian package with one file, as dpkg-deb makes it."""
    tree = path.parent / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: fluid-soundfont-gm\nVersion: 3.1-5.3\nArchitecture: all\nMaintainer: a\nDescription: a\n"
    )
    file = tree / member
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, path], check=True, capture_output=True)
    shutil.rmtree(tree)


def _program(path: Path, text: str, **values: str) -> None:
    head = f"#!{sys.executable} -S\n" + "".join(f"{key} = {value!r}\n" for key, value in values.items())
    path.write_text(head + text)
    os.chmod(path, 0o755)


_CLIENT = """
import os, shutil, sys
name = sys.argv[-1]
package, _, version = name.rpartition("@") if ending == ".tgz" else (name, "", "")
file = package.removeprefix("@").replace("/", "-") + ("-" + version if version else "_3_all") + ending
with open(log, "a") as notes:
    notes.write(package + "\\n")
if not os.path.exists(os.path.join(registry, file)):
    sys.exit("some lines\\nno route to the registry.")
shutil.copy(os.path.join(registry, file), file)
"""

# Half a second of a tone whose pitch depends on the voice, a tenth of a second longer for every letter.
_ESPEAK = """
import math, struct, sys
if "--version" in sys.argv:
    sys.exit(print("eSpeak NG text-to-speech: 0.0  Data at: nowhere"))
voice = sys.argv[sys.argv.index("-v") + 1]
speed = int(sys.argv[sys.argv.index("-s") + 1])
count = int(22050 * (0.5 + 0.1 * len(sys.stdin.read())) * 170 / speed)
step = (3 + sum(voice.encode()) % 20) / 100
period = 100
wave = b"".join(struct.pack("<h", int(9000 * math.sin(i * math.tau * step))) for i in range(period)) * (count // period)
head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 22050, 44100, 2, 16) + b"data" + struct.pack("<I", 0x7FFFF000)
sys.stdout.buffer.write(b"RIFF" + struct.pack("<I", 0x7FFFF024) + head + wave)
"""

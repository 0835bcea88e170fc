"""The packages that the dataset is made from: versions, checksums, licences. Only permissive licences."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("images", "videos", "speech", "instruments", "samples")
"""What the dataset may contain; videos, spoken names and instruments belong to the concepts of the images."""


@dataclass(frozen=True)
class Package:
    """A package of a registry, whose file is the same everywhere.

    Attributes
    ----------
    client : str
        The program that fetches it: "npm" or "apt-get".
    version : str
        Of apt-get's, which gives one version only, the version that was tried.
    kinds : tuple of str
        The parts of the dataset that need it.
    size : int
        Bytes to download.
    file, sha256 : str
        The file that is kept, and its checksum: npm's archive, or `member` of apt-get's.
    licence, credit : str
        SPDX identifier, and who made the content.
    """

    client: str
    name: str
    version: str
    kinds: tuple[str, ...]
    size: int
    file: str
    sha256: str
    licence: str
    credit: str
    member: str = ""


def _npm(name: str, version: str, kinds: tuple[str, ...], size: int, sha256: str, licence: str, credit: str) -> Package:
    file = f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    return Package("npm", name, version, kinds, size, file, sha256, licence, credit)


_FLUENT = "Fluent Emoji by Microsoft, packaged by LobeHub"

PACKAGES = (
    _npm("emojibase-data", "17.0.0", KINDS[:4], 6711091,
         "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a", "MIT AND Unicode-3.0",
         "emojibase by Miles Johnson; names and keywords are those of the Unicode CLDR, (c) Unicode, Inc."),
    _npm("@iconify-json/noto", "1.2.9", ("images",), 3102958,
         "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "Apache-2.0",
         "Noto Emoji by Google, packaged by Iconify"),
    _npm("@iconify-json/twemoji", "1.2.5", ("images",), 1555888,
         "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7", "CC-BY-4.0",
         "Twemoji, (c) Twitter, Inc and other contributors, packaged by Iconify"),
    _npm("@iconify-json/fluent-emoji-flat", "1.2.6", ("images",), 1172438,
         "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175", "MIT",
         "Fluent Emoji by Microsoft, packaged by Iconify"),
    _npm("@lobehub/fluent-emoji-3d", "1.1.0", ("images",), 15792027,
         "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58", "MIT", _FLUENT),
    _npm("@lobehub/fluent-emoji-anim-1", "1.0.0", ("videos",), 164966217,
         "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea", "MIT", _FLUENT),
    _npm("@lobehub/fluent-emoji-anim-2", "1.0.0", ("videos",), 181915962,
         "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0", "MIT", _FLUENT),
    _npm("@lobehub/fluent-emoji-anim-3", "1.0.0", ("videos",), 197000910,
         "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43", "MIT", _FLUENT),
    _npm("@lobehub/fluent-emoji-anim-4", "1.0.0", ("videos",), 185915894,
         "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3", "MIT", _FLUENT),
    _npm("supersonic-scsynth-samples", "0.84.2", ("samples",), 34239150,
         "aff0b03208adb5dc7612dc7a4e86d55161188326bcff4dbc2d20ce9e1b94238c", "CC0-1.0",
         "samples of Sonic Pi, from Freesound and Arovane, packaged by SuperSonic"),
    Package("apt-get", "fluid-soundfont-gm", "3.1-5.3", ("instruments",), 119610208, "FluidR3_GM.sf2",
            "74594e8f4250680adf590507a306655a299935343583256f3b722c48a1bc1cb0", "MIT",
            "Fluid (R3) General MIDI SoundFont, (c) 2000-2002, 2008 Frank Wen",
            "./usr/share/sounds/sf2/FluidR3_GM.sf2"),
)  # fmt: skip

SPEECH_LICENCE = "LicenseRef-espeak-ng-output"
SPEECH_NOTE = (
    "espeak-ng, which speaks the names, is under the GPL-3.0. The licence of a program does not extend to what it "
    "renders: the recordings are not bound by it."
)


def needed(kinds: tuple[str, ...]) -> list[Package]:
    """The packages that these parts of the dataset need."""
    return [package for package in PACKAGES if set(package.kinds) & set(kinds)]


def licence_of(name: str) -> str:
    """The licence of a package."""
    return next(package.licence for package in PACKAGES if package.name == name)

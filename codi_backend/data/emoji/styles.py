"""Images of emoji in several art styles."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .archives import members, read_json
from .concepts import Concept, key_of


@dataclass(frozen=True)
class Style:
    """An art style: its name in folders and in captions, and its package."""

    name: str
    words: str
    package: str

    def has(self, concept: Concept) -> bool:
        """Whether the style has a concept of its own: Fluent Emoji has no flags, those in its package are others'."""
        return self.package != "@lobehub/fluent-emoji-3d" or concept.group != "flags"


THREE_D = Style("3d", "3D", "@lobehub/fluent-emoji-3d")  # that of the animations, too
STYLES = (
    Style("noto", "Noto", "@iconify-json/noto"),
    Style("twemoji", "Twemoji", "@iconify-json/twemoji"),
    Style("flat", "flat", "@iconify-json/fluent-emoji-flat"),
    THREE_D,
)


class Drawings:
    """The images of one style, by the keys of concepts. `available` tells which there are."""

    def __init__(self, style: Style, archive: Path):
        self.style, self._archive = style, archive
        self._svg: Mapping[str, str] = {}
        self._pictures: Mapping[str, str] = {}
        self.available: Collection[str]
        if style is THREE_D:
            self._pictures = _pictures(archive)
            self.available = self._pictures.keys()
        else:
            self._svg = _drawings(archive)
            self.available = self._svg.keys()

    def images(self, keys: Collection[str], size: int) -> Iterator[tuple[str, Image.Image]]:
        """Keys and RGB images of `size` pixels on white, of those keys that are available."""
        if self.style is not THREE_D:
            for key in keys:
                if key in self._svg:
                    yield key, _rendered(self._svg[key], size)
            return
        wanted = {self._pictures[key]: key for key in keys if key in self._pictures}
        for name, content in members(self._archive, wanted.__contains__) if wanted else ():
            yield wanted[name], on_white(Image.open(io.BytesIO(content)), size)


def on_white(image: Image.Image, size: int) -> Image.Image:
    """A transparent image of any size as an RGB image of `size` pixels on white, in the middle if it is not square."""
    image = image.convert("RGBA")
    scale = size / max(image.size)
    image = image.resize([max(1, round(scale * side)) for side in image.size], Image.Resampling.LANCZOS)
    result = Image.new("RGB", (size, size), "white")
    result.paste(image, ((size - image.width) // 2, (size - image.height) // 2), image)
    return result


def _pictures(archive: Path) -> dict[str, str]:
    """Names of WebP files in an archive of LobeHub by the keys of their emoji, of several the first."""
    with tarfile.open(archive) as tar:
        names = [member.name for member in tar if member.isfile() and member.name.endswith(".webp")]
    return {key_of(name.rpartition("/")[2][:-5]): name for name in reversed(names)}


def _drawings(archive: Path) -> dict[str, str]:
    """SVG by the keys of emoji, of a package of Iconify."""
    icons, names = read_json(archive, "package/icons.json", "package/chars.json")
    found = {}
    for code_points, name in names.items():
        while (icon := icons["icons"].get(name)) is None and name in icons.get("aliases", {}):
            alias = icons["aliases"][name]
            if alias.keys() & {"rotate", "hFlip", "vFlip"}:
                break
            name = alias["parent"]
        if icon is not None:
            left, top = (icon.get(side, icons.get(side, 0)) for side in ("left", "top"))
            width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
            # The first name of a key is kept: later ones differ in the variation selector alone.
            found.setdefault(
                key_of(code_points),
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>',
            )
    return found


def _rendered(svg: str, size: int) -> Image.Image:
    import resvg_py

    width, height = (float(side) for side in re.search(r'width="([\d.]+)" height="([\d.]+)"', svg).groups())
    side = "width" if width >= height else "height"  # the other one follows
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **{side: size})
    return on_white(Image.open(io.BytesIO(bytes(png))), size)

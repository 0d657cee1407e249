"""Draws the images: a background made from the prompt, and on it in letters what a person needs to tell them apart."""

import colorsys
import functools
import hashlib
import io
import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from seedream_batch.emulator.world.tasks import Plan

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

_TEXT_COLOUR: Colour = (255, 255, 255)
_SHADOW_COLOUR: Colour = (12, 14, 20)
# The background is soft: it is drawn this large at most, scaled up smoothly once, and then without smoothing, which
# at 4096 x 4096 takes a tenth of the time and can't be seen.
_DRAWN_SIDE = 512
_SMOOTH_SIDE = 1024
_SMALL_SIDE = 400  # below, blurs and shadows are work that nobody sees
_MAX_LINES = 7
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts")
_WIDE_FONTS = (
    "NotoSansCJK",
    "NotoSansSC",
    "SourceHanSans",
    "wqy",
    "DroidSansFallback",
    "PingFang",
    "Hiragino",
    "unifont",
)


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image."""

    data: bytes
    content_type: str


def draw(plan: Plan, index: int) -> EncodedImage:
    """The image with this index (from 0) of a task: the same bytes every time."""
    if plan.blank:
        return _blank(plan, index)
    image = _background(plan, index)
    _draw_text(image, plan, index)
    return encode(image, plan.format_of(index), quality=plan.quality, pad=plan.pad, seed=f"{plan.id}/{index}")


def _blank(plan: Plan, index: int) -> EncodedImage:
    """A picture of one shade, of the size that was asked for; a comment makes its bytes differ from all others."""
    kind = plan.format_of(index)
    data = _solid_bytes(
        kind, plan.width, plan.height, hashlib.sha256(plan.prompt.encode(errors="replace")).digest()[0] & 0xF0
    )
    name = f"{plan.id}/{index}".encode()
    data = _padded_png(data, name) if kind == "png" else _padded_jpeg(data, name)
    if plan.pad is not None and plan.pad > len(data):
        noise = random.Random(name).randbytes(plan.pad - len(data))
        data = _padded_png(data, noise) if kind == "png" else _padded_jpeg(data, noise)
    return EncodedImage(data, "image/png" if kind == "png" else "image/jpeg")


@functools.lru_cache(maxsize=64)
def _solid_bytes(kind: str, width: int, height: int, shade: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("L", (width, height), shade)
    if kind == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        # Without the tables that fit it, the file would be three times as large.
        image.save(buffer, "JPEG", quality=50, optimize=True)
    return buffer.getvalue()


def encode(image: Image.Image, kind: str, *, quality: int, pad: int | None, seed: str) -> EncodedImage:
    """A picture as jpeg or png, padded to about `pad` bytes with bytes that `seed` decides."""
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    if pad is not None and pad > len(data):
        # Compressed pictures of gradients are small; padding that compresses as badly as noise makes them real.
        noise = random.Random(seed).randbytes(pad - len(data))
        data = _padded_png(data, noise) if kind == "png" else _padded_jpeg(data, noise)
    return EncodedImage(data, "image/png" if kind == "png" else "image/jpeg")


def _padded_png(data: bytes, noise: bytes) -> bytes:
    """With a private chunk, which every reader skips, before the closing IEND chunk of 12 bytes."""
    name = b"paDd"
    chunk = struct.pack(">I", len(noise)) + name + noise + struct.pack(">I", zlib.crc32(name + noise))
    return data[:-12] + chunk + data[-12:]


def _padded_jpeg(data: bytes, noise: bytes) -> bytes:
    """With comments, of at most 65533 bytes each, after the opening marker of 2 bytes."""
    most = 65533
    comments = [noise[start : start + most] for start in range(0, len(noise), most)]
    return data[:2] + b"".join(b"\xff\xfe" + struct.pack(">H", len(each) + 2) + each for each in comments) + data[2:]


def _background(plan: Plan, index: int) -> Image.Image:
    """A gradient and some soft shapes in colours of the prompt; each image of a task has shapes of its own."""
    digest = hashlib.sha256(plan.prompt.encode(errors="replace")).digest()
    hue = digest[0] / 256
    dice = random.Random(f"{digest.hex()}/{plan.ratio}/{index}")
    scale = min(1.0, _DRAWN_SIDE / max(plan.width, plan.height))
    size = (max(8, round(plan.width * scale)), max(8, round(plan.height * scale)))
    first, second = _colour(hue, 0.62, 0.62), _colour(hue + 0.08 + digest[1] / 1024, 0.7, 0.3)
    image = Image.composite(
        Image.new("RGB", size, second),
        Image.new("RGB", size, first),
        Image.linear_gradient("L").rotate(dice.choice((0, 90, 180, 270))).resize(size),
    )
    shapes = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(shapes)
    for _ in range(7):
        radius = dice.uniform(0.08, 0.4) * min(size)
        x, y = dice.uniform(0, size[0]), dice.uniform(0, size[1])
        box = (x - radius, y - radius, x + radius, y + radius)
        paint = (*_colour(hue + dice.uniform(-0.12, 0.2), 0.55, 0.9), dice.randrange(40, 110))
        if dice.random() < 0.7:
            pen.ellipse(box, fill=paint)
        else:
            pen.rounded_rectangle(box, radius * 0.3, fill=paint)
    if max(size) >= _SMALL_SIDE:
        shapes = shapes.filter(ImageFilter.GaussianBlur(max(size) / 160))
    image.paste(shapes, (0, 0), shapes)
    if max(plan.width, plan.height) > _SMOOTH_SIDE:
        smooth = _SMOOTH_SIDE / max(size)
        image = image.resize((round(size[0] * smooth), round(size[1] * smooth)), Image.Resampling.BILINEAR)
    return image.resize((plan.width, plan.height), Image.Resampling.NEAREST)


def _draw_text(image: Image.Image, plan: Plan, index: int) -> None:
    """Ratio and number large above, the prompt in the middle, the rest small below."""
    width, height = image.size
    unit = (width * height) ** 0.5
    margin = max(2, round(min(width, height) * 0.05))
    pen = ImageDraw.Draw(image)
    room = (width - 2 * margin, height - 2 * margin)

    title = f"{plan.ratio}  #{index + 1}/{max(plan.delivered, 1)}"
    title_font = _fitting_font(title, room[0], unit * 0.11)
    _write(pen, (margin, margin), title, title_font)
    below = margin + _line_height(title_font)

    foot_lines = (f"EMULATED  {plan.resolution}  {width}x{height}", plan.id)
    foot_font = _fitting_font(max(foot_lines, key=len), room[0], unit * 0.05)
    foot = height - margin - len(foot_lines) * _line_height(foot_font)
    for line, text in enumerate(foot_lines):
        _write(pen, (margin, foot + line * _line_height(foot_font)), text, foot_font)

    font, lines = _wrapped(plan.prompt, room[0], max(1, foot - below - margin), unit * 0.085)
    top = below + max(0, (foot - below - len(lines) * _line_height(font)) // 2)
    for line, text in enumerate(lines):
        _write(pen, (margin, top + line * _line_height(font)), text, font)


def _write(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: Font) -> None:
    shift = _line_height(font) // 22
    if shift:
        pen.text((at[0] + shift, at[1] + shift), text, font=font, fill=_SHADOW_COLOUR)
    pen.text(at, text, font=font, fill=_TEXT_COLOUR)


def _wrapped(text: str, width: float, height: float, size: float) -> tuple[Font, list[str]]:
    """The text in lines that fit into width x height pixels, in the largest of some sizes, cut off if need be."""
    text = " ".join(_printable(text).split()) or "(no text)"
    for factor in (1.0, 0.8, 0.62, 0.5):
        font = _font(round(size * factor), wide=not text.isascii())
        lines = _lines(text, font, width)
        most = max(1, int(height // _line_height(font)))
        if len(lines) <= min(most, _MAX_LINES):
            return font, lines
    most = max(1, min(most, _MAX_LINES + 3))
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][:-1] + "..."]
    return font, lines


def _lines(text: str, font: Font, width: float) -> list[str]:
    """Broken at spaces, and inside words (and between CJK characters) that are wider than a line."""
    lines = [""]
    # Enough for any picture: a prompt of a megabyte must not cost a minute.
    for word in text[:1500].split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return [line for line in lines if line]


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _fitting_font(text: str, width: float, size: float) -> Font:
    font = _font(round(size), wide=False)
    length = font.getlength(text)
    return font if length <= width else _font(int(size * width / length), wide=False)


def _line_height(font: Font) -> int:
    return max(1, round(getattr(font, "size", 10) * 1.25))


@functools.lru_cache(maxsize=128)
def _font(size: int, *, wide: bool) -> Font:
    """A font of this many pixels; a wide one has CJK glyphs where the system has such a font."""
    size = max(6, size)
    path = _wide_font() if wide else None
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


@functools.lru_cache(maxsize=1)
def _wide_font() -> Path | None:
    for folder in map(Path, _FONT_FOLDERS):
        found = [path for path in folder.rglob("*.[to]t[fc]") if path.name.startswith(_WIDE_FONTS)]
        if found:
            return min(found)
    return None


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def solid_image(width: int, height: int) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (width, height), _SHADOW_COLOUR)

"""Draws the images, each once: a background derived from the prompt, and text that lets people tell them apart."""

import asyncio
import colorsys
import functools
import hashlib
import io
import random
import struct
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from seedream_batch.emulator.world.tasks import TaskPlan

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

_TEXT_COLOUR: Colour = (255, 255, 255)
_SHADOW_COLOUR: Colour = (12, 14, 20)
# The background is blurred, so it is drawn with at most this many pixels a side, scaled up smoothly once, and then
# without smoothing: at 4096 x 4096 that takes a tenth of the time, and nobody sees the difference.
_DRAWN_SIDE = 512
_SMOOTH_SIDE = 1024
_SMALL_SIDE = 400  # nobody sees a blur in a smaller image
_MAX_LINES = 7
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts")
_WIDE_FONTS = "NotoSansCJK NotoSansSC SourceHanSans wqy DroidSansFallback PingFang Hiragino unifont"


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file."""

    data: bytes
    content_type: str


def draw(plan: TaskPlan, index: int) -> EncodedImage:
    """Return the image of a task with this index, from 0: the same bytes every time."""
    kind, name = plan.format_of(index), f"{plan.id}/{index}"
    if plan.blank:
        colour = hashlib.sha256(plan.prompt.encode(errors="replace")).digest()[0] & 0xF0
        # The comment makes its bytes differ from those of all other images.
        data = _with_comment(_grey_image(kind, plan.width, plan.height, colour), kind, name.encode())
    else:
        image = _background(plan, index)
        _draw_text(image, plan, index)
        data = _encode(image, kind, **({"compress_level": 1} if kind == "png" else {"quality": plan.quality}))
    if plan.pad is not None and plan.pad > len(data):
        # Gradients compress to small files; padding that compresses as badly as noise makes their sizes realistic.
        data = _with_comment(data, kind, random.Random(name).randbytes(plan.pad - len(data)))
    return EncodedImage(data, f"image/{kind}")


def solid_image(width: int, height: int) -> EncodedImage:
    """Return a PNG of one colour, of this many pixels."""
    return EncodedImage(
        _encode(Image.new("RGB", (width, height), _SHADOW_COLOUR), "png", compress_level=1), "image/png"
    )


@functools.lru_cache(maxsize=64)
def _grey_image(kind: str, width: int, height: int, colour: int) -> bytes:
    image = Image.new("L", (width, height), colour)
    # Without tables that fit it (`optimize`), a JPEG would be three times as large.
    return _encode(image, kind, **({"compress_level": 1} if kind == "png" else {"quality": 50, "optimize": True}))


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _with_comment(data: bytes, kind: str, comment: bytes) -> bytes:
    """Return an image file with bytes that every reader skips."""
    if kind == "png":
        # A private chunk before the closing IEND chunk of 12 bytes.
        name = b"paDd"
        chunk = struct.pack(">I", len(comment)) + name + comment + struct.pack(">I", zlib.crc32(name + comment))
        return data[:-12] + chunk + data[-12:]
    # Comment segments of at most 65533 bytes each, after the opening marker of 2 bytes.
    parts = [comment[start : start + 65533] for start in range(0, len(comment), 65533)]
    return data[:2] + b"".join(b"\xff\xfe" + struct.pack(">H", len(part) + 2) + part for part in parts) + data[2:]


def _background(plan: TaskPlan, index: int) -> Image.Image:
    """Draw a gradient and soft shapes, in colours derived from the prompt; each image of a task has other shapes."""
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


def _draw_text(image: Image.Image, plan: TaskPlan, index: int) -> None:
    """Write ratio and number large at the top, the prompt in the middle, the rest small at the bottom."""
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
    """Break a text into lines that fit into width x height pixels, in the largest font that works, or cut it off."""
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split()) or "(no text)"
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
    """Break a text at spaces, and inside words (or between CJK characters) that are wider than a line."""
    lines = [""]
    # Enough for any image: a prompt of a megabyte must not take a minute.
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


def _fitting_font(text: str, width: float, size: float) -> Font:
    font = _font(round(size), wide=False)
    length = font.getlength(text)
    return font if length <= width else _font(int(size * width / length), wide=False)


def _line_height(font: Font) -> int:
    return max(1, round(getattr(font, "size", 10) * 1.25))


@functools.lru_cache(maxsize=128)
def _font(size: int, *, wide: bool) -> Font:
    """Return a font of this many pixels; a wide one has CJK glyphs if the system has such a font."""
    size = max(6, size)
    path = _wide_font() if wide else None
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


@functools.lru_cache(maxsize=1)
def _wide_font() -> Path | None:
    for folder in map(Path, _FONT_FOLDERS):
        found = [path for path in folder.rglob("*.[to]t[fc]") if path.name.startswith(tuple(_WIDE_FONTS.split()))]
        if found:
            return min(found)
    return None


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


_THREADS = 2
_MAX_BYTES = 64 * 1024 * 1024


class ImageCache:
    """The images of tasks. Used from the event loop only; drawing and encoding happen in threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="emulator-images")
        self._images: OrderedDict[tuple[str, int], EncodedImage] = OrderedDict()
        self._bytes = 0
        self._drawing: dict[tuple[str, int], asyncio.Future[EncodedImage]] = {}

    async def image(self, plan: TaskPlan, index: int) -> EncodedImage:
        """Return the image of a task with this index, from 0."""
        key = (plan.id, index)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        if key not in self._drawing:
            future = asyncio.get_running_loop().run_in_executor(self._pool, draw, plan, index)
            self._drawing[key] = future
            future.add_done_callback(lambda done: self._keep(key, done))
        # Shielded: a client that disconnects must not cancel the drawing that others wait for.
        return await asyncio.shield(self._drawing[key])

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _keep(self, key: tuple[str, int], done: "asyncio.Future[EncodedImage]") -> None:
        del self._drawing[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._images[key] = done.result()
        self._bytes += len(done.result().data)
        while self._bytes > _MAX_BYTES and len(self._images) > 1:
            _, dropped = self._images.popitem(last=False)
            self._bytes -= len(dropped.data)

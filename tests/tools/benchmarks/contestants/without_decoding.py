"""The command line of seedream-batch, but for the decoding of pictures: for measurements of everything around it.

    python without_decoding.py run JOB --collect

There is no such option: a picture that was not decoded is not known to be whole. Format and size are still read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seedream_batch.cli import main
from seedream_batch.files import image_inspection as pictures

looked_at = 0


def inspect(source: Path | bytes, *, max_pixels: int = pictures.MAX_PIXELS, **_: bool) -> pictures.Picture:
    """What the header of the picture says."""
    global looked_at  # noqa: PLW0603 - one count for the whole process
    looked_at += 1
    return with_decoding(source, decode=False, max_pixels=max_pixels)


if "seedream_batch.engine.downloader" in sys.modules:
    sys.exit("what is to be replaced is in use already")
with_decoding, pictures.inspect = pictures.inspect, inspect
try:
    main()
finally:
    if not looked_at:
        sys.exit("no picture was looked at without decoding: the replacement does not work any more")

"""The pictures of the README can be made anew at any time, by one command."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image
from postcards import CHROMIUM

PICTURES = Path(__file__).parent / "tools" / "pictures"
DRAWN = {"plan.svg", "running.svg", "ended.svg"}
PHOTOGRAPHED = {f"gallery-{window}-{scheme}.png" for window in ("wide", "narrow") for scheme in ("light", "dark")}


def test_the_pictures_that_are_kept_are_those_that_are_made():
    kept = {path.name for path in PICTURES.iterdir() if path.suffix in {".svg", ".png"}}
    assert kept == DRAWN | PHOTOGRAPHED
    assert sum((PICTURES / name).stat().st_size for name in kept) < 600_000


@pytest.mark.timeout(300)
def test_the_script_makes_them(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="the gallery is photographed with playwright")
    done = subprocess.run([sys.executable, PICTURES, tmp_path], capture_output=True, text=True, check=False)
    if CHROMIUM is None:
        assert (done.returncode, done.stderr) == (1, "there is no chromium, so the gallery's pictures are not made\n")
    else:
        assert done.returncode == 0, done.stderr
        for name in PHOTOGRAPHED:
            with Image.open(tmp_path / name) as image:
                assert image.size == ((1440, 900) if "wide" in name else (390, 844))
    drawn = {name: lines_of(tmp_path / name) for name in DRAWN}
    assert "A run would generate 36 images for about 1.26 USD." in drawn["plan.svg"]
    assert "/36 " in drawn["running.svg"], "which form of the bar fits depends on the moment"
    assert "  failed     2 tasks\n" in drawn["ended.svg"]
    assert "  uncertain  1 task\n" in drawn["ended.svg"]


def lines_of(drawing):
    """The lines of a drawing; a coloured word is an element of its own."""
    return "\n".join("".join(line.itertext()) for line in ET.parse(drawing).getroot())

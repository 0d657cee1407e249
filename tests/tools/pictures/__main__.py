"""Makes the pictures of the README: a plan, a run and a gallery, as they are.

    python tests/tools/pictures [FOLDER]

It runs a job of two subjects in nine ratios and two resolutions against the emulator, which refuses two of its tasks
and leaves one without an answer. The terminal is one of 80 columns; the gallery is photographed by Chromium. Without
FOLDER the pictures go beside this file.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from postcards import BROWSER, CHROMIUM, FAULTS, JOB
from terminal import Played, play, svg

from seedream_batch.emulator import Emulator, EmulatorConfig

WINDOWS = {"wide": (1440, 900), "narrow": (390, 844)}


def main(args: Sequence[str]) -> int:
    """Makes all of them; the exit code."""
    to = Path(args[0]) if args else Path(__file__).parent
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        terminal(Path(folder), to)
        if CHROMIUM is None:
            sys.exit("there is no chromium, so the gallery's pictures are not made")
        gallery(Path(folder), to)
    for path in sorted([*to.glob("*.svg"), *to.glob("*.png")]):
        print(f"{path.stat().st_size / 1000:6.0f} KB  {path.name}")
    return 0


def terminal(folder: Path, to: Path) -> list[Played]:
    """Plans and runs the job in `folder`, and draws what the terminal shows."""
    (folder / "postcards.yaml").write_text(JOB, encoding="utf-8")
    with Emulator(EmulatorConfig(task_seconds="uniform:0.5,3")) as emulator:
        emulator.set_faults(FAULTS)
        environment = {**os.environ, "APIMART_BASE_URL": emulator.url, "APIMART_API_KEY": "any", "LANG": "C.UTF-8"}

        def command(*words: str) -> Played:
            return play([sys.executable, "-m", "seedream_batch", *words, "postcards.yaml"], cwd=folder, env=environment)

        planned, ran = command("plan"), command("run")
    typed = "$ seedream-batch {} postcards.yaml".format
    for name, title, lines in (
        ("plan", "A plan", [typed("plan"), *planned.lines]),
        ("running", "A run, half way", [typed("run"), *half_way(ran)]),
        ("ended", "A run, at its end", [typed("run"), *ran.lines]),
    ):
        (to / f"{name}.svg").write_text(svg(lines, title), encoding="utf-8")
    return [planned, ran]


def half_way(ran: Played) -> list[str]:
    """What the terminal showed when half of the images were there."""
    for frame in ran.frames:
        done = re.search(r"\b(\d+)/36\b", frame[-1]) if frame else None
        if done and int(done[1]) >= 18:
            return frame
    raise AssertionError("the run showed no bar")


def gallery(folder: Path, to: Path) -> None:
    """Writes the gallery of the job in `folder`, and photographs it."""
    from playwright.sync_api import sync_playwright

    subprocess.run([sys.executable, "-m", "seedream_batch", "report", "postcards.yaml"], cwd=folder, check=True)
    index = folder / "out" / "postcards-report" / "index.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER)
        for window, (width, height) in WINDOWS.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(index.as_uri())
                page.wait_for_selector("html[data-ready]")
                page.wait_for_load_state("networkidle")
                photo = Image.open(io.BytesIO(page.screenshot()))
                # A palette is a third of the size, and nobody sees the difference.
                photo.convert("RGB").quantize().save(to / f"gallery-{window}-{scheme}.png", optimize=True)
                page.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The job of the README's pictures, which the tests of the gallery look at, too: 36 cells, three of them not made."""

from __future__ import annotations

import shutil

JOB = """\
version: 1
name: postcards
matrix:
  subject:
    - {id: panda, text: a panda playing in a bamboo forest}
    - {id: fox, text: a fox asleep in the snow}
  size: [1:1, 4:3, 3:4, 16:9, 9:16, 3:2, 2:3, 21:9, 9:21]
  resolution: [2K, 4K]
request: {prompt: "{{ subject.text }}, watercolour"}
budget: {max_cost_usd: 5, price_per_image_usd: 0.035}
"""

FAULTS = (
    {"on": "submit", "action": "fail", "code": "OutputImageSensitiveContentDetected", "prompt": "fox", "every": 7,
     "count": 2},
    {"on": "submit", "action": "reset_after_bill", "prompt": "panda", "after": 5, "count": 1},
)  # fmt: skip
"""Two of its tasks fail, and one gets no clear answer."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER = ("--no-sandbox", "--disable-gpu")
"""What Chromium needs to be told where there is no screen."""

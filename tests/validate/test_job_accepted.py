import pytest

from seedream_batch.document.yaml_loader import parse_yaml
from seedream_batch.validate.job_file import job_problems

WHOLE = """\
# yaml-language-server: $schema=../schemas/job.schema.json
version: 1
name: panda-postcards
vars: {style: "watercolour, soft morning light"}

matrix:
  subject:
    - {id: panda, text: a panda playing in a bamboo forest}
    - {id: fox, text: a fox asleep in the snow}
  size: [1:1, 16:9, 9:16]
  resolution: [2K, 4K]
exclude:
  - {size: 9:16, resolution: 4K}
  - {subject: {id: fox}, size: [16:9, 9:16]}
include:
  - {subject: {id: wide, text: a mountain panorama}, size: 21:9, resolution: 4K}
repeat: 2

request:
  prompt: "{{ subject.text }}, {{ style }}"
  watermark: false

references: {send: upload}
output:
  dir: ../out/panda-postcards
  path: "{{ subject.id }}/{{ size }}-{{ resolution }}-{{ sample }}"
budget: {max_images: 500, max_cost_usd: 20, price_per_image_usd: 0.035}
run: {max_in_flight: 64, rate: 5/s, attempts: 3, task_timeout: 30m, on_unknown: hold}
"""

ACCEPTED = {
    "the least": "",
    "an axis from a file": "matrix: {subject: {file: subjects.csv}, size: {file: sizes.txt}}",
    "values of every kind": "matrix: {subject: [text, 1, 2.5, true, null, [1, 2], {id: a}]}",
    "typed axes": "matrix: {n: [1, 15], watermark: [true], model: [doubao-seedream-4.5]}",
    "a series as an axis": "matrix: {sequential_image_generation: [auto, disabled]}",
    "variables of every kind": "vars: {a: 1, _b: [x], C3: {d: {e: null}}}",
    "a name of 100 characters": f"name: {'a' * 100}",
    "a name with every mark": "name: 9a.b_c-d",
    "prompt from a file": "request: {prompt: {file: prompts/hero.j2}}",
    "templates in every field": """
request:
  model: "{{ m }}"
  prompt: "{{ p }}"
  size: "{{ s }}"
  resolution: "{{ r }}"
  n: "{{ count }}"
  image_urls: ["references/{{ id }}.jpg", ../fox.png, "https://example.com/a.jpg", "data:image/png;base64,AAAA"]
  optimize_prompt_options: {mode: "{{ mode }}"}
  sequential_image_generation: "{% if many %}auto{% else %}disabled{% endif %}"
  sequential_image_generation_options: {max_images: "{{ many }}"}
  watermark: "{{ mark }}"
""",
    "every field as it is": """
request:
  model: doubao-seedance-4-5
  prompt: a panda
  size: auto
  resolution: 4K
  n: 15
  image_urls: []
  optimize_prompt_options: {mode: fast}
  sequential_image_generation: auto
  sequential_image_generation_options: {max_images: 15}
  watermark: true
""",
    "exclude with any of": "exclude: [{size: [1:1, 4:3], n: [1], a: {b: c}, d: [{e: f}]}]",
    "nothing to exclude or include": "exclude: []\ninclude: []",
    "the most of everything": "repeat: 10000\nrun: {max_in_flight: 10000, attempts: 20}",
    "a budget of nothing": "budget: {max_images: 0, max_cost_usd: 0, price_per_image_usd: 0.001}",
    "a price for each resolution": "budget: {price_per_image_usd: {2K: 0.035, 4K: 0.042}}",
    "inline": "references: {send: inline}",
    "resend": "run: {on_unknown: resend}",
    **{f"rate {rate}": f"run: {{rate: {rate}}}" for rate in ("5", "0.5", "5/s", "120/m", "1000/h", "0.5/s")},
    **{
        f"task_timeout {time}": f"run: {{task_timeout: {time}}}"
        for time in ("30m", "90s", "1h", "1h30m", "1h30s", "2h0m5s", "1800", "0.5")
    },
    "empty parts": "references: {}\noutput: {}\nbudget: {}\nrun: {}\nvars: {}",
}


def job(text):
    """The least job, with what `text` says in place of its own."""
    lines = {"version": "version: 1", "matrix": "matrix: {subject: [a]}", "request": "request: {prompt: a}"}
    own = [line for name, line in lines.items() if not any(row.startswith(f"{name}:") for row in text.splitlines())]
    return parse_yaml("\n".join([text, *own]), "j.yaml")


def test_a_whole_job():
    assert job_problems(parse_yaml(WHOLE, "jobs/x.yaml")) == []


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    assert job_problems(job(ACCEPTED[name])) == []

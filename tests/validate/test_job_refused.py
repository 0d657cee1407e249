import pytest

from seedream_batch.document.yaml_loader import parse_yaml
from seedream_batch.model.document import Document, Mark, Position
from seedream_batch.validate.job_file import job_problems

SIZES = "must be one of 1:1, 4:3, 3:4, 16:9, 9:16, 3:2, 2:3, 21:9, 9:21, auto, got "
COUNT = "must be an integer from 1 to 15, got "
AXIS = "must be a list of values, or {file: path}, got "
NAME = "must be at most 100 letters, digits, dots, dashes and underscores, the first a letter or digit, got "
TOP = (
    "known: version, name, vars, matrix, exclude, include, repeat, request, references, output, manifest, budget, run,"
    " notify"
)
RATE = "must be a number per second above 0, or a rate such as 5/s, 120/m or 1000/h, got "
TIME = "must be a time such as 90s, 30m or 1h30m, or a number of seconds above 0, got "
PRICE = "must be a number of US dollars, 0.001 or more, got "
DOLLARS = "must be a number of US dollars, 0 or more, got "
NO_NAME = "a name must be letters, digits and underscores, not starting with a digit"

BASE = {
    "version": "version: 1",
    "matrix": "matrix: {subject: [a]}",
    "request": "request: {prompt: a}",
}

# What stands first in the file (line 1 on); line, column, path, message and hint of its only problem.
REFUSED = [
    ("version: 2", 1, 10, "version", "must be 1, got 2", ""),
    ('version: "1"', 1, 10, "version", 'must be 1, got "1"', "write 1 without quotes"),
    ("version:", 1, 9, "version", "must be 1, got nothing", ""),
    ("name: my job", 1, 7, "name", NAME + '"my job"', ""),
    ("name: 2024", 1, 7, "name", NAME + "2024", 'put it in quotes: "2024"'),
    ('name: "ab\\n"', 1, 7, "name", NAME + '"ab\\n"', ""),
    (f"name: {'a' * 101}", 1, 7, "name", NAME + '"' + "a" * 57 + '..."', ""),
    ("vars: [a]", 1, 7, "vars", "must be a mapping, got a list", ""),
    ("vars:\n  a: 1\n  my-style: 2", 3, 3, "vars.my-style", NO_NAME, "for example my_style"),
    ("vars: {1st: 2}", 1, 8, "vars.1st", NO_NAME, "for example _1st"),
    ("matrix: {}", 1, 9, "matrix", "must have at least one axis", ""),
    ("matrix: [a]", 1, 9, "matrix", "must be a mapping, got a list", ""),
    ("matrix:\n  sub-ject: [a]", 2, 3, "matrix.sub-ject", NO_NAME, "for example sub_ject"),
    ("matrix:\n  subject: panda", 2, 12, "matrix.subject", AXIS + '"panda"', "write it as a list: [panda]"),
    ("matrix:\n  subject: 3", 2, 12, "matrix.subject", AXIS + "3", "write it as a list: [3]"),
    ("matrix:\n  subject: []", 2, 12, "matrix.subject", "must have at least one value", ""),
    ("matrix:\n  subject: {panda: x}", 2, 12, "matrix.subject", AXIS + "a mapping", ""),
    ("matrix:\n  subject:\n  b: [1]", 2, 11, "matrix.subject", AXIS + "nothing", ""),
    ("matrix:\n  s: {file: 3}", 2, 13, "matrix.s.file", "must be the path of a file, got 3", 'put it in quotes: "3"'),
    ("matrix:\n  s: {file: a.csv, sep: x}", 2, 20, "matrix.s.sep", "unknown key", "known: file"),
    ("matrix:\n  size: 16:9", 2, 9, "matrix.size", AXIS + '"16:9"', "write it as a list: [16:9]"),
    ("matrix:\n  size: [1:1, 16:10]", 2, 15, "matrix.size[1]", SIZES + "16:10", "the nearest ratio is 3:2"),
    (
        "matrix:\n  size: [1:1,\n    969]",
        3,
        5,
        "matrix.size[1]",
        SIZES + "969",
        'YAML 1.1 reads an unquoted 16:9 as 969: write "16:9"',
    ),
    ("matrix:\n  size: []", 2, 9, "matrix.size", "must have at least one value", ""),
    (
        "matrix:\n  resolution: [1K]",
        2,
        16,
        "matrix.resolution[0]",
        "must be one of 2K, 4K, got 1K",
        "1K is not available; the smallest is 2K",
    ),
    (
        "matrix:\n  n: [1, '3']",
        2,
        10,
        "matrix.n[1]",
        COUNT + '"3"',
        "the API refuses a quoted number: write 3",
    ),
    ("matrix:\n  watermark: [no]", 2, 15, "matrix.watermark[0]", 'must be true or false, got "no"', "write false"),
    ("exclude: {size: 1:1}", 1, 10, "exclude", "must be a list, got a mapping", ""),
    ("exclude:\n  - {}", 2, 5, "exclude[0]", "must name at least one axis", "an empty entry would skip every cell"),
    ("exclude:\n  - size", 2, 5, "exclude[0]", 'must be a mapping, got "size"', ""),
    ("exclude:\n  - {size: [1:1, 1:2]}", 2, 18, "exclude[0].size[1]", SIZES + "1:2", "the nearest ratio is 9:16"),
    ("exclude:\n  - {size: 1:2}", 2, 12, "exclude[0].size", SIZES + "1:2", "the nearest ratio is 9:16"),
    ("include:\n  - {n: 0}", 2, 9, "include[0].n", COUNT + "0", ""),
    ("include:\n  - {}", 2, 5, "include[0]", "must have at least one value", ""),
    ("repeat: 0", 1, 9, "repeat", "must be an integer from 1 to 10,000, got 0", ""),
    ("repeat: 10001", 1, 9, "repeat", "must be an integer from 1 to 10,000, got 10001", ""),
    ("repeat: '2'", 1, 9, "repeat", 'must be an integer from 1 to 10,000, got "2"', "write 2 without quotes"),
    ("request: a panda", 1, 10, "request", 'must be a mapping, got "a panda"', "required: prompt"),
    (
        "request:\n  size: 1:1",
        2,
        3,
        "request.prompt",
        "is required",
        'for example `prompt: "{{ subject.text }}, {{ style }}"`',
    ),
    (
        "request:\n  prompt: ' '",
        2,
        11,
        "request.prompt",
        'must be non-empty text, or {file: path}, got " "',
        "",
    ),
    (
        "request:\n  prompt: [a]",
        2,
        11,
        "request.prompt",
        "must be non-empty text, or {file: path}, got a list",
        "",
    ),
    (
        "request:\n  prompt: {path: a.j2}",
        2,
        11,
        "request.prompt",
        "must be non-empty text, or {file: path}, got a mapping",
        "",
    ),
    (
        'request:\n  prompt: a\n  n: "3"',
        3,
        6,
        "request.n",
        COUNT + '"3"',
        "the API refuses a quoted number: write 3",
    ),
    ("request:\n  prompt: a\n  n: 16", 3, 6, "request.n", COUNT + "16", ""),
    ("request:\n  prompt: a\n  n: {a: 1}", 3, 6, "request.n", COUNT + "a mapping", ""),
    ("request:\n  prompt: a\n  size: 16:10", 3, 9, "request.size", SIZES + "16:10", "the nearest ratio is 3:2"),
    (
        "request:\n  prompt: a\n  watermark: off",
        3,
        14,
        "request.watermark",
        'must be true or false, got "off"',
        "write false",
    ),
    (
        "request:\n  prompt: a\n  image_urls: a.jpg",
        3,
        15,
        "request.image_urls",
        'must be a list of URLs, data URIs or paths, got "a.jpg"',
        "write it as a list: [a.jpg]",
    ),
    (
        "request:\n  prompt: a\n  image_urls: [" + ", ".join("a" * 15) + "]",
        3,
        15,
        "request.image_urls",
        "must have at most 14 entries, got 15",
        "references and requested images are at most 15 together",
    ),
    (
        "request:\n  prompt: a\n  image_urls: [a.jpg, '']",
        3,
        23,
        "request.image_urls[1]",
        'must be a URL, a data URI or the path of an image, got ""',
        "",
    ),
    (
        "request:\n  prompt: a\n  resolutoin: 2K",
        3,
        3,
        "request.resolutoin",
        "unknown key",
        "did you mean `resolution`?",
    ),
    (
        "request:\n  prompt: a\n  sequential_image_generation_options: {max_images: 0}",
        3,
        53,
        "request.sequential_image_generation_options.max_images",
        COUNT + "0",
        "",
    ),
    ("request:\n  prompt: a\n  mode: fast", 3, 3, "request.mode", "unknown key", None),
    ("prompt: a", 1, 1, "prompt", "unknown key", "`prompt` belongs under `request`"),
    ("metrix: a", 1, 1, "metrix", "unknown key", "did you mean `matrix`?"),
    ("rate: 5/s", 1, 1, "rate", "unknown key", "`rate` belongs under `run`"),
    ("steps: 20", 1, 1, "steps", "unknown key", TOP),
    ('"a\\nb": 20', 1, 1, "a\\nb", "unknown key", TOP),
    (
        "references: {send: uplaod}",
        1,
        20,
        "references.send",
        "must be one of upload, inline, got uplaod",
        "did you mean upload?",
    ),
    ("output: out", 1, 9, "output", 'must be a mapping, got "out"', ""),
    ("output: {dir: ''}", 1, 15, "output.dir", 'must be the path of a folder, got ""', ""),
    ("output: {path: 5}", 1, 16, "output.path", "must be a template of a path, got 5", 'put it in quotes: "5"'),
    ("budget: {max_images: -1}", 1, 22, "budget.max_images", "must be an integer, 0 or more, got -1", ""),
    ("budget: {max_cost_usd: '20'}", 1, 24, "budget.max_cost_usd", DOLLARS + '"20"', "write 20 without quotes"),
    (
        "budget: {price_per_image_usd: {}}",
        1,
        31,
        "budget.price_per_image_usd",
        "must have at least one price",
        "",
    ),
    (
        "budget: {price_per_image_usd: {2k: 1}}",
        1,
        32,
        "budget.price_per_image_usd.2k",
        "unknown key",
        "did you mean `2K`?",
    ),
    ("budget: {price_per_image_usd: {2K: -1}}", 1, 36, "budget.price_per_image_usd.2K", PRICE + "-1", ""),
    ("budget: {price_per_image_usd: {4K: 0}}", 1, 36, "budget.price_per_image_usd.4K", PRICE + "0", ""),
    (
        "budget: {price_per_image_usd: 0.0001}",
        1,
        31,
        "budget.price_per_image_usd",
        "must be a number of US dollars, 0.001 or more, or a mapping such as {2K: 0.035, 4K: 0.042}, got 0.0001",
        "",
    ),
    (
        "budget: {price_per_image_usd: cheap}",
        1,
        31,
        "budget.price_per_image_usd",
        'must be a number of US dollars, 0.001 or more, or a mapping such as {2K: 0.035, 4K: 0.042}, got "cheap"',
        "",
    ),
    ("run: {max_in_fligt: 3}", 1, 7, "run.max_in_fligt", "unknown key", "did you mean `max_in_flight`?"),
    ("run: {max-in-flight: 3}", 1, 7, "run.max-in-flight", "unknown key", "did you mean `max_in_flight`?"),
    ("run: {max_in_flight: 10001}", 1, 22, "run.max_in_flight", "must be an integer from 1 to 10,000, got 10001", ""),
    ("run: {attempts: 21}", 1, 17, "run.attempts", "must be an integer from 1 to 20, got 21", ""),
    ("run: {rate: 0}", 1, 13, "run.rate", RATE + "0", ""),
    ("run: {rate: 0/s}", 1, 13, "run.rate", RATE + '"0/s"', ""),
    ("run: {rate: 5/sec}", 1, 13, "run.rate", RATE + '"5/sec"', ""),
    ("run: {task_timeout: 30 min}", 1, 21, "run.task_timeout", TIME + '"30 min"', ""),
    ("run: {task_timeout: '90'}", 1, 21, "run.task_timeout", TIME + '"90"', "write 90 without quotes"),
    ("run: {task_timeout: 0s}", 1, 21, "run.task_timeout", TIME + '"0s"', ""),
    ("run: {task_timeout: 30m1h}", 1, 21, "run.task_timeout", TIME + '"30m1h"', ""),
    ("run: {on_unknown: retry}", 1, 19, "run.on_unknown", "must be one of hold, resend, got retry", ""),
]


@pytest.mark.parametrize("row", REFUSED, ids=[row[0].replace("\n", " ")[:50] for row in REFUSED])
def test_refused_for_this_reason_alone(row):
    text, line, column, path, message, hint = row
    given = {start.split(":")[0] for start in text.splitlines()}
    text = "\n".join([text, *(base for name, base in BASE.items() if name not in given)])
    (problem,) = job_problems(parse_yaml(text, "j.yaml"))
    assert (problem.path, problem.message) == (path, message)
    assert hint is None or problem.hint == hint
    assert problem.position == Position("j.yaml", line, column)


def test_a_problem_reads_as_one_line():
    document = parse_yaml('version: 1\nmatrix: {a: [1]}\nrequest:\n  prompt: x\n  n: "3"\n', "jobs/x.yaml")
    (problem,) = job_problems(document)
    hint = "the API refuses a quoted number: write 3"
    assert str(problem) == f'jobs/x.yaml:5:6: request.n: must be an integer from 1 to 15, got "3" ({hint})'


@pytest.mark.parametrize(("text", "got"), [("[1]", "a list"), ("null", "nothing"), ("job", '"job"')])
def test_a_file_that_holds_no_mapping(text, got):
    (problem,) = job_problems(parse_yaml(text, "j.yaml"))
    assert str(problem) == f"j.yaml:1:1: must be a mapping, got {got} (required: version, matrix and request)"


def test_an_empty_mapping_lacks_what_is_required():
    problems = job_problems(Document("j.yaml", {}, Mark(1, 1)))
    assert [problem.path for problem in problems] == ["version", "matrix", "request"]
    assert {problem.message for problem in problems} == {"is required"}
    assert [problem.hint for problem in problems] == [
        "for example `version: 1`",
        "for example `matrix: {subject: [a panda, a fox], size: [1:1, 16:9]}`",
        'for example `request: {prompt: "{{ subject }}, watercolour", watermark: false}`',
    ]


def test_all_problems_are_told_at_once_in_file_order():
    document = parse_yaml(
        """\
run: {max_in_fligt: 3, rate: fast}
version: 3
matrix:
  size: [1:1, 5:4]
  n: ["2"]
  subject: panda
repeat: 0
request:
  watermark: yes
  n: 1.5
extra: true
""",
        "j.yaml",
    )
    problems = job_problems(document)
    assert [(problem.position.line, problem.path) for problem in problems] == [
        (1, "run.max_in_fligt"),
        (1, "run.rate"),
        (2, "version"),
        (4, "matrix.size[1]"),
        (5, "matrix.n[0]"),
        (6, "matrix.subject"),
        (7, "repeat"),
        (9, "request.prompt"),
        (9, "request.watermark"),
        (10, "request.n"),
        (11, "extra"),
    ]


def test_long_and_hostile_values_are_shown_short_and_safe():
    document = parse_yaml(
        'version: 1\nmatrix: {a: [1]}\nrequest: {prompt: x, size: "\\e[2J\\u202e' + "y" * 1000 + '"}\n', "j.yaml"
    )
    (problem,) = job_problems(document)
    assert problem.message.endswith('got "\\u001b[2J\\u202e' + "y" * 52 + '..."')
    assert str(problem).isprintable()

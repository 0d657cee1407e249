"""What the cells make of the request: fields from axes and templates, files, references, variables."""

from __future__ import annotations

import base64
import json
import unicodedata

import pytest

from seedream_batch.jobfile import load_job

RATIOS = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9", "9:21"]


def bodies(specs):
    return [json.loads(spec.body) for spec in specs]


def prompts(specs):
    return [body["prompt"] for body in bodies(specs)]


AXIS_FILES = [
    ("s.csv", "id,text\npanda,a panda\nfox,a fox\n", "{{ subject.id }}: {{ subject.text }}"),
    ("s.tsv", "id\ttext\npanda\ta panda\nfox\ta fox\n", "{{ subject.id }}: {{ subject.text }}"),
    ("s.txt", "panda: a panda\n\nfox: a fox\n", "{{ subject }}"),
    ("s.json", '["panda: a panda", "fox: a fox"]', "{{ subject }}"),
    ("s.jsonl", '{"id": "panda"}\n{"id": "fox"}\n', "{{ subject.id }}: a {{ subject.id }}"),
    ("deep/s.yaml", "- {id: panda, text: a panda}\n- {id: fox, text: a fox}\n", "{{ subject.id }}: {{ subject.text }}"),
]


@pytest.mark.parametrize(("name", "text", "prompt"), AXIS_FILES)
def test_an_axis_from_a_file(tasks, name, text, prompt):
    job = {"version": 1, "matrix": {"subject": {"file": name}}, "request": {"prompt": prompt}}
    assert prompts(tasks(job, {name: text})) == ["panda: a panda", "fox: a fox"]


@pytest.mark.parametrize("resolution", ["2K", "4K"])
def test_every_ratio_survives_unquoted(tasks, resolution):
    specs = tasks(f"""
version: 1
matrix:
  size: [{", ".join(RATIOS)}]
  resolution:
    - {resolution}
request: {{prompt: a panda}}
output: {{path: "{{{{ size }}}} at {{{{ resolution }}}}"}}
""")
    assert [(body["size"], body["resolution"]) for body in bodies(specs)] == [(ratio, resolution) for ratio in RATIOS]
    assert [(spec.size, spec.resolution) for spec in specs] == [(ratio, resolution) for ratio in RATIOS]
    assert [spec.paths for spec in specs] == [(f"{ratio.replace(':', '-')} at {resolution}",) for ratio in RATIOS]


def test_ratios_in_blocks_and_in_the_request_survive_unquoted(tasks):
    blocks = "\n".join(f"    - {ratio}" for ratio in RATIOS)
    specs = tasks(f"version: 1\nmatrix:\n  size:\n{blocks}\nrequest:\n  prompt: a panda\n")
    assert [body["size"] for body in bodies(specs)] == RATIOS
    for ratio in RATIOS:
        (spec,) = tasks(f"version: 1\nmatrix: {{a: [x]}}\nrequest:\n  prompt: a panda\n  size: {ratio}\n")
        assert json.loads(spec.body)["size"] == ratio


FIELDS = [
    ("size", "txt", "16:9\n", "16:9"),
    ("size", "csv", "size\n16:9\n", "16:9"),
    ("resolution", "csv", "resolution\n 4K \n", "4K"),
    ("n", "txt", "2\n", 2),
    ("n", "csv", "n\n2\n", 2),
    ("n", "tsv", "n\n2\n", 2),
    ("n", "json", "[2]", 2),
    ("n", "jsonl", "2.0\n", 2),
    ("watermark", "csv", "watermark\ntrue\n", True),
    ("watermark", "txt", "False\n", False),
    ("watermark", "yaml", "- true\n", True),
    ("model", "txt", "doubao-seedream-4-5", "doubao-seedream-4-5"),
]


@pytest.mark.parametrize(("field", "form", "text", "value"), FIELDS)
def test_an_axis_named_like_a_field_fills_it_in(tasks, field, form, text, value):
    job = {
        "version": 1,
        "matrix": {field: {"file": f"axis.{form}"}},
        "request": {"prompt": "a panda", "image_urls": ["https://example.com/a.png"]},
    }
    (spec,) = tasks(job, {f"axis.{form}": text})
    given = json.loads(spec.body)[field]
    assert given == value
    assert type(given) is type(value)


def test_the_request_wins_over_the_axis_of_the_same_name(tasks):
    job = {"version": 1, "matrix": {"size": ["16:9", "9:16"]}, "request": {"prompt": "{{ size }}", "size": "1:1"}}
    assert [(body["prompt"], body["size"]) for body in bodies(tasks(job))] == [("16:9", "1:1"), ("9:16", "1:1")]


def test_an_axis_of_lists_fills_in_the_references(tasks):
    urls = [["https://example.com/a.png"], ["https://example.com/b.png", "https://example.com/c.png"]]
    job = {"version": 1, "matrix": {"image_urls": urls}, "request": {"prompt": "a panda", "n": 3}}
    assert [body["image_urls"] for body in bodies(tasks(job))] == urls


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("n", "2\nmany\n", "axis.txt:2:1: matrix.n: must give an integer, gave 'many'"),
        ("n", "2\n16\n", "axis.txt:2:1: matrix.n: must be an integer from 1 to 15, got 16"),
        ("watermark", "true\nyes\n", "axis.txt:2:1: matrix.watermark: must give true or false, gave 'yes'"),
        ("resolution", "2K\n\n1K\n", "axis.txt:3:1: matrix.resolution: must be one of 2K, 4K, got 1K"),
    ],
)
def test_what_an_axis_file_has_wrong_is_told_where_it_stands(told, field, text, why):
    job = {
        "version": 1,
        "matrix": {field: {"file": "axis.txt"}},
        "request": {"prompt": "a panda", "image_urls": ["https://example.com/a.png"]},
    }
    (problem,) = told(job, {"axis.txt": text})
    assert problem.startswith(why)


def test_a_quoted_number_is_refused_and_a_template_is_not(told, tasks):
    job = """
version: 1
vars: {count: 3}
matrix: {subject: [panda]}
request: {prompt: "{{ subject }}", image_urls: ["https://example.com/a.png"], n: %s}
"""
    (problem,) = told(job % '"3"')
    assert problem == (
        'job.yaml:5:82: request.n: must be an integer from 1 to 15, got "3" (the API refuses a quoted number: write 3)'
    )
    (body,) = bodies(tasks(job % '"{{ count }}"'))
    assert body["n"] == 3
    (problem,) = told(job % '"{{ subject }}"')
    assert problem == "job.yaml:5:82: request.n: must give an integer, gave 'panda' [cell subject=panda]"


@pytest.mark.parametrize(("text", "value"), [("{{ true }}", True), ("{{ 1 > 2 }}", False), (" {{ 'false' }} ", False)])
def test_a_template_in_a_boolean_field(tasks, text, value):
    job = {"version": 1, "matrix": {"a": ["x"]}, "request": {"prompt": "{{ a }}", "watermark": text}}
    assert bodies(tasks(job))[0]["watermark"] is value


def test_templates_in_nested_fields(tasks):
    job = {
        "version": 1,
        "matrix": {"k": [2, 3]},
        "request": {
            "prompt": "a panda",
            "image_urls": ["https://example.com/{{ k }}.png"],
            "sequential_image_generation": "{{ 'auto' }}",
            "sequential_image_generation_options": {"max_images": "{{ k }}"},
            "optimize_prompt_options": {"mode": "{% if k == 2 %}fast{% else %}standard{% endif %}"},
        },
    }
    assert [
        (body["image_urls"], body["sequential_image_generation_options"], body["optimize_prompt_options"])
        for body in bodies(tasks(job))
    ] == [
        (["https://example.com/2.png"], {"max_images": 2}, {"mode": "fast"}),
        (["https://example.com/3.png"], {"max_images": 3}, {"mode": "standard"}),
    ]
    assert [spec.images for spec in tasks(job)] == [2, 3]


def test_how_many_images_are_asked_for(tasks):
    def images(**fields):
        request = {"prompt": "a", "image_urls": ["https://example.com/a.png"] * 4, **fields}
        return tasks({"version": 1, "matrix": {"a": ["x"]}, "request": request})[0].images

    assert images() == 1
    assert images(n=3) == 3
    assert images(sequential_image_generation="auto") == 11
    assert images(sequential_image_generation="auto", n=3) == 3
    assert images(sequential_image_generation="auto", sequential_image_generation_options={"max_images": 5}) == 5
    assert images(sequential_image_generation="disabled") == 1


def test_variables_and_the_number_of_the_sample(tasks):
    job = {
        "version": 1,
        "vars": {"style": "ink", "camera": {"lens": [35, 50]}},
        "matrix": {"subject": ["a fox"]},
        "repeat": 2,
        "request": {"prompt": "{{ subject }}, {{ style }}, {{ camera.lens[1] }} mm, take {{ sample }}"},
    }
    assert prompts(tasks(job)) == ["a fox, ink, 50 mm, take 1", "a fox, ink, 50 mm, take 2"]


def test_the_prompt_from_a_file_with_an_include(tasks, told):
    job = {"version": 1, "matrix": {"subject": ["a fox", "a cat"]}, "request": {"prompt": {"file": "prompts/hero.j2"}}}
    files = {
        "prompts/hero.j2": "\ufeff{% include 'parts/style.j2' %} of {{ subject }}\n\n",
        "parts/style.j2": "ink{% if subject == 'a fox' %} and chalk{% endif %}",
    }
    assert prompts(tasks(job, files)) == ["ink and chalk of a fox", "ink of a cat"]
    assert told(job, {**files, "prompts/hero.j2": "one\ntwo {{ subjet }}"}) == [
        "job.yaml:1:81: request.prompt: `subjet` is not defined (did you mean `subject`?)"
    ]
    assert told(job, {**files, "prompts/hero.j2": "one\n{% if %}"})[0].startswith(
        "job.yaml:1:81: request.prompt: line 2 of the template: "
    )
    (problem,) = told(job, {**files, "prompts/hero.j2": b"\xff\xfe"})
    assert problem == "prompts/hero.j2:1:1: the file is UTF-16, not UTF-8 (save it as UTF-8)"
    (problem,) = told(job, {**files, "prompts/hero.j2": " \n"})
    assert "request.prompt: must be non-empty text" in problem
    (problem,) = told(job, {})
    assert problem.startswith("job.yaml:1:90: request.prompt.file: file prompts/hero.j2 not found in ")


OUTSIDE = ["../secret.txt", "/etc/hostname", "a/../../secret.txt", "link.txt", "folder/secret.txt"]


@pytest.fixture
def beside_a_secret(job_file):
    def write(job):
        file = job_file(job)
        outside = file.parent.parent / f"outside-{file.parent.name}"
        outside.mkdir()
        (outside / "secret.txt").write_text("secret\n")
        (file.parent.parent / "secret.txt").write_text("secret\n")
        (file.parent / "link.txt").symlink_to(outside / "secret.txt")
        (file.parent / "folder").symlink_to(outside)
        return file

    return write


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "job",
    [
        {"matrix": {"subject": {"file": "NAME"}}, "request": {"prompt": "{{ subject }}"}},
        {"matrix": {"subject": ["a"]}, "request": {"prompt": {"file": "NAME"}}},
        {"matrix": {"subject": ["a"]}, "request": {"prompt": "{% include 'NAME' %}"}},
        {"matrix": {"subject": ["a"]}, "request": {"prompt": "a", "image_urls": ["NAME"]}},
        {"matrix": {"subject": ["NAME"]}, "request": {"prompt": "a", "image_urls": ["{{ subject }}"]}},
    ],
)
def test_nothing_outside_of_the_folder_is_read(beside_a_secret, name, job):
    file = beside_a_secret({"version": 1, **json.loads(json.dumps(job).replace("NAME", name))})
    with pytest.raises(Exception, match=r"outside the job file's folder .*; copy it into that folder") as caught:
        load_job(file).check()
    assert type(caught.value).__name__ == "InvalidJob"
    assert len(caught.value.problems) == 1
    assert "secret\n" not in str(caught.value)


def test_links_within_the_folder_are_followed(job_file):
    file = job_file(
        {"version": 1, "matrix": {"s": {"file": "link.txt"}}, "request": {"prompt": "{{ s }}"}}, {"a.txt": "x\n"}
    )
    (file.parent / "link.txt").symlink_to("a.txt")
    assert load_job(file).check() == 1


def test_local_references_stand_by_the_hash_of_their_bytes(tasks, job_file, picture):
    data = picture(40, 30)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    job = {
        "version": 1,
        "matrix": {"ref": ["refs/a.png", "https://example.com/a.png", uri]},
        "request": {"prompt": "{{ ref[:5] }}", "image_urls": ["{{ ref }}", "refs/a.png"]},
    }
    specs = tasks(job, {"refs/a.png": data})
    first, second, third = (body["image_urls"] for body in bodies(specs))
    assert first == third == [second[1]] * 2
    assert second[0] == "https://example.com/a.png"
    loaded = load_job(job_file(job, {"refs/a.png": data}))
    loaded.check()
    ((sha256, reference),) = loaded.references.items()
    assert first[0] == f"sha256:{sha256}"
    assert (reference.media_type, reference.bytes, reference.width, reference.height) == (
        "image/png",
        len(data),
        40,
        30,
    )


BAD_REFERENCES = [
    ("missing.png", "file missing.png not found in"),
    ("", "the path is empty"),
    (".", ". is a folder"),
    ("text.png", "text.png is not a JPEG or PNG image"),
    ("empty.png", "empty.png is empty"),
    ("cut.jpg", "cut.jpg is damaged"),
    ("wide.png", "wide.png is 61 x 20, a ratio of 3.05; it must be from 1:3 to 3:1"),
    ("tall.png", "tall.png is 20 x 61, a ratio of 0.33; it must be from 1:3 to 3:1"),
    ("small.png", "small.png is 14 x 20; both sides must have more than 14 pixels"),
    ("a\0b", "is not a valid path"),
    ("x" * 300, ": File name too long"),
    ("ftp://example.com/a.png", "ftp: addresses are not supported"),
    ("S3://bucket/a.png", "s3: addresses are not supported"),
    ("file:///srv/a.png", "file: addresses are not supported"),
    ("FILE:/srv/a.png", "file: addresses are not supported"),
    ("//example.com/a.png", "has no scheme; write https://example.com/a.png"),
    ("https:/example.com/a.png", "expected https://"),
    ("~/a.png", "~/a.png contains `~`, which is not expanded"),
    ("$HOME/a.png", "$HOME/a.png contains a variable"),
    ("photos/${YEAR}.png", "contains a variable"),
    ("data:image/gif;base64,R0lGODlh", "'data:image/gif;base64' is not a data URI of an image"),
    ("data:image/png;base64,a b", "the data URI is not valid base64"),
    ("data:image/png;base64,aGVsbG8=", "the data URI is not a JPEG or PNG image"),
]


@pytest.mark.parametrize(("name", "why"), BAD_REFERENCES)
def test_bad_references(told, picture, name, why):
    files = {
        "text.png": "hello",
        "empty.png": b"",
        "cut.jpg": picture(300, 300, form="JPEG")[:-100],
        "wide.png": picture(61, 20),
        "tall.png": picture(20, 61),
        "small.png": picture(14, 20),
    }
    job = {
        "version": 1,
        "matrix": {"subject": ["panda", "fox"]},
        "vars": {"name": name},
        "request": {"prompt": "{{ subject }}", "image_urls": ["{{ name }}"]},
    }
    (problem,) = told(job, files)
    assert "request.image_urls[0]: " in problem
    assert why in problem
    assert problem.endswith("[cell subject=panda, and 1 more cell]")


@pytest.mark.parametrize(
    "url", ["HTTPS://example.com/A.png", "Http://example.com/A.png", " https://example.com/A.png "]
)
def test_the_scheme_of_a_url_may_be_in_any_letters(tasks, url):
    job = {"version": 1, "matrix": {"n": [1]}, "request": {"prompt": "a fox", "image_urls": [url]}}
    (task,) = tasks(job)
    scheme, _, rest = url.strip().partition(":")
    assert json.loads(task.body)["image_urls"] == [f"{scheme.lower()}:{rest}"]


@pytest.mark.parametrize("there", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_file_is_found_by_its_name_in_either_unicode_form(tasks, picture, there, asked):
    name = "été/café"
    files = {
        unicodedata.normalize(there, f"{name}.png"): picture(),
        unicodedata.normalize(there, f"{name}.txt"): "a fox\n",
        unicodedata.normalize(there, f"{name}.j2"): "{{ subject }}",
    }
    asked = unicodedata.normalize(asked, name)
    job = {
        "version": 1,
        "matrix": {"subject": {"file": f"{asked}.txt"}},
        "request": {"prompt": {"file": f"{asked}.j2"}, "image_urls": [f"{asked}.png"]},
    }
    (task,) = tasks(job, files)
    assert json.loads(task.body)["prompt"] == "a fox"


def test_the_smallest_and_the_most_stretched_references(tasks, picture):
    files = {"a.png": picture(15, 45), "b.jpg": picture(45, 15, form="JPEG")}
    job = {"version": 1, "matrix": {"a": ["x"]}, "request": {"prompt": "a", "image_urls": ["a.png", "b.jpg"]}}
    assert len(tasks(job, files)) == 1


def test_a_refused_reference_is_looked_at_once(told):
    job = {
        "version": 1,
        "matrix": {"a": [f"v{index}" for index in range(3000)]},
        "request": {"prompt": "{{ a }}", "image_urls": ["missing.png"]},
    }
    (problem,) = told(job)
    assert problem.endswith("[cell a=v0, and 2,999 more cells]")


@pytest.mark.parametrize("markup", ["{{ subject }}", "{{char}}", "{% if night %}at night{% endif %}", "{# draft #}"])
def test_a_value_that_looks_like_a_template_is_not_bought_as_it_stands(told, markup):
    job = {
        "version": 1,
        "vars": {"style": {"night": f"like {markup}"}},
        "matrix": {"subject": ["a panda"]},
        "request": {"prompt": "{{ subject }}, {{ style.night }}"},
    }
    (problem,) = told(job)
    assert "request.prompt: the value of `style` contains a template, but values are not rendered" in problem
    assert "{% raw %}{{ ... }}{% endraw %}" in problem


@pytest.mark.parametrize(
    "written",
    ["{% raw %}{{ user }}{% endraw %}", "{{ '{{ user }}' }}", '{{ "{{" }} user }}', "{% include 'screen.j2' %}"],
)
def test_a_prompt_may_have_braces_that_it_writes_as_text(tasks, written):
    job = {
        "version": 1,
        "vars": {"unused": "{{ a template that no prompt reads }}"},
        "matrix": {"subject": ["a fox", "a hare {in braces}"]},
        "request": {"prompt": "{{ subject }} at a screen that shows " + written},
    }
    found = tasks(job, {"screen.j2": "{% raw %}{{ user }}{% endraw %}"})
    assert prompts(found)[0] == "a fox at a screen that shows {{ user }}"

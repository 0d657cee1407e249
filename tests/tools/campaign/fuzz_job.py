"""Job files, fuzzed: loading, checking and expanding them."""

from __future__ import annotations

import json
import re
import zlib
from functools import partial

from fuzz_claims import CORPUS, claim, is_clean

PART = b"\n%%% "
"""What separates the job file from the files beside it; the name of the file follows, then its text."""

JOB_FILES = {
    "s.csv": b"id,text\na,one\nb,two\n",
    "s.tsv": b"id\ttext\na\tone\n",
    "s.txt": b"1:1\n16:9\n",
    "s.jsonl": b'{"id": "a"}\n{"id": 2}\n',
    "s.json": b'["a", {"id": "b"}]',
    "s.yaml": b"- a\n- {id: b}\n",
    "p.j2": b"{{ s }} {% include 's.txt' %}\n",
}
MOST_TASKS = 200


class JobTarget:
    """Job files on a disk: loading, checking and expanding them."""

    def __init__(self, folder):
        from PIL import Image

        from seedream_batch.errors import InvalidJob, SeedreamBatchError
        from seedream_batch.expand.fingerprint import fingerprint
        from seedream_batch.expand.output_path import collision_key
        from seedream_batch.jobfile import load as loading
        from seedream_batch.model.task import image_path
        from seedream_batch.templates.engine import TemplateEngine
        from seedream_batch.validate.request_schema import RequestSchema

        # What a template may do is a bound of its own, for another target; here hundreds of them are rendered.
        self._engine = loading.TemplateEngine = partial(TemplateEngine, max_output=4_000, max_steps=4_000)
        self._load_job = loading.load_job
        self._expected = SeedreamBatchError
        self._invalid = InvalidJob
        self._fingerprint = fingerprint
        self._collision_key = collision_key
        self._image_path = image_path
        self._schema = RequestSchema()
        self._folder = folder
        self._file = folder / "job.yaml"
        self._beside = {}
        Image.new("RGB", (20, 20), "red").save(folder / "a.png")

    def __call__(self, data):
        text, *parts = data.split(PART)
        self._write(text, parts)
        found, tasks = self._load()
        if isinstance(found, self._invalid):
            self._check_problems(found.problems, text)
        elif isinstance(found, self._expected):
            claim(str(found), "an error has a text")
        else:
            self._check_job(found, tasks)
            if zlib.crc32(data) % 4 == 0:
                self._check_prompts(found.job, tasks)
        if zlib.crc32(data) % 8 == 0:
            again, same = self._load()
            claim(str(again) == str(found) or not isinstance(found, self._invalid), "a second load tells the same")
            claim(same == tasks, "a second load gives the same tasks")

    def _write(self, text, parts):
        wanted = dict(JOB_FILES)
        for part in parts:
            name, _, content = part.partition(b"\n")
            if name.decode("latin-1") in wanted:
                wanted[name.decode("latin-1")] = content
        for name, content in wanted.items():
            if self._beside.get(name) != content:
                (self._folder / name).write_bytes(content)
                self._beside[name] = content
        self._file.write_bytes(text)

    def _load(self):
        try:
            job = self._load_job(self._file, max_tasks=MOST_TASKS)
            return job, list(job.tasks())
        except self._expected as error:
            return error, []

    def _check_problems(self, problems, text):
        claim(problems, "an invalid job has problems")
        lines = 2 + sum(text.count(one) for one in (b"\n", b"\r", b"\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9"))
        for problem in problems:
            claim(problem.message.strip(), "a problem has a text")
            claim(problem.position, "a problem has a position", problem.message)
            place = problem.position
            claim(place.line >= 1 and place.column >= 1, "a position counts from 1", str(problem))
            claim(place.file != str(self._file) or place.line <= lines, "a position is in the file", str(problem))
            claim(is_clean(str(problem)), "a problem has no control characters", str(problem))
            claim(len(str(problem)) < 5000, "a problem is short", str(problem))
        claim(len({str(one) for one in problems}) == len(problems), "each problem is told once")

    def _check_job(self, job, tasks):
        claim(list(job.tasks()) == tasks, "an expansion is repeatable")
        claim(len(tasks) <= MOST_TASKS, "there are no more tasks than allowed")
        claim(len({task.fingerprint for task in tasks}) == len(tasks), "no request is made twice")
        paths = [
            self._collision_key(self._image_path(task.paths, task.images, index, task.fingerprint))
            for task in tasks
            for index in range(1, task.images + 1)
        ]
        claim(len(set(paths)) == len(paths), "no two images have one path")
        for task in tasks:
            self._check_task(task)

    def _check_task(self, task):
        body = json.loads(task.body)
        again = self._fingerprint(body, task.sample, self._schema.defaults)
        claim(again == task.fingerprint, "a fingerprint is of the request", task.body)
        if "image_urls" in body:
            body["image_urls"] = [re.sub("^sha256:", "https://a.b/", url) for url in body["image_urls"]]
        claim(not self._schema.problems(body), "a request is valid", task.body)
        claim(isinstance(json.loads(task.cell), dict), "a cell is a mapping")
        claim(1 <= task.images <= 15, "a task has 1 to 15 images", task.images)
        claim(type(task.price) is int and task.price >= 0, "a price is an amount", task.price)
        for path in task.paths:
            names = path.split("/")
            claim(not any(name[:1] in {"", "."} for name in names), "a path stays inside", path)
            claim(is_clean(path), "a path is clean", path)

    def _check_prompts(self, job, tasks):
        """Renders each prompt without what the expansion remembers."""
        if "prompt" not in job.request:
            return
        engine = self._engine(lambda name: (self._folder / name).read_text("utf-8-sig"))
        template = engine.compile(job.request["prompt"])
        for task in tasks:
            context = {**job.vars, **json.loads(task.cell), "sample": task.sample}
            prompt = template.render(context).strip()
            claim(json.loads(task.body)["prompt"] == prompt, "a prompt is the template of its cell", task.body)


def job_seeds():
    for file in sorted((CORPUS / "job").iterdir()):
        yield file.read_bytes()
    yield b"version: 1\nmatrix: {a: [%s]}\n" % (b"[" * 150 + b"]" * 150)
    yield b"version: 1\nmatrix: {a: [%s]}\n" % (b"1" * 200)
    yield bombed("x", 3, 3)


def heavy_jobs():
    yield b"version: 1\nmatrix: {a: [%s]}\nrequest: {prompt: '{{ a }}'}\n" % (b"[" * 99 + b"]" * 99)
    yield b"version: 1\nmatrix: {a: [%s]}\nrequest: {prompt: '{{ a }}'}\n" % (b"[" * 10**5)
    yield b"version: 1\nmatrix: {a: [%s]}\nrequest: {prompt: '{{ a }}'}\n" % (b"1" * 10**5)
    yield bombed("1", 10, 5)
    yield bombed("1", 10, 9)
    yield bombed("a" * 50_000, 10, 6)
    yield bombed("{k: v}", 16, 4).replace(b"version: 1", b"version: 1\nrepeat: 20")
    many = ", ".join(["*z4"] * 20)
    yield bombed("1", 10, 4).replace(b"[*z4]", f"[{many}], b: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]".encode())
    yield b"version: 1\nmatrix: {a: [x]}\nrequest: {prompt: 'a', image_urls: [data:image/png;base64,%s]}\n" % (
        b"A" * 10**6
    )
    name = b"n" * 10**5
    yield b"version: 1\n%s: 1\n%s: 1\nmatrix: {%s: [1]}\nvars: {*%s : 1}\n" % ((name,) * 4)
    yield b"version: 1\nmatrix: {a: [x]}\nexclude: [{%s: 1}]\nrequest: {prompt: '{{ %s }}', %s: 1}\n" % ((name,) * 3)
    yield (
        b"version: 1\nmatrix: {a: {file: %s}, s: {file: s.csv}}\nrequest: {}" % name
        + PART
        + b"s.csv\n%s,%s\n" % ((name,) * 2)
    )


def bombed(base, width, levels):
    """A job with a value that is small in the file, and `base` written `width ** levels` times where it is used."""
    lines = [f"  z{n}: &z{n} [{', '.join([f'*z{n - 1}'] * width)}]\n" for n in range(1, levels + 1)]
    return (
        f"version: 1\nvars:\n  z0: &z0 {base}\n{''.join(lines)}matrix: {{a: [*z{levels}]}}\n"
        "request: {prompt: '{{ a | length }} {{ sample }}'}\n"
    ).encode()


JOB_WORDS = """
    version: name: vars: matrix: exclude: include: repeat: request: references: output: budget: run: prompt: size:
    resolution: image_urls: n: model: watermark: sequential_image_generation: optimize_prompt_options: max_images:
    send: dir: path: max_cost_usd: price_per_image_usd: max_in_flight: rate: attempts: task_timeout: on_unknown: file:
    mode: id: text: s.csv s.tsv s.txt s.jsonl s.json s.yaml p.j2 a.png 1:1 16:9 21:9 2K 4K auto disabled upload inline
    hold resend standard fast 5/s 30m true false null ~ .nan .inf 1e999 0x1F 0o17 - ? | > & * &a *a <<: !!int !!str
    !!float !!bool !!null !!map !!seq ! --- ... %YAML # [ ] { } ' " {{ }} {% %} {{s}} {{s.id}} {{sample}} {{index}}
    {{size}} {{request.size}} '{{a}}' data:image/png;base64, https://a.b/ sha256: ../ / .. \\0 \\x1b \\ud800 \\u2028
    \\N \\n é 🐼 1.0 -1 0 1 15 16 300 \x1b \x85 \t \r
"""

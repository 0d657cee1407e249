"""Fuzzing, guided by coverage, of all that reads what others wrote: job files, templates, answers, pictures.

    pip install -r tests/campaign/fuzz_requirements.txt
    python tests/campaign/fuzz.py response --executions 1000000

Each target is a function of bytes. It may raise nothing but the documented errors, has to keep what it promises
(`Broken` says what it did not), and has bounds on the processor time and the memory that one input may take. It runs in
a process of its own, so that a crash, a hang or a lack of memory is only one more failure. Inputs that fail are kept,
one for each distinct failure; `--reproduce FILE` runs one of them again.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import hashlib
import io
import itertools
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).with_name("corpus")
MEGABYTE = 1024 * 1024
HANG = 60
"""Seconds after which an input counts as a hang: C code does not let go of the processor to be measured."""
MOST_MEMORY = 6 * 1024 * MEGABYTE
NOW = 1_800_000_000.0


class Target(NamedTuple):
    """What is fuzzed: `prepare` imports it and gives the function; then the bounds for one input.

    What is heavy is run once, before anything else; what the fuzzer makes of a seed again and again has to be quick.
    """

    prepare: Callable[[Path], Callable[[bytes], None]]
    seeds: Callable[[], Iterator[bytes]]
    heavy: Callable[[], Iterator[bytes]]
    words: tuple[str, ...]
    instrumented: tuple[str, ...]
    longest: int
    seconds: float
    megabytes: int


class Broken(Exception):
    """A promise that was not kept."""


def claim(holds, promise, *shown):
    if not holds:
        raise Broken(promise, *shown)


def is_clean(text):
    """Whether a text is safe to print and to store: no controls, no line breaks, no halves of characters."""
    if text.isprintable():
        return True
    return not any(unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"} for one in text)


# job files

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
        from seedream_batch.expand.identity import fingerprint
        from seedream_batch.expand.paths import collision_key
        from seedream_batch.expand.templates import TemplateEngine
        from seedream_batch.load import job as loading
        from seedream_batch.model.task import image_path
        from seedream_batch.validate import RequestSchema

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


# templates

CONTEXT = {
    "x": "X",
    "n": 3,
    "z": 0,
    "f": 2.5,
    "big": 10**30,
    "yes": True,
    "nothing": None,
    "xs": ["b", "a", "C"],
    "ns": [3, 1, 2.0, True],
    "mixed": [1, "a", None, [2], {"k": 1}],
    "empty": [],
    "subject": {"id": "panda", "text": "a panda", "items": "I", "n": 1, "2": "two"},
    "people": [{"n": "z", "age": 3}, {"n": "y", "age": 1}],
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}]}],
    "words": "the quick\nbrown  fox\u00df\u0130 \U0001f43c",
    "pattern": "%(a)s %5.2f %d %%",
}
INCLUDES = {"a": "A{{ x }}", "self": "{% include 'self' %}", "broken": "{% if %}", "line": "{{ i }}\n{{ nope }}"}
NAMES = (*CONTEXT, "i", "loop", "ns0", "nope", "varargs", "kwargs", "caller", "f0", "sample")
LITERALS = (
    *("0", "1", "2", "-1", "7", "100", "2000", "200000000", "10 ** 9", "1.5", "1e308", "0x7f", "1_000", "true"),
    *("none", "''", "'a'", "'%s'", "'%0200000000d'", "'%(a)s'", "'a b,c'", "'\\n'", "'é'", "[]", "{}", "()"),
    *("range(3)", "range(9999)", "range(5, 0, -1)", "dict(a=1)", "namespace(a=1)", "'a' * 200000000"),
)
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in")
FILTERS = """
    abs batch capitalize center count d default dictsort first float format groupby indent int items join last length
    list lower map max min reject rejectattr replace reverse round select selectattr slice sort string sum title trim
    truncate unique upper wordcount random safe
""".split()  # noqa: SIM905 - one can read them so
TESTS = """
    eq ne lt le gt ge in boolean defined divisibleby even false float integer iterable lower mapping none number odd
    sequence string true undefined upper
""".split()  # noqa: SIM905 - one can read them so
METHODS = """
    capitalize casefold center count endswith find get index isalpha isdigit items join keys ljust lower lstrip
    partition removeprefix replace rfind rjust rpartition rsplit rstrip split splitlines startswith strip swapcase
    title upper values zfill format __class__ append
""".split()  # noqa: SIM905 - one can read them so
FIELDS = ("id", "text", "n", "v", "c", "age", "items", "index", "length", "last", "cycle", "grouper", "list", "a", "0")
KEYWORDS = (
    *("attribute", "default", "reverse", "case_sensitive", "by", "width", "first", "blank", "length", "killwords"),
    *("end", "leeway", "precision", "method", "start", "fill_with", "base", "boolean", "chars", "count", "a", "b"),
)


class Writer:
    """Templates written by choices that the fuzzer makes."""

    def __init__(self, choices):
        self._choices = choices

    def _one(self, options):
        return options[self._choices.ConsumeIntInRange(0, len(options) - 1)]

    def _below(self, most):
        return self._choices.ConsumeIntInRange(0, most - 1)

    def template(self):
        return "".join(self._statement(2) for _ in range(1 + self._below(2)))

    def _statement(self, depth):
        choice = self._below(14 if depth else 4)
        if choice < 3:
            return f"{{{{ {self._expression(3)} }}}}"
        if choice == 3:
            return self._choices.ConsumeUnicodeNoSurrogates(self._below(8)) + self._one(
                ("", "\n", " ", "{", "%}", "\t")
            )
        body = self._statement(depth - 1)
        match choice:
            case 4 | 5:
                test = f" if {self._expression(2)}" if self._below(4) == 0 else ""
                recursive = " recursive" if self._below(4) == 0 else ""
                over = self._expression(3)
                return f"{{% for i in {over}{test}{recursive} %}}{body}{{% else %}}{self._one(NAMES)}{{% endfor %}}"
            case 6:
                return f"{{% if {self._expression(3)} %}}{body}{{% else %}}{self._statement(depth - 1)}{{% endif %}}"
            case 7:
                return f"{{% set {self._one(NAMES)} = {self._expression(3)} %}}{body}"
            case 8:
                return f"{{% set {self._one(NAMES)} %}}{body}{{% endset %}}{{{{ {self._one(NAMES)} }}}}"
            case 9:
                call = self._arguments(2)
                return f"{{% macro f0(a, b={self._expression(1)}) %}}{body}{{% endmacro %}}{{{{ f0({call}) }}}}"
            case 10:
                return f"{{% call(q) f0({self._arguments(1)}) %}}{body}{{% endcall %}}"
            case 11:
                return f"{{% filter {self._one(FILTERS)}({self._arguments(1)}) %}}{body}{{% endfilter %}}"
            case 12:
                return f"{{% include {self._one((*map(repr, INCLUDES), self._expression(1)))} %}}{body}"
            case _:
                return f"{{% with i = {self._expression(2)} %}}{body}{{% endwith %}}{{% set ns0.a = ns0.a ~ i %}}"

    def _expression(self, depth):
        choice = self._below(16 if depth else 4)
        if choice < 2:
            return self._one(NAMES)
        if choice < 4:
            return self._one(LITERALS)
        inner = self._expression(depth - 1)
        match choice:
            case 4 | 5:
                return f"({inner} {self._one(OPERATORS)} {self._expression(depth - 1)})"
            case 6 | 7 | 8:
                return f"({inner} | {self._one(FILTERS)}({self._arguments(depth - 1)}))"
            case 9:
                return f"{inner}.{self._one(METHODS)}({self._arguments(depth - 1)})"
            case 10:
                return f"{inner}.{self._one(FIELDS)}"
            case 11:
                return f"{inner}[{self._expression(depth - 1)}]"
            case 12:
                step = self._one(("", ":-1", ":2", ":0"))
                return f"{inner}[{self._expression(depth - 1)}:{self._one(('', '1', '-2', '9' * 30))}{step}]"
            case 13:
                return f"({inner} is {self._one(('', 'not '))}{self._one(TESTS)}({self._arguments(depth - 1)}))"
            case 14:
                other = self._expression(depth - 1)
                return self._one((f"[{inner}, {other}]", f"({inner}, {other})", f"{{'a': {inner}, {other}: 1}}"))
            case _:
                return self._one((f"-{inner}", f"not {inner}", f"({inner} if {self._expression(depth - 1)})"))

    def _arguments(self, depth):
        names = [repr(one) for one in (*FILTERS, *TESTS, *FIELDS)]
        made = []
        for _ in range(self._below(4)):
            value = self._one(names) if self._below(3) == 0 else self._expression(max(0, depth))
            made.append(f"{self._one(KEYWORDS)}={value}" if self._below(4) == 0 else value)
        return ", ".join(made)


def prepare_template(_folder):
    import atheris

    from seedream_batch.expand.templates import TemplateEngine, TemplateError

    def include(name):
        if name == "locked":
            raise PermissionError(13, "Permission denied")
        try:
            return INCLUDES[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    untouched = copy.deepcopy(CONTEXT)
    kept = TemplateEngine(include, max_output=1_000, max_steps=1_000)

    def run(data):
        if data[:1] == b"#":  # a template as it is
            source = data[1:].decode("utf-8", "replace")
        else:
            source = Writer(atheris.FuzzedDataProvider(data[1:25])).template()
        engine = TemplateEngine(include) if is_generous(data) else kept
        try:
            template = engine.compile(source)
            text = template.render(CONTEXT)
        except TemplateError as error:
            claim(error.message.strip(), "an error has a text")
            claim(len(error.message + error.hint) < 3000, "an error is short", error.message)
            lines = 1 + len(re.findall(r"\r\n|\r|\n", source))
            claim(error.line is None or 1 <= error.line <= lines, "an error is on a line", error.line)
            return
        finally:
            claim(untouched == CONTEXT, "a template changes no values")
        claim(len(text) <= engine.max_output, "a text is no longer than allowed", len(text))
        text.encode()
        claim(template.render(CONTEXT) == text, "a template gives the same text again")
        if zlib.crc32(data) % 4 == 0 and "include" not in source:
            fresh = TemplateEngine(include, max_output=engine.max_output, max_steps=engine.max_steps).compile(source)
            told = {name: value for name, value in CONTEXT.items() if name in fresh.names}
            claim(fresh.render(told) == text, "a template reads only the names that it tells", source)

    return run


def template_seeds():
    for line in (CORPUS / "templates.txt").read_bytes().splitlines():
        yield b"#" + line
    chance = random.Random(0)
    for length in (8, 16, 24):
        yield from (b"!" + chance.randbytes(length) for _ in range(8))


def heavy_templates():
    """Each seed as often as it takes to meet the bounds that jobs have, too."""
    for seed in template_seeds():
        yield next(padded for n in itertools.count() if is_generous(padded := seed + b" " * n))


def is_generous(data):
    """Whether this input is rendered within the bounds that jobs have; most are within much tighter ones."""
    return zlib.crc32(data) % 500 == 0


TEMPLATE_WORDS = """
    {{ }} {% %} {# #} {{- -}} {%- -%} if elif else endif for in endfor recursive set endset macro endmacro call endcall
    filter endfilter include ignore missing with endwith raw endraw namespace( range( dict( loop. loop( .append( | ~ **
    // == != <= >= is not and or defined none true 'a' "b" \\ [::-1] [1:] varargs caller() self 0x 1e9 @tick
"""


# answers of the service


class ResponseTarget:
    """Answers of the service: to submissions, polls, uploads and questions for the balance."""

    def __init__(self, _folder):
        import httpx

        from seedream_batch.api import wire
        from seedream_batch.model.outcome import Polled, Submitted

        self._wire = wire
        self._headers = httpx.Headers
        self._submitted = Submitted
        self._polled = Polled
        self._checks = {b"s": self._submission, b"p": self._poll, b"b": self._balance, b"u": self._upload}

    def __call__(self, data):
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        digits = re.search(rb"[1-9][0-9]{2}", first)
        status = int(digits.group()) if digits else 200
        headers = self._headers([line.partition(b":")[::2] for line in lines])
        answer = self._wire.Answer(status, headers, body, whole=not first.endswith(b"~"))
        self._checks.get(first[:1], self._submission)(answer)

    def _submission(self, answer):
        found = self._wire.submission(answer, NOW)
        accepted, ids, good = found.kind is self._submitted.ACCEPTED, found.task_ids, 200 <= answer.status < 300
        claim(accepted == bool(ids), "accepted means that there is a task id", found)
        claim(accepted or not good or found.kind is self._submitted.UNKNOWN, "2xx is never taken for a no", found)
        claim(good or not accepted, "only 2xx is a yes", found)
        claim(len(set(ids)) == len(ids), "a task id is told once", ids)
        for one in ids:
            claim(one.isprintable() and one == one.strip() and 0 < len(one) <= 256, "a task id is usable", one)
        claim(accepted or not found.replayed, "a replay is accepted")
        self._told(found)
        claim(found == self._wire.submission(answer, NOW), "an answer means the same again")

    def _poll(self, answer):
        for task_id in (None, "task_1"):
            found = self._wire.poll(answer, NOW, task_id)
            completed = found.kind is self._polled.COMPLETED
            ended = completed or found.kind is self._polled.FAILED
            claim(not ended or 200 <= answer.status < 300, "only 2xx ends a task", found)
            claim(completed or not found.images, "only a completed task has images", found)
            claim(found.cost is None or self._is_amount(found.cost, 0), "a cost is an amount", found.cost)
            urls = [image.url for image in found.images]
            claim(len(set(urls)) == len(urls), "a picture is told once")
            for image in found.images:
                claim(self._is_link(image.url), "a link is a link", image.url)
                claim(image.expires_at is None or 1e9 < image.expires_at < 1e11, "a time is a time", image.expires_at)
            self._told(found, *found.notes)
            claim(found == self._wire.poll(answer, NOW, task_id), "an answer means the same again")

    def _balance(self, answer):
        document = self._wire.parse(answer)
        found = self._wire.balance(document)
        for amount in (found.remaining, found.used) if found else ():
            claim(amount is None or self._is_amount(amount, -(10**18)), "an amount is an amount", amount)
        claim(self._wire.fault_of(document, answer).message.isprintable(), "what the service says is one clean line")

    def _upload(self, answer):
        url = self._wire.upload_url(self._wire.parse(answer))
        claim(url is None or self._is_link(url), "a link is a link", url)

    def _told(self, found, *notes):
        for text in (found.message, found.code, *notes):
            claim(text.isprintable() and len(text) <= 700, "what the service says is one clean line", text)
        wait = found.retry_after
        claim(wait is None or 0 <= wait <= self._wire.LONGEST_WAIT, "a wait is bounded", wait)

    @staticmethod
    def _is_amount(amount, least):
        return type(amount) is int and least <= amount <= 10**18

    @staticmethod
    def _is_link(url):
        return bool(re.match(r"https?://", url)) and url.isprintable()


def response_seeds():
    yield from (CORPUS / "answers.txt").read_bytes().split(b"\n%%%\n")


def heavy_answers():
    yield b'p 200\n\n{"data":' + b"[" * 10**6
    yield b"s 200\n\n" + b'{"data":' * 10**5
    yield b's 200\n\n{"data": [{"task_id": ' + b"9" * 10**6 + b"}]}"
    yield b'p 200\n\n{"data": {"status": "failed", "error": "' + b"\\u001b" * 10**5 + b'"}}'
    yield b'p 200\n\n{"data": {"status": "completed", "result": {"images": [' + b"0," * 10**4 + b"0]}}}"
    yield b's 200\n\n{"data": [' + b",".join(b'{"id": %d}' % n for n in range(10**4)) + b"]}"
    yield b"p 429\nretry-after: " + b"9" * 10**5 + b"\n\n"


RESPONSE_WORDS = """
    s p b u 200 202 204 301 400 401 402 403 404 409 413 429 500 502 503 ~ retry-after: idempotency-replayed: true
    "data": "task_id": "id": "status": "submitted" "processing" "completed" "failed" "cancelled" "result": "images":
    "url": "https://a.b/c.png" "expires_at": "cost": "credits_cost": "error": "code": "type": "message": "success":
    "detail": "idempotency_in_progress" "idempotency_unavailable" "build_request_failed: "remain_balance":
    "used_balance": "unlimited_quota": null false NaN Infinity -Infinity 1e999 -0.0 -1 0.035 "0.035" "nan" 1e400
    "task_1" [] {} [ ] { } , : \\u0000 \\ud800 \\u2028 \\u001b Thu, 01 Jan 1970 00:00:00 GMT -9999 +9999 1e309
"""


# pictures

PNG_START = b"\x89PNG\r\n\x1a\n"


def prepare_image(folder):
    # Pillow imports its plugins when it needs them; now they are instrumented.
    from PIL import Image, JpegImagePlugin, MpoImagePlugin, PngImagePlugin  # noqa: F401

    from seedream_batch.errors import StorageError
    from seedream_batch.files.pictures import FORMATS, MAX_PIXELS, BadPicture, inspect
    from seedream_batch.files.references import BadReferenceImage, data_uri, load_reference

    def looked_at(data, *, decode, most):
        try:
            picture = inspect(data, decode=decode, max_pixels=most)
        except BadPicture as error:
            claim(str(error), "an error has a text")
            claim(is_clean(str(error)), "an error has no control characters", str(error))
            claim(len(str(error)) < 1000, "an error is short", str(error))
            return None
        claim(picture.format in FORMATS, "a format is known", picture)
        claim(picture.width > 0 and picture.height > 0, "a picture has pixels", picture)
        claim(picture.width * picture.height <= most, "a picture is no larger than allowed", picture)
        return picture

    def reference(data, text):
        try:
            found = load_reference(text, folder)
        except (BadReferenceImage, StorageError) as error:
            claim(str(error), "an error has a text")
            return
        claim(found.sha256 == hashlib.sha256(data).hexdigest() and found.bytes == len(data), "a hash is of the bytes")
        width, height = found.width, found.height
        claim(min(width, height) > 14 and max(width, height) <= 3 * min(width, height), "a reference is within limits")
        claim(looked_at(data, decode=True, most=MAX_PIXELS), "a reference is a picture")
        claim(load_reference(data_uri(found, data), folder).sha256 == found.sha256, "a data URI is read again")

    def run(data):
        flags, data = data[0] if data else 0, data[1:]
        if flags & 1 and data.startswith(PNG_START):
            data = with_checksums(data)
        if flags & 2:
            kind = ("png", "jpeg", "gif", "png;x")[flags >> 6]
            reference(data, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
            return
        if flags & 4:
            reference(data, data.decode("utf-8", "surrogateescape"))
            return
        # Mostly with a bound on pixels that a seed is below: damage makes huge sizes, which take long when allowed.
        most = MAX_PIXELS if flags & 0xF8 == 0xF8 else 4096
        whole = looked_at(data, decode=True, most=most)
        known = looked_at(data, decode=False, most=most)
        if whole is not None:
            claim(known == whole, "a whole picture has the same size undecoded", known, whole)
            claim(looked_at(data, decode=True, most=most) == whole, "a picture is the same again")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                claim(image.size == (whole.width, whole.height), "a picture opens with the same size", image.size)

    return run


def with_checksums(data):
    """The PNG with the checksums that its chunks should have."""
    mended = bytearray(data)
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def image_seeds():
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    noise = Image.effect_noise((16, 16), 90)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    info = PngInfo()
    info.add_text("prompt", "a fox " * 9, zip=True)
    info.add_itxt("title", "t" * 9, zip=True)

    def saved(mode, kind, **options):
        data = io.BytesIO()
        image = Image.new("I;16", (16, 16), 30_000) if mode == "I;16" else noise.convert(mode)
        image.save(data, kind, **options)
        return data.getvalue()

    made = [
        saved("RGB", "JPEG", quality=20),
        saved("RGB", "JPEG", quality=20, progressive=True),
        saved("L", "JPEG", quality=20, comment=b"a fox"),
        saved("CMYK", "JPEG", quality=20),
        saved("RGB", "JPEG", quality=20, exif=exif, icc_profile=b"i" * 30, dpi=(72, 72)),
        saved("RGB", "JPEG", quality=20, subsampling=0, optimize=True, restart_marker_blocks=1),
        saved("RGB", "MPO", quality=20, save_all=True, append_images=[noise.convert("RGB")]),
        saved("RGB", "PNG"),
        saved("RGBA", "PNG"),
        saved("LA", "PNG"),
        saved("L", "PNG"),
        saved("1", "PNG"),
        saved("I;16", "PNG"),
        saved("P", "PNG", pnginfo=info, transparency=0),
        saved("RGB", "PNG", save_all=True, append_images=[noise.convert("RGB")]),
        saved("RGB", "PNG", exif=exif, icc_profile=b"i" * 30),
        saved("RGB", "GIF"),
        interlaced(),
        b"<html>",
        b'{"error": 1}',
        b"a.png",
        b"../a.png",
        b"data:image/png;base64,AAAA",
    ]
    for data in made:
        yield from (bytes([flags]) + data for flags in (0, 1, 2, 0xF8))
    yield from (b"\x04" + data for data in made[-3:])


def heavy_images():
    """Sizes at the bounds, and beyond them, with next to nothing behind them."""
    for data in (
        png(8000, 8000, zlib.compress(bytes(10**6))),
        png(8000, 8000, zlib.compress(bytes(8000 * 24_001), 9)),
        png(8001, 8000, b""),
        png(2**31 - 1, 2**31 - 1, b""),
        png(16, 16, zlib.compress(bytes(10**8), 9)),
        painted_over(1_000),
    ):
        yield from (bytes([flags]) + data for flags in (2, 0xF8))


def painted_over(times):
    """A JPEG whose last pass over the pixels comes again and again: little to read, and much to do."""
    from PIL import Image

    data = io.BytesIO()
    Image.new("L", (6000, 6000), 128).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    last = whole[whole.rindex(b"\xff\xc4", 0, whole.rindex(b"\xff\xda")) : -2]
    return whole[:-2] + last * times + whole[-2:]


def png(width, height, pixels, interlace=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlace))
    return PNG_START + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def interlaced():
    """A PNG in the seven passes that Pillow reads but does not write."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(
        b"\0" + bytes(3 * len(range(left, 16, across)))
        for left, top, across, down in passes
        for _ in range(top, 16, down)
    )
    return png(16, 16, zlib.compress(rows), interlace=1)


IMAGE_WORDS = (
    "IHDR IDAT IEND PLTE tRNS iCCP zTXt iTXt tEXt eXIf acTL fcTL fdAT gAMA pHYs sRGB cHRM Exif\0\0 JFIF\0 MPF\0 "
    "ICC_PROFILE\0 II*\0 MM\0* Adobe Photoshop 8BIM http://ns.adobe.com/xap/1.0/\0"
)
IMAGE_MARKS = tuple(f"\\xff\\x{mark:02x}" for mark in (*range(0xC0, 0xE3), 0xEE, 0xFE))

TARGETS = {
    "job": Target(JobTarget, job_seeds, heavy_jobs, tuple(JOB_WORDS.split()), ("seedream_batch",), 1024, 10, 200),
    "template": Target(
        prepare_template,
        template_seeds,
        heavy_templates,
        tuple(TEMPLATE_WORDS.split()),
        ("seedream_batch.expand",),
        160,
        5,
        200,
    ),
    "response": Target(
        ResponseTarget,
        response_seeds,
        heavy_answers,
        tuple(RESPONSE_WORDS.split()),
        ("seedream_batch.api.wire",),
        2048,
        0.5,
        50,
    ),
    "image": Target(
        prepare_image,
        image_seeds,
        heavy_images,
        (*IMAGE_WORDS.split(" "), *IMAGE_MARKS),
        ("seedream_batch.files", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.MpoImagePlugin"),
        2048,
        5,
        800,
    ),
}


# the process that runs a target


class Shared:
    """A count, and the input that is being run: for the parent to see when the process is gone."""

    SIZE = 64 * 1024
    _HEAD = struct.Struct("QI")

    def __init__(self, path, *, create=False):
        if create:
            path.write_bytes(bytes(self.SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self.SIZE)

    def begin(self, count, data):
        data = data[: self.SIZE - self._HEAD.size]
        self._map[: self._HEAD.size] = self._HEAD.pack(count, len(data))
        self._map[self._HEAD.size : self._HEAD.size + len(data)] = data

    def look(self):
        count, length = self._HEAD.unpack(self._map[: self._HEAD.size])
        return count, self._map[self._HEAD.size : self._HEAD.size + length]


class Watch:
    """Runs one input after another, counts them, and keeps what fails."""

    def __init__(self, target, run, shared, failures):
        self._target = target
        self._run = run
        self._shared = shared
        self._failures = failures
        self._count = 0
        self._known = {}

    def __call__(self, data):
        self._count += 1
        self._shared.begin(self._count, data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        try:
            self._run(data)
        except Exception as error:
            self._keep(signature(error), "".join(traceback.format_exception(error)), data)
        spent = time.process_time() - started
        if spent > self._target.seconds:
            self._keep("slow", f"took {spent:.1f} s of processor time; at most {self._target.seconds} s\n", data)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
        if grown > self._target.megabytes:
            self._keep("large", f"took {grown:.0f} MB more; at most {self._target.megabytes} MB\n", data)

    def _keep(self, name, told, data):
        """Keeps the shortest input for each distinct failure."""
        if len(data) >= self._known.get(name, sys.maxsize):
            return
        self._known[name] = len(data)
        kept = self._failures / re.sub(r"[^A-Za-z0-9.]+", "-", name)[:150].strip("-")
        kept.with_suffix(".input").write_bytes(data)
        kept.with_suffix(".txt").write_text(f"{name}\n{told}", encoding="utf-8", errors="backslashreplace")


def signature(error):
    """What tells one failure from another: the promise, or the kind of error and the place it comes from."""
    if isinstance(error, Broken):
        return f"broken {error.args[0]}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "seedream_batch" in frame.filename] or frames
    return f"{type(error).__name__} {Path(ours[-1].filename).name} {ours[-1].name} {ours[-1].lineno}"


def words_file(words):
    """The words in the form that libFuzzer reads."""
    lines = []
    for word in words:
        data = word.encode().decode("unicode_escape") if re.match(r"\\xff", word) else word
        encoded = data.encode("latin-1") if re.match(r"\\xff", word) else data.encode()
        lines.append('"' + "".join(f"\\x{byte:02x}" for byte in encoded) + '"')
    return "\n".join(lines) + "\n"


def fuzz(name, work, failures, arguments):
    """The life of the child: prepares the target, and runs inputs until it is told to end."""
    import atheris

    target = TARGETS[name]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))  # a bomb shall not take the machine along
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory_folder()))
    try:
        with atheris.instrument_imports(include=list(target.instrumented), enable_loader_override=False):
            run = target.prepare(folder)
        watch = Watch(target, run, Shared(work / "shared"), failures)
        if arguments.reproduce:
            run(arguments.reproduce.read_bytes())
            return
        options = [
            f"-runs={arguments.executions}",
            f"-seed={arguments.seed or 1}",
            f"-max_len={target.longest}",
            f"-timeout={HANG}",
            f"-rss_limit_mb={MOST_MEMORY // MEGABYTE // 2}",
            f"-artifact_prefix={work}/",
            f"-dict={work / 'words'}",
        ]
        if arguments.seconds:
            options.append(f"-max_total_time={max(1, int(arguments.seconds))}")
        for data in target.heavy():
            watch(data)
        atheris.Setup([sys.argv[0], *options, str(work / "corpus"), str(work / "seeds")], watch)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def memory_folder():
    """Where files cost no disk, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# the process that watches it


def campaign(name, arguments):
    """Runs the child, again after each crash, until all executions are done; what came of it."""
    target = TARGETS[name]
    work = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-work-"))
    failures = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-failures-"))
    for folder in ("corpus", "seeds"):
        (work / folder).mkdir()
    (work / "words").write_text(words_file(target.words))
    for data in target.seeds():
        (work / "seeds" / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    started = time.monotonic()
    done, coverage, crashes = 0, None, 0
    for turn in itertools.count():
        left = arguments.seconds - (time.monotonic() - started) if arguments.seconds else 0
        shared = Shared(work / "shared", create=True)
        try:
            code = one_child(name, work, failures, arguments.executions - done, arguments.seed + turn, left, shared)
        except KeyboardInterrupt:  # what was done until then counts
            code = 0
        count, data = shared.look()
        done += count
        log = (work / "log").read_text(errors="replace")
        found = re.findall(r"\bcov: (\d+)", log)
        coverage = max(coverage or 0, int(found[-1])) if found else coverage
        if code != 0:
            crashes += 1
            why = {70: "hang", 71: "memory", 124: "hang"}.get(code, f"crash-{code}")
            (failures / f"{why}-{crashes}.input").write_bytes(data)
            (failures / f"{why}-{crashes}.txt").write_text(f"the process ended with {code}\n{log[-4000:]}")
        over = bool(arguments.seconds) and time.monotonic() - started >= arguments.seconds
        if code == 0 or over or done >= arguments.executions or crashes >= 20:
            break
    seconds = time.monotonic() - started
    shutil.rmtree(work)
    names = sorted(path.stem for path in failures.glob("*.input"))
    if not names:
        failures.rmdir()
    return {
        "target": name,
        "executions": done,
        "failures": len(names),
        "seconds": round(seconds, 1),
        "coverage": coverage,
        "seed": arguments.seed,
        "names": names,
        "inputs": str(failures) if names else None,
    }


def one_child(name, work, failures, executions, seed, seconds, shared):
    """Runs one child to its end; its exit code, 124 where it had to be killed."""
    command = [sys.executable, __file__, name, "--child", str(work), str(failures)]
    command += ["--executions", str(executions), "--seed", str(seed), "--seconds", str(max(0, seconds))]
    with (work / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        seen, since = -1, time.monotonic()
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(5)
                count = shared.look()[0]
                if count != seen:
                    seen, since = count, time.monotonic()
                elif time.monotonic() - since > 2 * HANG:
                    return 124
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--executions", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, metavar="LIMIT", help="end after this time (0: never)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file, too")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="run this one input and show what it raises")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        fuzz(arguments.target, *arguments.child, arguments)
        return 0
    if arguments.reproduce:
        with tempfile.TemporaryDirectory() as work:
            Shared(Path(work, "shared"), create=True)
            fuzz(arguments.target, Path(work), Path(work), arguments)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result = campaign(arguments.target, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"{result['target']}: {result['executions']:,} executions, {result['failures']} distinct failures,"
        f" {result['seconds']} s, coverage {result['coverage']}"
    )
    if result["failures"]:
        print(f"inputs in {result['inputs']}: {', '.join(result['names'])}")
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())

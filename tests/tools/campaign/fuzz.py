"""Fuzzing, guided by coverage, of all that reads what others wrote: job files, templates, answers, URLs, pictures.

    pip install -r tests/tools/campaign/fuzz_requirements.txt
    python tests/tools/campaign/fuzz.py response --executions 1000000

Each target is a function of bytes. It may raise nothing but the documented errors, has to keep what it promises
(`Broken` says what it did not), and has bounds on the processor time and the memory that one input may take. It runs in
a process of its own, so that a crash, a hang or a lack of memory is only one more failure. Inputs that fail are kept,
one for each distinct failure; `--reproduce FILE` runs one of them again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import mmap
import os
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fuzz_claims import Broken
from fuzz_image import IMAGE_MARKS, IMAGE_WORDS, heavy_images, image_seeds, prepare_image
from fuzz_job import JOB_WORDS, JobTarget, heavy_jobs, job_seeds
from fuzz_response import RESPONSE_WORDS, ResponseTarget, heavy_answers, response_seeds
from fuzz_template import TEMPLATE_WORDS, heavy_templates, prepare_template, template_seeds
from fuzz_url import URL_WORDS, UrlTarget, heavy_urls, url_seeds

MEGABYTE = 1024 * 1024
HANG = 60
"""Seconds after which an input counts as a hang: C code does not let go of the processor to be measured."""
MOST_MEMORY = 6 * 1024 * MEGABYTE


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


TARGETS = {
    "job": Target(JobTarget, job_seeds, heavy_jobs, tuple(JOB_WORDS.split()), ("seedream_batch",), 1024, 10, 200),
    "template": Target(
        prepare_template,
        template_seeds,
        heavy_templates,
        tuple(TEMPLATE_WORDS.split()),
        ("seedream_batch.templates",),
        160,
        5,
        200,
    ),
    "response": Target(
        ResponseTarget,
        response_seeds,
        heavy_answers,
        tuple(RESPONSE_WORDS.split()),
        ("seedream_batch.client.wire",),
        2048,
        0.5,
        50,
    ),
    "url": Target(
        UrlTarget,
        url_seeds,
        heavy_urls,
        tuple(URL_WORDS.split()),
        ("seedream_batch.client.images", "yarl", "httpx._urlparse"),
        512,
        1,
        100,
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


class TaskPoller:
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
        watch = TaskPoller(target, run, Shared(work / "shared"), failures)
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

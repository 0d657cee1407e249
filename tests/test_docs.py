"""The documentation is true: its commands run, its outputs are real, its files are valid, its links lead somewhere."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pages
import pytest
import yaml
from build_site import entries
from pages import PAGES, README, ROOT, blocks, every, make_clone, titled, unit
from reference_parts import assembled

from seedream_batch.cli import exit_codes
from seedream_batch.emulator import Emulator, EmulatorConfig, load_faults
from seedream_batch.jobfile import load_job

QUICK = ("README.md", "docs/tutorials/first-job.md")
"""The pages that the README's command tries, too."""
SET_UP = "python3 -m venv .venv && "


@pytest.fixture
def clone(tmp_path):
    return make_clone(tmp_path / "home")


@pytest.fixture
def emulator():
    with Emulator(EmulatorConfig(task_seconds="fixed:0.05", image_size="tiny")) as running:
        yield running


def environment(clone, emulator):
    """What a user's shell has, and the emulator in the place of the service, which cannot be reached."""
    return {
        "HOME": str(clone.parent),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LANG": "C.UTF-8",
        "APIMART_BASE_URL": emulator.url,
        "https_proxy": "http://127.0.0.1:1",
    }


RUNNABLE = [
    pytest.param(page, id=pages.name(page), marks=() if pages.name(page) in QUICK else pytest.mark.thorough)
    for page in PAGES
    if any(block.language in {"sh", "python"} and not block.title for block in blocks(page))
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUNNABLE)
def test_every_command_runs_as_written_and_gives_the_output_that_is_quoted(page, clone, emulator):
    steps = [(step, block) for block in blocks(page) if (step := shell(block))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # One shell for a page, as a reader has: what a block exports or makes is there for the next one.
    begin = "set -eu\n"
    if page != README:
        begin += ". .venv/bin/activate\nexport APIMART_API_KEY=any\n"
    script = begin + "\n".join(f"{step}\necho '@@@ {number}'" for number, (step, _) in enumerate(steps))
    done = subprocess.run(
        ["bash", "-c", script.replace("8089", port)],
        cwd=clone, env=environment(clone, emulator),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    printed = done.stdout.replace(emulator.url, "https://api.apimart.ai").replace(port, "8089")
    outputs = re.split(r"^@@@ \d+\n", printed, flags=re.MULTILINE)
    for (_, block), output in zip(steps, outputs, strict=False):
        if block.output is not None:
            assert same(block.output, output), f"{block.text}\ngives\n{output}"


def shell(block):
    """The block as it is run here: files are written, installations left out, and so is what lacks its tool."""
    if block.title:
        path = block.title.replace("~/", "$HOME/")
        return f"mkdir -p \"$(dirname {path})\"\ncat > {path} <<'@@@'\n{block.text}@@@"
    if block.language == "python":
        return f"python - <<'@@@'\n{block.text}@@@"
    if block.language != "sh":
        return ""
    if block.text.startswith(SET_UP):
        last = block.text.rpartition(" && ")[2]
        return "" if last.strip().endswith("pytest") else last
    tools = {"curl", "jq", "sqlite3"}
    wanted = {word for word in re.findall(r"[\w-]+", block.text) if word in tools}
    return block.text if all(shutil.which(tool) for tool in wanted) else ""


def same(quoted, output):
    """Whether these are the same but for times, sizes and such; `...` in what is quoted stands for anything."""
    words = [".*" if word == "..." else re.escape(word) for word in masked(quoted)]
    return re.fullmatch(" ".join(words).replace(" .* ", "(?: .*)? "), " ".join(masked(output))) is not None


def masked(output):
    """The words of an output without what differs from run to run: times, sizes, process ids."""
    for pattern, mask in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
        (r"\d+ h \d+ min|\d+ min \d+ s|\b\d+\.\d s\b", "SECONDS"),
        (r"\b[\d.]+ [KMG]?B\b", "BYTES"),
        (r"\bpid \d+", "PID"),
        (r"[\d,.]+ images a minute", "PACE"),
        # Progress, as often as it is printed.
        (r"(?m)^[\d,]+ of [\d,]+ images stored, .* in flight.*\n", ""),
    ):
        output = re.sub(pattern, mask, output)
    # A longer number moves the line breaks.
    return output.split()


@pytest.mark.parametrize("page", [pytest.param(page, id=pages.name(page)) for page in PAGES if blocks(page)])
def test_the_files_are_valid(page, tmp_path):
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    for number, block in enumerate(blocks(page)):
        path = tmp_path / block.title.replace("~/", "")
        if block.title:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.language != "yaml":
            continue
        if path.name.endswith("faults.yaml"):
            assert load_faults(path)
        elif block.title and path.parent.name != "jobs":
            assert yaml.safe_load(block.text)
        else:
            job = path if block.title else tmp_path / "jobs" / f"example-{number}.yaml"
            job.write_text(block.text if block.title else whole(block.text), encoding="utf-8")
            assert load_job(job).check() > 0, block.text


def whole(part):
    """A part of a job made whole by what it leaves out."""
    given = set(re.findall(r"^(\w+):", part, re.MULTILINE))
    axes = yaml.safe_load(part).get("matrix") or {"subject": ["panda", "fox"], "size": ["1:1", "16:9", "9:16"]}
    prompt = " ".join(f"{{{{ {axis}.text if {axis} is mapping else {axis} }}}}" for axis in axes)
    rest = {
        "version": "version: 1",
        "matrix": "matrix: {subject: [panda, fox], size: [1:1, 16:9, 9:16]}",
        "request": f'request: {{prompt: "{prompt}"}}',
    }
    return part + "\n".join(text for key, text in rest.items() if key not in given)


@pytest.mark.thorough
def test_the_workflow_annotates_what_is_wrong(clone, emulator):
    command = yaml.safe_load(titled("jobs.yaml"))["jobs"]["validate"]["steps"][-1]["run"]
    script = f". .venv/bin/activate; {command}"

    def step():
        return subprocess.run(
            ["bash", "-c", script],
            cwd=clone, env=environment(clone, emulator), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = step()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    job = clone / "jobs" / "quickstart.yaml"
    job.write_text(job.read_text(encoding="utf-8").replace("[2K]", "[1K]"), encoding="utf-8")
    done = step()
    assert done.returncode == 2
    assert done.stdout.startswith("::error file=jobs/quickstart.yaml,line=")


def test_the_crontab_lines_run_as_pasted_and_are_silent(clone, emulator):
    key(clone)
    lines = [line for block in every("crontab") for line in block.text.splitlines() if line.strip() and line[0] != "#"]
    assert lines
    for line in lines:
        (job,) = {word for word in line.split() if word.endswith(".yaml")}
        shutil.copy(clone / "jobs" / "quickstart.yaml", clone / job)
        command = line.split(maxsplit=5)[5]
        assert "%" not in command  # cron takes it for a line break
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd="/", env=environment(clone, emulator), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert emulator.stats()["submit"] >= 6


@pytest.mark.thorough
def test_the_systemd_units_start_what_is_there(clone, emulator):
    key(clone)
    timer = unit("seedream-postcards.timer")
    assert timer["Timer"]["OnCalendar"] == "*:0/30"
    service = unit("seedream-postcards.service")["Service"]
    here = {name: value.replace("%h", str(clone.parent)) for name, value in service.items()}
    shutil.copy(clone / "jobs" / "quickstart.yaml", clone / "jobs" / "postcards.yaml")
    name, _, value = here["Environment"].partition("=")
    done = subprocess.run(
        shlex.split(here["ExecStart"]),
        cwd=here["WorkingDirectory"], env={**environment(clone, emulator), name: value},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert emulator.stats()["submit"] == 6


def key(clone):
    folder = clone.parent / ".config" / "seedream-batch"
    folder.mkdir(parents=True)
    (folder / "key").write_text("a-key\n", encoding="utf-8")


def test_the_exit_codes_are_those_of_the_program():
    page = assembled((ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8"))
    rows = dict(re.findall(r"^\| ([\d, ]+) \| (.+?) \|", page, re.MULTILINE))
    assert {int(code) for row in rows for code in row.split(",")} == {*map(int, exit_codes.Exit), 129, 130, 143}
    assert rows["75"] == exit_codes.meaning(75)


SOURCES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", [pytest.param(page, id=pages.name(page)) for page in SOURCES])
def test_links_lead_somewhere(page):
    text = without_code(page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\b(?:src(?:set)?|href)="([^"]+)"', text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", without_code(assembled(page.read_text(encoding="utf-8"))), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def without_code(text):
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def test_the_front_page_links_to_every_page():
    assert len(entries()) == len(PAGES) - 2


def test_the_table_of_the_package_names_every_module():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [\d-] \| (.+?) \|", contributing, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (ROOT / "seedream_batch").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert named == {name for name in there if not name.startswith("__") and name != "schemas"}


COMMANDS = assembled((ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8"))


def test_every_command_and_every_option_of_a_run_is_named():
    from seedream_batch.cli.app import cli
    from seedream_batch.cli.commands.run import command

    for verb in cli.list_commands(None):
        assert f"\n## {verb}\n" in COMMANDS, verb
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.search(rf"^\| (`|<code>)[^|]*{option}\b", COMMANDS, re.MULTILINE), option


def test_every_key_of_a_job_file_is_named():
    import json

    schema = json.loads((ROOT / "schemas" / "job.schema.json").read_text(encoding="utf-8"))["properties"]
    keys = {
        *schema,
        *(f"{part}.{key}" for part in ("output", "budget", "run", "notify") for key in schema[part]["properties"]),
    }
    page = assembled((ROOT / "docs" / "reference" / "job-file.md").read_text(encoding="utf-8"))
    for name in keys | {f"request.{key}" for key in schema["request"]["properties"]}:
        assert f"`{name}`" in page, name

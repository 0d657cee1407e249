"""The README is true: its commands run, its outputs are real, its examples are valid, its tables are complete."""

import configparser
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from seedream_batch.cli import exit_codes
from seedream_batch.emulator import Emulator, EmulatorConfig, load_faults
from seedream_batch.jobfile import load_job

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TABLE = {"name": "places.txt", "text": "in a forest\non a beach\n"}
OTHER_FILES = ("# faults.yaml\n", "# .github/", "# .pre-commit-config.yaml\n", "# kubernetes.yaml\n")
"""How yaml blocks begin that are no job files."""
OTHER_SCRIPTS = ("# ray_workers.py\n",)
"""How python blocks begin that need more than this package."""
SET_UP = "python3 -m venv .venv && "


@dataclass
class Block:
    """A fenced block: its language, its text, and the output that is quoted right behind it."""

    language: str
    text: str
    output: str | None = None


def blocks(*languages):
    """The fenced blocks of these languages, in order."""
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        block = Block(match[1], match[2])
        if block.language == "text":
            found[-1].output = block.text
        else:
            found.append(block)
    return [block for block in found if block.language in languages]


@pytest.fixture
def clone(tmp_path):
    """A home folder with a copy of what the README's commands need, and a program where an installation has it."""
    tree = tmp_path / "home" / "seedream-batch"
    shutil.copytree(ROOT / "jobs", tree / "jobs")
    (tree / "schemas").symlink_to(ROOT / "schemas")
    program = tree / ".venv" / "bin" / "seedream-batch"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m seedream_batch "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (program.parent / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n', encoding="utf-8")
    (tree / "faults.yaml").write_text(fault_plan(), encoding="utf-8")
    return tree


@pytest.fixture
def emulator():
    with Emulator(EmulatorConfig(task_seconds="fixed:0.05", image_size="tiny")) as running:
        yield running


def environment(clone, emulator):
    """What a user's shell has, and the emulator in the place of the service."""
    return {
        "HOME": str(clone.parent),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LANG": "C.UTF-8",
        "APIMART_BASE_URL": emulator.url,
    }


def fault_plan():
    return next(block.text for block in blocks("yaml") if block.text.startswith("# faults.yaml"))


@pytest.mark.thorough
def test_every_command_runs_as_written_and_gives_the_output_that_is_quoted(clone, emulator):
    shell = [runnable(block) for block in blocks("sh")]
    shown = [(script, block.output) for script, block in zip(shell, blocks("sh"), strict=True) if script]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # One shell for all of them, as a reader has: what a block exports or makes is there for the next one.
    script = "set -eu\n" + "\n".join(f"{text}\necho '@@@ {number}'" for number, (text, _) in enumerate(shown))
    done = subprocess.run(
        ["bash", "-c", script.replace("8089", port)],
        cwd=clone, env=environment(clone, emulator),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    outputs = re.split(r"^@@@ \d+\n", done.stdout.replace(emulator.url, "https://api.apimart.ai"), flags=re.MULTILINE)
    for (text, quoted), output in zip(shown, outputs, strict=False):
        if quoted is not None:
            assert masked(output) == masked(quoted), f"{text}\ngives\n{output}"


def runnable(block):
    """The block as it can be run here: set-up lines without their installation, nothing that lacks its tool."""
    if block.text.startswith(SET_UP):
        last = block.text.rpartition(" && ")[2]
        return "" if last.strip().endswith("pytest") else last
    tools = {"curl", "jq", "sqlite3"}
    wanted = {word for word in re.findall(r"[\w-]+", block.text) if word in tools}
    return block.text if all(shutil.which(tool) for tool in wanted) else ""


def masked(output):
    """The output without what differs from run to run: times, sizes, process ids."""
    for pattern, mask in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
        (r"\d+ h \d+ min|\d+ min \d+ s|\b\d+\.\d s\b", "SECONDS"),
        (r"\b[\d.]+ [KMG]?B\b", "BYTES"),
        (r"\bpid \d+", "PID"),
        (r"[\d,.]+ images a minute", "PACE"),
    ):
        output = re.sub(pattern, mask, output)
    # A longer number moves the line breaks.
    return output.split()


def test_the_examples_of_job_files_are_valid(tmp_path):
    shutil.copytree(ROOT / "jobs", tmp_path, dirs_exist_ok=True)
    (tmp_path / "subjects" / TABLE["name"]).write_text(TABLE["text"], encoding="utf-8")
    examples = [block.text for block in blocks("yaml") if not block.text.startswith(OTHER_FILES)]
    assert len(examples) >= 5
    for number, example in enumerate(examples):
        # A part of a job is made whole by what it leaves out.
        given = set(re.findall(r"^(\w+):", example, re.MULTILINE))
        rest = {
            "version": "version: 1",
            "matrix": "matrix: {subject: [panda, fox], size: [1:1, 16:9, 9:16]}",
            "request": 'request: {prompt: "{{ subject.text if subject is mapping else subject }}"}',
        }
        if number and "request" not in given and "season" in example:
            rest["request"] = 'request: {prompt: "{{ subject.text }} {{ place }}, {{ season }}"}'
        job = tmp_path / f"example-{number}.yaml"
        job.write_text(example + "\n".join(text for key, text in rest.items() if key not in given), encoding="utf-8")
        assert load_job(job).check() > 0, example


def test_the_fault_plan_is_valid(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(fault_plan(), encoding="utf-8")
    assert len(load_faults(path)) == 3


@pytest.mark.thorough
def test_the_workflow_annotates_what_is_wrong(clone, emulator):
    (text,) = [block.text for block in blocks("yaml") if block.text.startswith("# .github/")]
    command = yaml.safe_load(text)["jobs"]["validate"]["steps"][-1]["run"]
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


def test_the_python_examples_run(clone, emulator, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    monkeypatch.setenv("APIMART_BASE_URL", emulator.url)
    monkeypatch.setenv("APIMART_API_KEY", "any")
    for block in [block for block in blocks("python") if not block.text.startswith(OTHER_SCRIPTS)]:
        exec(compile(block.text, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "3 images for about 0.105 USD" in out
    assert "2 new images, 0.07 USD, 4 tasks left, None" in out
    assert "http://127.0.0.1:" in out


def test_the_crontab_line_runs_as_pasted_and_is_silent(clone, emulator):
    key(clone)
    (job,) = {word for block in blocks("crontab") for word in block.text.split() if word.endswith(".yaml")}
    shutil.copy(clone / "jobs" / "quickstart.yaml", clone / job)
    (line,) = [block.text.strip() for block in blocks("crontab")]
    command = line.split(maxsplit=5)[5]
    assert "%" not in command  # cron takes it for a line break
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd="/", env=environment(clone, emulator), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert emulator.stats()["submit"] == 6


@pytest.mark.thorough
def test_the_systemd_units_start_what_is_there(clone, emulator):
    key(clone)
    service, timer, _ = (parsed(block.text) for block in blocks("ini"))
    assert timer["Timer"]["OnCalendar"] == "*:0/30"
    here = {name: value.replace("%h", str(clone.parent)) for name, value in service["Service"].items()}
    shutil.copy(clone / "jobs" / "quickstart.yaml", clone / "jobs" / "postcards.yaml")
    name, _, value = here["Environment"].partition("=")
    done = subprocess.run(
        shlex.split(here["ExecStart"]),
        cwd=here["WorkingDirectory"], env={**environment(clone, emulator), name: value},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 of them new" in done.stdout


def key(clone):
    folder = clone.parent / ".config" / "seedream-batch"
    folder.mkdir(parents=True)
    (folder / "key").write_text("a-key\n", encoding="utf-8")


def parsed(text):
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(text)
    return unit


def test_the_exit_codes_are_those_of_the_program():
    _, _, rest = README.partition("\nExit codes:\n")
    rows = dict(re.findall(r"^\| ([\d, ]+) \| (.+) \|$", rest.split("\n\n")[0], re.MULTILINE))
    assert {int(code) for row in rows for code in row.split(",")} == {*map(int, exit_codes.Exit), 130, 143}
    told = dict(re.findall(r"^ +([\d, ]+?)  (.+)$", exit_codes.HELP, re.MULTILINE))
    assert {code: meaning.replace("`", "") for code, meaning in rows.items()} == told


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'\bsrc(?:set)?="([^"]+)"', README)
    assert "jobs/images/quickstart.jpg" in links
    assert {"tests/tools/pictures/plan.svg", "tests/tools/pictures/gallery-wide-light.png"} <= set(links)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles()}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (ROOT / link).is_file(), link


def titles():
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def test_the_table_of_the_package_names_every_module():
    rows = re.findall(r"^\| [\d-] \| (.+?) \|", CONTRIBUTING, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (ROOT / "seedream_batch").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert named == {name for name in there if not name.startswith("__") and name != "schemas"}


def test_every_command_and_every_option_of_a_run_is_named():
    from seedream_batch.cli.app import cli
    from seedream_batch.cli.commands.run import command

    for verb in cli.list_commands(None):
        assert re.search(rf"^\| `{verb}\b", README, re.MULTILINE), verb
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert f"`{option}" in README, option


def test_every_key_of_a_job_file_is_named():
    import json

    schema = json.loads((ROOT / "schemas" / "job.schema.json").read_text(encoding="utf-8"))["properties"]
    keys = {
        *schema,
        *(f"{part}.{key}" for part in ("output", "budget", "run", "notify") for key in schema[part]["properties"]),
    }
    for name in keys | set(schema["request"]["properties"]):
        assert f"`{name}`" in README, name

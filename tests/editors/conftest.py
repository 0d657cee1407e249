"""The YAML language server that editors use, from npm, and a client that speaks to it as an editor does."""

import itertools
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
PACKAGE = "yaml-language-server@1"
PATIENCE = 60
"""Seconds to wait for an answer."""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The command that starts the language server; installed once for all workers."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no node with npm on this machine")
    folder = tmp_path_factory.getbasetemp().parent / "language-server"
    folder.mkdir(exist_ok=True)
    program = folder / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
    with FileLock(folder / "lock"):
        if not program.exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder), PACKAGE]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr[-300:]}")
    return ["node", str(program), "--stdio"]


@pytest.fixture(scope="session")
def editor(server, tmp_path_factory):
    """An editor in a copy of the folder with the example jobs."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    shutil.copytree(ROOT / "schemas", folder / "schemas")
    with Editor(server, folder) as editor:
        yield editor


class Editor:
    """Opens files, and asks the language server about them."""

    def __init__(self, command, folder):
        self.folder = folder
        self._numbers = itertools.count(1)
        self._answers = queue.Queue()
        self._diagnostics = {}
        self._told = threading.Condition()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._reader.start()
        capabilities = {
            "workspace": {"configuration": True},
            "textDocument": {
                "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
                "publishDiagnostics": {},
            },
        }
        self._ask("initialize", {"processId": None, "rootUri": self.folder.as_uri(), "capabilities": capabilities})
        self._tell("initialized", {})
        return self

    def __exit__(self, *_):
        self._ask("shutdown", None)
        self._tell("exit", None)
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join()
        self._process.stdout.close()

    def diagnostics(self, path, text=None):
        """What is marked in a file, or in this text at its place, as pairs of a line (from 1) and a message."""
        uri = self._open(path, (self.folder / path).read_text(encoding="utf-8") if text is None else text)
        with self._told:
            assert self._told.wait_for(lambda: uri in self._diagnostics, PATIENCE), "no diagnostics came"
            found = self._diagnostics[uri]
        return [(one["range"]["start"]["line"] + 1, one["message"]) for one in found]

    def complete(self, path, text):
        """What is offered at the `|` in the text."""
        found = self._ask("textDocument/completion", self._place(path, text))
        return [item["label"] for item in (found["items"] if isinstance(found, dict) else found)]

    def hover(self, path, text):
        """What is shown about the word at the `|` in the text."""
        found = self._ask("textDocument/hover", self._place(path, text))
        return found["contents"]["value"] if found else ""

    def _open(self, path, text):
        # Each text has a name of its own: the server takes its time to notice that another one came.
        uri = (self.folder / path).with_stem(f"{Path(path).stem}-{next(self._numbers)}").as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})
        return uri

    def _place(self, path, text):
        before, _, after = text.partition("|")
        uri = self._open(path, before + after)
        position = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])}
        return {"textDocument": {"uri": uri}, "position": position}

    def _ask(self, method, params):
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        answer = self._answers.get(timeout=PATIENCE)
        assert answer["id"] == number
        assert "error" not in answer, answer
        return answer["result"]

    def _tell(self, method, params):
        self._send({"method": method, "params": params})

    def _send(self, message):
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self._process.stdin.flush()

    def _read(self):
        stream = self._process.stdout
        while header := stream.readline():
            length = 0
            while header.strip():
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
                header = stream.readline()
            self._take(json.loads(stream.read(length)))

    def _take(self, message):
        method = message.get("method")
        if method is None:
            self._answers.put(message)
        elif method == "textDocument/publishDiagnostics":
            with self._told:
                self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
                self._told.notify_all()
        elif method == "workspace/configuration":
            # The store of schemas is on the network, and nothing here is about it.
            settings = {"yaml": {"schemaStore": {"enable": False}, "hover": True, "completion": True, "validate": True}}
            answer = [settings.get(item["section"], {}) for item in message["params"]["items"]]
            self._send({"id": message["id"], "result": answer})
        elif "id" in message:
            self._send({"id": message["id"], "result": None})

"""The command line in the process of the tests: for all that is not about how a process starts and ends."""

import contextlib
import io
import subprocess

import pytest

from seedream_batch.cli import main


def called(*arguments, cwd=".", env=None):
    """A command and what it printed. As of a process, without the time that one takes to start."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
    printed = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, left.value.code or 0, *printed)

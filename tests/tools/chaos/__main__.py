"""Workers of one job that are killed and stopped at random, while their database is started anew again and again.

    python tests/tools/chaos [--tasks 10000] [--workers 8] [--without-keys] [--json FILE]

Needs PostgreSQL's server programs on this machine (on Debian: apt-get install postgresql). The exit code is 0 if every
promise held, else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storm import Storm
from verdict import judge


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/tools/chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=50.0, help="submissions a second, for all workers together")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two signals to random workers")
    parser.add_argument("--restarts", type=int, default=5, help="how often the database is started anew")
    parser.add_argument("--without-keys", action="store_true", help="the service does not honour idempotency keys")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to a file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        storm = Storm(
            Path(folder), tasks=options.tasks, workers=options.workers, rate=options.rate, every=options.every,
            restarts=options.restarts, honour_keys=not options.without_keys, seed=options.seed,
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        with storm.running() as after:
            found = judge(after)
    for line in found.lines():
        print(line)
    if options.json:
        options.json.write_text(json.dumps(found.as_json(), indent=1), encoding="utf-8")
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())

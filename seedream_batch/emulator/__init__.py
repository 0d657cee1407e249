"""An emulator of the image service, over HTTP on this machine: for demos, tests and rehearsals of failures.

It shares no code with the client, so the two check each other.

    with Emulator(EmulatorConfig(seed=1)) as emulator:
        ...  # send requests to emulator.url + "/v1/images/generations"
        emulator.ledger()
"""

import importlib
from typing import TYPE_CHECKING

from seedream_batch.emulator.config import ConfigError, EmulatorConfig

if TYPE_CHECKING:
    from seedream_batch.emulator.faults.plan import FaultError, load_faults
    from seedream_batch.emulator.server import Emulator, serve
    from seedream_batch.emulator.world.ledger import LedgerError

__all__ = ["ConfigError", "Emulator", "EmulatorConfig", "FaultError", "LedgerError", "load_faults", "serve"]

# Importing the server and the imaging library takes a quarter of a second, so it waits for the first use.
_LAZY = {
    "Emulator": "server",
    "FaultError": "faults.plan",
    "LedgerError": "world.ledger",
    "load_faults": "faults.plan",
    "serve": "server",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value

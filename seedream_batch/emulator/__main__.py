"""`python -m seedream_batch.emulator`: the emulator alone, without the rest of the command line."""

from seedream_batch.emulator.command import command

if __name__ == "__main__":
    command(prog_name="python -m seedream_batch.emulator")

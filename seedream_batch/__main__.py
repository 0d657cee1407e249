"""`python -m seedream_batch` is the `seedream-batch` command."""

from seedream_batch.cli import main

if __name__ == "__main__":
    main()

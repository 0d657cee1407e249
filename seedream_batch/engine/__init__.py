"""The run: decide, do, record. Its parts are imported one by one: only a run itself needs the edges."""

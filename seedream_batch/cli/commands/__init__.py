"""The commands, one module each; `command` is what click runs."""

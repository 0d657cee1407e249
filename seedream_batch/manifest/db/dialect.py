"""What the databases write differently in SQL."""

from __future__ import annotations

import json
from collections.abc import Collection


class Dialect:
    """Expressions as SQLite has them."""

    def in_list(self, column: str, numbers: Collection[int]) -> tuple[str, object]:
        """Return a condition, and its value, that a column is one of any number of integers."""
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(sorted(numbers))

    def elements(self, column: str) -> str:
        """Return a `FROM` item for the strings of a JSON list: a table `element` with the column `value`."""
        return f"json_each({column}) AS element"

    def member(self, column: str, name: str) -> tuple[str, object]:
        """Return an expression, and its value, for a member of a JSON object as JSON text; `null` if missing."""
        # SQLite parses an object once for all of its members, in a fifth of Python's time.
        return f"json_quote(json_extract({column}, ?))", f'$."{name}"'

    def first_of(self, column: str) -> str:
        """Return an expression for a column of the first task of a group, in a query with `min(ordinal)`."""
        return column  # with min(), SQLite takes a bare column from the row with the smallest value

    def for_update(self, table: str) -> str:  # noqa: ARG002 - only one process writes
        """Return a suffix for a query that locks the rows it finds in a table until the transaction ends."""
        return ""


class PostgresDialect(Dialect):
    """Expressions as PostgreSQL has them."""

    def in_list(self, column: str, numbers: Collection[int]) -> tuple[str, object]:
        return f"{column} = ANY(?)", sorted(numbers)

    def elements(self, column: str) -> str:
        return f"json_array_elements_text({_without_nul(column)}::json) AS element(value)"

    def member(self, column: str, name: str) -> tuple[str, object]:
        return f"coalesce(({_without_nul(column)}::json -> ?::text)::text, 'null')", name

    def first_of(self, column: str) -> str:
        return f"(array_agg({column} ORDER BY ordinal))[1]"

    def for_update(self, table: str) -> str:
        # NO KEY, so that rows which only refer to these are not blocked.
        return f" FOR NO KEY UPDATE OF {table}"


def _without_nul(column: str) -> str:
    """Return a column of JSON without NUL, which PostgreSQL's JSON cannot represent; for reading only."""
    return f"replace({column}, '\\u0000', '\\ufffd')"

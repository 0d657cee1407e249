"""Templates, fuzzed: as they are, and written by choices that the fuzzer makes."""

from __future__ import annotations

import copy
import itertools
import random
import re
import zlib

from fuzz_claims import CORPUS, claim

CONTEXT = {
    "x": "X",
    "n": 3,
    "z": 0,
    "f": 2.5,
    "big": 10**30,
    "yes": True,
    "nothing": None,
    "xs": ["b", "a", "C"],
    "ns": [3, 1, 2.0, True],
    "mixed": [1, "a", None, [2], {"k": 1}],
    "empty": [],
    "subject": {"id": "panda", "text": "a panda", "items": "I", "n": 1, "2": "two"},
    "people": [{"n": "z", "age": 3}, {"n": "y", "age": 1}],
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}]}],
    "words": "the quick\nbrown  fox\u00df\u0130 \U0001f43c",
    "pattern": "%(a)s %5.2f %d %%",
}
INCLUDES = {"a": "A{{ x }}", "self": "{% include 'self' %}", "broken": "{% if %}", "line": "{{ i }}\n{{ nope }}"}
NAMES = (*CONTEXT, "i", "loop", "ns0", "nope", "varargs", "kwargs", "caller", "f0", "sample")
LITERALS = (
    *("0", "1", "2", "-1", "7", "100", "2000", "200000000", "10 ** 9", "1.5", "1e308", "0x7f", "1_000", "true"),
    *("none", "''", "'a'", "'%s'", "'%0200000000d'", "'%(a)s'", "'a b,c'", "'\\n'", "'é'", "[]", "{}", "()"),
    *("range(3)", "range(9999)", "range(5, 0, -1)", "dict(a=1)", "namespace(a=1)", "'a' * 200000000"),
)
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in")
FILTERS = """
    abs batch capitalize center count d default dictsort first float format groupby indent int items join last length
    list lower map max min reject rejectattr replace reverse round select selectattr slice sort string sum title trim
    truncate unique upper wordcount random safe
""".split()  # noqa: SIM905 - one can read them so
TESTS = """
    eq ne lt le gt ge in boolean defined divisibleby even false float integer iterable lower mapping none number odd
    sequence string true undefined upper
""".split()  # noqa: SIM905 - one can read them so
METHODS = """
    capitalize casefold center count endswith find get index isalpha isdigit items join keys ljust lower lstrip
    partition removeprefix replace rfind rjust rpartition rsplit rstrip split splitlines startswith strip swapcase
    title upper values zfill format __class__ append
""".split()  # noqa: SIM905 - one can read them so
FIELDS = ("id", "text", "n", "v", "c", "age", "items", "index", "length", "last", "cycle", "grouper", "list", "a", "0")
KEYWORDS = (
    *("attribute", "default", "reverse", "case_sensitive", "by", "width", "first", "blank", "length", "killwords"),
    *("end", "leeway", "precision", "method", "start", "fill_with", "base", "boolean", "chars", "count", "a", "b"),
)


class Writer:
    """Templates written by choices that the fuzzer makes."""

    def __init__(self, choices):
        self._choices = choices

    def _one(self, options):
        return options[self._choices.ConsumeIntInRange(0, len(options) - 1)]

    def _below(self, most):
        return self._choices.ConsumeIntInRange(0, most - 1)

    def template(self):
        return "".join(self._statement(2) for _ in range(1 + self._below(2)))

    def _statement(self, depth):
        choice = self._below(14 if depth else 4)
        if choice < 3:
            return f"{{{{ {self._expression(3)} }}}}"
        if choice == 3:
            return self._choices.ConsumeUnicodeNoSurrogates(self._below(8)) + self._one(
                ("", "\n", " ", "{", "%}", "\t")
            )
        body = self._statement(depth - 1)
        match choice:
            case 4 | 5:
                test = f" if {self._expression(2)}" if self._below(4) == 0 else ""
                recursive = " recursive" if self._below(4) == 0 else ""
                over = self._expression(3)
                return f"{{% for i in {over}{test}{recursive} %}}{body}{{% else %}}{self._one(NAMES)}{{% endfor %}}"
            case 6:
                return f"{{% if {self._expression(3)} %}}{body}{{% else %}}{self._statement(depth - 1)}{{% endif %}}"
            case 7:
                return f"{{% set {self._one(NAMES)} = {self._expression(3)} %}}{body}"
            case 8:
                return f"{{% set {self._one(NAMES)} %}}{body}{{% endset %}}{{{{ {self._one(NAMES)} }}}}"
            case 9:
                call = self._arguments(2)
                return f"{{% macro f0(a, b={self._expression(1)}) %}}{body}{{% endmacro %}}{{{{ f0({call}) }}}}"
            case 10:
                return f"{{% call(q) f0({self._arguments(1)}) %}}{body}{{% endcall %}}"
            case 11:
                return f"{{% filter {self._one(FILTERS)}({self._arguments(1)}) %}}{body}{{% endfilter %}}"
            case 12:
                return f"{{% include {self._one((*map(repr, INCLUDES), self._expression(1)))} %}}{body}"
            case _:
                return f"{{% with i = {self._expression(2)} %}}{body}{{% endwith %}}{{% set ns0.a = ns0.a ~ i %}}"

    def _expression(self, depth):
        choice = self._below(16 if depth else 4)
        if choice < 2:
            return self._one(NAMES)
        if choice < 4:
            return self._one(LITERALS)
        inner = self._expression(depth - 1)
        match choice:
            case 4 | 5:
                return f"({inner} {self._one(OPERATORS)} {self._expression(depth - 1)})"
            case 6 | 7 | 8:
                return f"({inner} | {self._one(FILTERS)}({self._arguments(depth - 1)}))"
            case 9:
                return f"{inner}.{self._one(METHODS)}({self._arguments(depth - 1)})"
            case 10:
                return f"{inner}.{self._one(FIELDS)}"
            case 11:
                return f"{inner}[{self._expression(depth - 1)}]"
            case 12:
                step = self._one(("", ":-1", ":2", ":0"))
                return f"{inner}[{self._expression(depth - 1)}:{self._one(('', '1', '-2', '9' * 30))}{step}]"
            case 13:
                return f"({inner} is {self._one(('', 'not '))}{self._one(TESTS)}({self._arguments(depth - 1)}))"
            case 14:
                other = self._expression(depth - 1)
                return self._one((f"[{inner}, {other}]", f"({inner}, {other})", f"{{'a': {inner}, {other}: 1}}"))
            case _:
                return self._one((f"-{inner}", f"not {inner}", f"({inner} if {self._expression(depth - 1)})"))

    def _arguments(self, depth):
        names = [repr(one) for one in (*FILTERS, *TESTS, *FIELDS)]
        made = []
        for _ in range(self._below(4)):
            value = self._one(names) if self._below(3) == 0 else self._expression(max(0, depth))
            made.append(f"{self._one(KEYWORDS)}={value}" if self._below(4) == 0 else value)
        return ", ".join(made)


def prepare_template(_folder):
    import atheris

    from seedream_batch.templates.engine import TemplateEngine, TemplateError

    def include(name):
        if name == "locked":
            raise PermissionError(13, "Permission denied")
        try:
            return INCLUDES[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    untouched = copy.deepcopy(CONTEXT)
    kept = TemplateEngine(include, max_output=1_000, max_steps=1_000)

    def run(data):
        if data[:1] == b"#":  # a template as it is
            source = data[1:].decode("utf-8", "replace")
        else:
            source = Writer(atheris.FuzzedDataProvider(data[1:25])).template()
        engine = TemplateEngine(include) if is_generous(data) else kept
        try:
            template = engine.compile(source)
            text = template.render(CONTEXT)
        except TemplateError as error:
            claim(error.message.strip(), "an error has a text")
            claim(len(error.message + error.hint) < 3000, "an error is short", error.message)
            lines = 1 + len(re.findall(r"\r\n|\r|\n", source))
            claim(error.line is None or 1 <= error.line <= lines, "an error is on a line", error.line)
            return
        finally:
            claim(untouched == CONTEXT, "a template changes no values")
        claim(len(text) <= engine.max_output, "a text is no longer than allowed", len(text))
        text.encode()
        claim(template.render(CONTEXT) == text, "a template gives the same text again")
        if zlib.crc32(data) % 4 == 0 and "include" not in source:
            fresh = TemplateEngine(include, max_output=engine.max_output, max_steps=engine.max_steps).compile(source)
            told = {name: value for name, value in CONTEXT.items() if name in fresh.names}
            claim(fresh.render(told) == text, "a template reads only the names that it tells", source)

    return run


def template_seeds():
    for line in (CORPUS / "templates.txt").read_bytes().splitlines():
        yield b"#" + line
    chance = random.Random(0)
    for length in (8, 16, 24):
        yield from (b"!" + chance.randbytes(length) for _ in range(8))


def heavy_templates():
    """Each seed as often as it takes to meet the bounds that jobs have, too."""
    for seed in template_seeds():
        yield next(padded for n in itertools.count() if is_generous(padded := seed + b" " * n))


def is_generous(data):
    """Whether this input is rendered within the bounds that jobs have; most are within much tighter ones."""
    return zlib.crc32(data) % 500 == 0


TEMPLATE_WORDS = """
    {{ }} {% %} {# #} {{- -}} {%- -%} if elif else endif for in endfor recursive set endset macro endmacro call endcall
    filter endfilter include ignore missing with endwith raw endraw namespace( range( dict( loop. loop( .append( | ~ **
    // == != <= >= is not and or defined none true 'a' "b" \\ [::-1] [1:] varargs caller() self 0x 1e9 @tick
"""

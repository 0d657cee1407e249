"""The mutations of the campaign fit the code: one whose code is gone would only show up in a run of an hour."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "tools" / "campaign"))

from code_edits import Edit, NotOnce, edited
from mutations import MUTATIONS

PACKAGE = Path(__file__).parents[1] / "seedream_batch"

CODE = '''\
LIMIT = {1, 2}


class Shop:
    def other(self):
        self.pay(1)

    async def sell(self, price):
        """Sell it."""
        if price > 0 and self.open:
            self.pay(price, at=1)
            self.count = self.count + 1
        return "paid in full"
'''


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_changes_is_there_once(mutation):
    changed = edited(PACKAGE, mutation.edits)
    assert changed
    for file, text in changed.items():
        compile(text, file, "exec")
    assert all(edit.new != edit.old for edit in mutation.edits)


def test_every_mutation_has_a_name_of_its_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.fixture
def changed(tmp_path):
    """Makes edits of `CODE`, and gives what it is then."""
    (tmp_path / "shops").mkdir()
    file = tmp_path / "shops" / "shop.py"

    def make(*edits, code=CODE):
        file.write_text(code)
        return edited(tmp_path, [Edit(f"shops.shop.{within}", *code) for within, *code in edits])[file]

    return make


@pytest.mark.parametrize(
    ("edit", "old", "new"),
    [
        (("Shop.sell", "self.pay(...)"), "self.pay(price, at=1)", "pass"),
        (("Shop.sell", "self.pay(price, ...)"), "self.pay(price, at=1)", "pass"),
        (("Shop.sell", "price > 0", "True"), "price > 0", "True"),
        (("Shop.sell", "price > 0 and ...", "price"), "price > 0 and self.open", "price"),
        (("Shop.sell", "self.count = ...", "raise"), "self.count = self.count + 1", "raise"),
        (("Shop.sell", "'in full'", "'half'"), "in full", "half"),
        (("Shop.sell", "return ...", "return ''"), '"paid in full"', "''"),
        (("LIMIT", "2", "3"), "{1, 2}", "{1, 3}"),
        (
            ("Shop.sell", "if ...:\n    ...", "pass"),
            CODE[CODE.index("if price") : CODE.index("        return")],
            "pass\n",
        ),
    ],
)
def test_an_edit_changes_the_code_inside_one_function(changed, edit, old, new):
    assert changed(edit) == ast.unparse(ast.parse(CODE.replace(old, new)))


def test_edits_of_one_file_add_up(changed):
    wanted = CODE.replace("price > 0", "price").replace("{1, 2}", "{1}")
    assert changed(("Shop.sell", "price > 0", "price"), ("LIMIT", "{1, 2}", "{1}")) == ast.unparse(ast.parse(wanted))


def test_layout_and_neighbours_do_not_matter(changed):
    edit = ("Shop.sell", "self.pay(price, at=1)", "pass")
    moved = CODE.replace(
        "self.pay(price, at=1)", "self.pay(  # what it costs\n                price, at=1\n            )"
    )
    assert changed(edit, code=moved.replace("other", "another").replace("self.count + 1", "2")).count("pass") == 1


@pytest.mark.parametrize(
    "edit",
    [
        ("Shop.sell", "self.give(...)"),
        ("Shop.sell", "self", "shop"),
        ("Shop.buy", "self.pay(...)"),
        ("Shop.sell", "self.pay(price)"),
        ("sell", "self.pay(...)"),
    ],
)
def test_code_that_is_not_there_exactly_once_is_an_error(changed, edit):
    with pytest.raises(NotOnce):
        changed(edit)

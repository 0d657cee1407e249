"""The mutations of the campaign fit the code: one whose text is gone would be told only by a run of an hour."""

from pathlib import Path

import pytest
from tools.campaign.mutations import MUTATIONS

PACKAGE = Path(__file__).parent.parent / "seedream_batch"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_changes_is_there_once(mutation):
    for edit in mutation.edits:
        assert (PACKAGE / edit.file).read_text(encoding="utf-8").count(edit.old) == 1, edit
        assert edit.new != edit.old


def test_every_mutation_has_a_name_of_its_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)

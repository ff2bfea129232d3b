"""One checkpoint of each kind of mutation: a line, no traceback, little time and memory. `mutations.py` tries 1,000."""

import pytest
from mutations import Mutations, attempt, complaint


@pytest.fixture(scope="module")
def mutations(tmp_path_factory) -> Mutations:
    return Mutations(tmp_path_factory.mktemp("sound"), seed=1)


@pytest.mark.parametrize("kind", Mutations.KINDS)
def test_a_mutated_checkpoint_ends_in_one_line(mutations, tmp_path, kind):
    mutated = mutations.make(kind)
    assert complaint(mutated, attempt(mutated, tmp_path)) is None

"""The proof catches removers that are broken on purpose, and lets correct copies pass."""

from pathlib import Path

import pytest
from mutants import Mutant, mutants

from medgem_node.deid.proof import leaks

MUTANTS = list(mutants())
TABLE = Path(__file__).parents[2] / "docs" / "results" / "deid-mutations.md"


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.kind for mutant in MUTANTS])
def test_a_broken_remover_is_caught_and_a_correct_one_is_not(mutant: Mutant) -> None:
    original = mutant.original()
    control, broken = mutant.copies()

    assert leaks(original, [control]) == []
    assert mutant.said in leaks(original, [broken], mutant.options)


def test_the_table_of_the_documentation_names_every_fault() -> None:
    rows = [line.split("|")[1].strip() for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]

    assert rows[2:] == [mutant.kind for mutant in MUTANTS]
    assert len(MUTANTS) >= 30

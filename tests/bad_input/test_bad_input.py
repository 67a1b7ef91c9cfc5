"""Every row of the tables: the right error, with the true cause and a remedy; nothing left behind; then a good call."""

import pytest
from bad_input import of_commands, of_debug, of_engine, of_measure, of_model, of_runners

TABLES = (of_model, of_engine, of_runners, of_measure, of_debug, of_commands)
ROWS = [(table.__name__.rpartition(".of_")[2], row) for table in TABLES for row in table.ROWS]


@pytest.mark.parametrize(("room", "row"), ROWS, ids=[f"{room}: {row.name}" for room, row in ROWS])
def test_bad_input(room, row, tmp_path):
    row.check(tmp_path)

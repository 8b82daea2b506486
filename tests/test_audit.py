from datetime import UTC, datetime

from sqlalchemy import update

from medgem_node.ledger.tables import audit as table
from medgem_node.node import Node

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_an_untouched_trail_is_whole(node: Node) -> None:
    for n in range(5):
        node.audit.record("prepared", "1.2.1", NOON, images=n)

    assert node.audit.broken_at() is None
    assert [e.sequence for e in node.audit.entries("1.2.1")] == [1, 2, 3, 4, 5]


def test_an_altered_entry_is_found(node: Node) -> None:
    for n in range(5):
        node.audit.record("prepared", "1.2.1", NOON, images=n)

    with node.ledger.engine.begin() as connection:
        connection.execute(update(table).where(table.c.sequence == 3).values(detail='{"images": 9}'))

    assert node.audit.broken_at() == 3


def test_a_removed_entry_is_found(node: Node) -> None:
    for n in range(5):
        node.audit.record("prepared", "1.2.1", NOON, images=n)

    with node.ledger.engine.begin() as connection:
        connection.execute(table.delete().where(table.c.sequence == 2))

    assert node.audit.broken_at() == 2

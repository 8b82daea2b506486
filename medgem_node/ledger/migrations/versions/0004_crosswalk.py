"""Who stands behind a pseudonym: encrypted, under a key for each patient. What left before is not entered."""

import sqlalchemy as sa
from alembic import op

from medgem_node.ledger.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "crosswalk_patient",
        sa.Column("patient_number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=True),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("key_epoch", sa.Integer(), nullable=False),
        sa.Column("erased_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("patient_number", name=op.f("pk_crosswalk_patient")),
        sa.UniqueConstraint("digest", name=op.f("uq_crosswalk_patient_digest")),
    )
    op.create_index(op.f("ix_crosswalk_patient_key_epoch"), "crosswalk_patient", ["key_epoch"], unique=False)
    op.create_table(
        "crosswalk",
        sa.Column("crosswalk_id", sa.Integer(), nullable=False),
        sa.Column("patient_number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("pseudonym", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=True),
        sa.Column("original", sa.LargeBinary(), nullable=True),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_number"], ["crosswalk_patient.patient_number"], name=op.f("fk_crosswalk_patient_number")
        ),
        sa.PrimaryKeyConstraint("crosswalk_id", name=op.f("pk_crosswalk")),
        sa.UniqueConstraint(
            *("pseudonym", "kind", "epoch", "patient_number"),
            name=op.f("uq_crosswalk_pseudonym_kind_epoch_patient_number"),
        ),
    )
    op.create_index(op.f("ix_crosswalk_digest"), "crosswalk", ["digest"], unique=False)
    op.create_index(op.f("ix_crosswalk_patient_number"), "crosswalk", ["patient_number"], unique=False)


def downgrade() -> None:
    op.drop_table("crosswalk")
    op.drop_table("crosswalk_patient")

"""What radiologists answer: documents to be read (those that were received before too), and what each finding got."""

import sqlalchemy as sa
from alembic import op

from medgem_node.ledger.tables import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COPIED = "key, sop_instance_uid, study_instance_uid, sop_class_uid, patient_key, size_bytes, received_at"


def upgrade() -> None:
    op.create_table(
        "document",
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reader", sa.String(length=64), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("content_at", UtcDateTime(), nullable=True),
        sa.Column("replaces", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_document_study_instance_uid")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_document")),
    )
    op.create_index(op.f("ix_document_state_received_at"), "document", ["state", "received_at"], unique=False)
    op.create_index(op.f("ix_document_study_instance_uid"), "document", ["study_instance_uid"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("finding", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.job_id"], name=op.f("fk_feedback_job_id")),
        sa.ForeignKeyConstraint(["key"], ["document.key"], name=op.f("fk_feedback_key")),
        sa.PrimaryKeyConstraint("feedback_id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_job_id"), "feedback", ["job_id"], unique=False)
    op.create_index(op.f("ix_feedback_key"), "feedback", ["key"], unique=False)
    op.execute(
        f"INSERT INTO document ({COPIED}, state, reason, reader, complete, verified, replaces) "
        f"SELECT {COPIED}, 'waiting', '', '', false, false, '[]' FROM instance "
        "WHERE sop_class_uid LIKE '1.2.840.10008.5.1.4.1.1.88.%'"
    )


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_table("document")

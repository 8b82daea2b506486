"""The first tables: study, instance, job, result, delivery, audit."""

import sqlalchemy as sa
from alembic import op

from medgem_node.ledger.tables import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('audit',
    sa.Column('sequence', sa.Integer(), nullable=False),
    sa.Column('at', UtcDateTime(), nullable=False),
    sa.Column('event', sa.String(length=64), nullable=False),
    sa.Column('subject', sa.String(length=128), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('previous', sa.String(length=64), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('sequence', name=op.f('pk_audit')),
    sa.UniqueConstraint('digest', name=op.f('uq_audit_digest'))
    )
    op.create_table('study',
    sa.Column('study_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('received_at', UtcDateTime(), nullable=False),
    sa.Column('rule', sa.String(length=200), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('study_instance_uid', name=op.f('pk_study'))
    )
    op.create_index(op.f('ix_study_state_received_at'), 'study', ['state', 'received_at'], unique=False)
    op.create_table('instance',
    sa.Column('instance_id', sa.Integer(), nullable=False),
    sa.Column('sop_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('study_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('series_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('sop_class_uid', sa.String(length=64), nullable=False),
    sa.Column('transfer_syntax_uid', sa.String(length=64), nullable=False),
    sa.Column('modality', sa.String(length=16), nullable=False),
    sa.Column('patient_key', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=300), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('size_bytes', sa.BigInteger(), nullable=False),
    sa.Column('calling_ae', sa.String(length=16), nullable=False),
    sa.Column('called_ae', sa.String(length=16), nullable=False),
    sa.Column('received_at', UtcDateTime(), nullable=False),
    sa.ForeignKeyConstraint(['study_instance_uid'], ['study.study_instance_uid'], name=op.f('fk_instance_study_instance_uid')),
    sa.PrimaryKeyConstraint('instance_id', name=op.f('pk_instance')),
    sa.UniqueConstraint('sop_instance_uid', 'study_instance_uid', 'revision', name=op.f('uq_instance_sop_instance_uid_study_instance_uid_revision')),
    sa.UniqueConstraint('sop_instance_uid', 'study_instance_uid', 'sha256', name=op.f('uq_instance_sop_instance_uid_study_instance_uid_sha256'))
    )
    op.create_index(op.f('ix_instance_study_instance_uid'), 'instance', ['study_instance_uid'], unique=False)
    op.create_table('job',
    sa.Column('job_id', sa.String(length=64), nullable=False),
    sa.Column('study_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('study_revision', sa.Integer(), nullable=False),
    sa.Column('rule', sa.String(length=200), nullable=False),
    sa.Column('model', sa.String(length=100), nullable=False),
    sa.Column('version', sa.String(length=32), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('inputs', sa.Text(), nullable=False),
    sa.Column('originals', sa.Text(), nullable=False),
    sa.Column('send_to', sa.Text(), nullable=False),
    sa.Column('created_at', UtcDateTime(), nullable=False),
    sa.Column('due_at', UtcDateTime(), nullable=False),
    sa.Column('lease_until', UtcDateTime(), nullable=True),
    sa.Column('analysed_at', UtcDateTime(), nullable=True),
    sa.Column('reason', sa.String(length=100), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['study_instance_uid'], ['study.study_instance_uid'], name=op.f('fk_job_study_instance_uid')),
    sa.PrimaryKeyConstraint('job_id', name=op.f('pk_job')),
    sa.UniqueConstraint('study_instance_uid', 'study_revision', 'model', 'version', name=op.f('uq_job_study_instance_uid_study_revision_model_version'))
    )
    op.create_index(op.f('ix_job_state_due_at'), 'job', ['state', 'due_at'], unique=False)
    op.create_table('result',
    sa.Column('sop_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('job_id', sa.String(length=64), nullable=False),
    sa.Column('sop_class_uid', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=300), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['job.job_id'], name=op.f('fk_result_job_id')),
    sa.PrimaryKeyConstraint('sop_instance_uid', name=op.f('pk_result'))
    )
    op.create_index(op.f('ix_result_job_id'), 'result', ['job_id'], unique=False)
    op.create_table('delivery',
    sa.Column('delivery_id', sa.Integer(), nullable=False),
    sa.Column('sop_instance_uid', sa.String(length=64), nullable=False),
    sa.Column('job_id', sa.String(length=64), nullable=False),
    sa.Column('destination', sa.String(length=100), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('due_at', UtcDateTime(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['job.job_id'], name=op.f('fk_delivery_job_id')),
    sa.ForeignKeyConstraint(['sop_instance_uid'], ['result.sop_instance_uid'], name=op.f('fk_delivery_sop_instance_uid')),
    sa.PrimaryKeyConstraint('delivery_id', name=op.f('pk_delivery')),
    sa.UniqueConstraint('sop_instance_uid', 'destination', name=op.f('uq_delivery_sop_instance_uid_destination'))
    )
    op.create_index(op.f('ix_delivery_state_due_at'), 'delivery', ['state', 'due_at'], unique=False)
    op.create_index(op.f('ix_delivery_job_id'), 'delivery', ['job_id'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_delivery_state_due_at'), table_name='delivery')
    op.drop_table('delivery')
    op.drop_index(op.f('ix_result_job_id'), table_name='result')
    op.drop_table('result')
    op.drop_index(op.f('ix_job_state_due_at'), table_name='job')
    op.drop_table('job')
    op.drop_index(op.f('ix_instance_study_instance_uid'), table_name='instance')
    op.drop_table('instance')
    op.drop_index(op.f('ix_study_state_received_at'), table_name='study')
    op.drop_table('study')
    op.drop_table('audit')

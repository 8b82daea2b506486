"""What each job is to write, and of which kind each result is; jobs and results from before have an empty one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("profile", sa.Text(), nullable=False, server_default=""))
    op.add_column("result", sa.Column("kind", sa.String(length=100), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("result", "kind")
    op.drop_column("job", "profile")

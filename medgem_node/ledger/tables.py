"""The tables. Times are UTC; SQLite keeps them without zone, so they are written and read as UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC, aware on our side of the table."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Aware in, naive UTC down."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Naive UTC up, aware out."""
        return value.replace(tzinfo=UTC) if value else None


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("rule", String(200), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Index(None, "state", "received_at"),
)

instance = Table(
    "instance",
    metadata,
    Column("instance_id", Integer, primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("study_instance_uid", ForeignKey("study.study_instance_uid"), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("patient_key", String(64), nullable=False),
    Column("key", String(300), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    UniqueConstraint("sop_instance_uid", "study_instance_uid", "sha256"),
    UniqueConstraint("sop_instance_uid", "study_instance_uid", "revision"),
    Index(None, "study_instance_uid"),
)

job = Table(
    "job",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("study_instance_uid", ForeignKey("study.study_instance_uid"), nullable=False),
    Column("study_revision", Integer, nullable=False),
    Column("rule", String(200), nullable=False),
    Column("model", String(100), nullable=False),
    Column("version", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("originals", Text, nullable=False),
    Column("send_to", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime),
    Column("analysed_at", UtcDateTime),
    Column("reason", String(100), nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
    Column("profile", Text, nullable=False, default="", server_default=""),
    UniqueConstraint("study_instance_uid", "study_revision", "model", "version"),
    Index(None, "state", "due_at"),
)

result = Table(
    "result",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("job_id", ForeignKey("job.job_id"), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("key", String(300), nullable=False),
    Column("kind", String(100), nullable=False, default="", server_default=""),
    Index(None, "job_id"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("delivery_id", Integer, primary_key=True),
    Column("sop_instance_uid", ForeignKey("result.sop_instance_uid"), nullable=False),
    Column("job_id", ForeignKey("job.job_id"), nullable=False),
    Column("destination", String(100), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("sop_instance_uid", "destination"),
    Index(None, "state", "due_at"),
    Index(None, "job_id"),
)

document = Table(
    "document",
    metadata,
    Column("key", String(300), primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("study_instance_uid", ForeignKey("study.study_instance_uid"), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("patient_key", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("reader", String(64), nullable=False, default=""),
    Column("complete", Boolean, nullable=False, default=False),
    Column("verified", Boolean, nullable=False, default=False),
    Column("content_at", UtcDateTime),
    Column("replaces", Text, nullable=False, default="[]"),
    Index(None, "state", "received_at"),
    Index(None, "study_instance_uid"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("feedback_id", Integer, primary_key=True),
    Column("key", ForeignKey("document.key"), nullable=False),
    Column("job_id", ForeignKey("job.job_id"), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("finding", String(200), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "job_id"),
    Index(None, "key"),
)

crosswalk_patient = Table(  # everybody who was ever recorded; who is erased keeps neither key nor digest
    "crosswalk_patient",
    metadata,
    Column("patient_number", Integer, primary_key=True),
    Column("digest", String(32), unique=True),
    Column("wrapped_key", LargeBinary),
    Column("key_epoch", Integer, nullable=False),
    Column("erased_at", UtcDateTime),
    Index(None, "key_epoch"),
)

crosswalk = Table(
    "crosswalk",
    metadata,
    Column("crosswalk_id", Integer, primary_key=True),
    Column("patient_number", ForeignKey("crosswalk_patient.patient_number"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("pseudonym", String(64), nullable=False),
    Column("digest", String(32)),
    Column("original", LargeBinary),
    Column("recorded_at", UtcDateTime, nullable=False),
    UniqueConstraint("pseudonym", "kind", "epoch", "patient_number"),
    Index(None, "digest"),
    Index(None, "patient_number"),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("event", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
)

"""What an analysis amounts to, in codes: abnormal, nothing found, normal, or not analysed and why.

Standard codes wherever pydicom's dictionaries have one; `99MEDGEM` where they have none
(docs/decisions/0006-private-codes-for-answers.md). Silence is never written as normal.
"""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medgem_node.card import ModelCard
from medgem_node.finding import Analysis
from medgem_node.header import ascii_

_STATUS: dict[str, Code] = codes.cid6042.concepts
_SUMMARY: dict[str, Code] = codes.cid6047.concepts
_NORMALITY: dict[str, Code] = codes.cid222.concepts

PRIVATE = "99MEDGEM"
REASON = Code("REASON", PRIVATE, "Reason why the study was not analysed")
TIER = Code("CONFIDENCETIER", PRIVATE, "Confidence tier")
REVIEW = Code("REVIEW", PRIVATE, "To be reviewed before anything is made of it")
TIERS = {"high": codes.SCT.High, "medium": codes.SCT.Medium, "review": REVIEW}

REASONS = {
    # the study is none for the model
    "no-image": "The study holds no image",
    "modality": "The modality is not one that the model is meant for",
    "body-part": "The body part is not one that the model is meant for",
    "lateral-view": "The view is lateral",
    "oblique-view": "The view is oblique",
    "orientation": "The film is mirrored or turned, by its header",
    "localizer": "The image is a localizer",
    "for-processing": "The image is raw data, meant for further processing",
    "multi-frame": "The image has several frames",
    "colour-image": "The image is in colour",
    # the pixels show something else
    "rotated": "The image lies on its side",
    "upside-down": "The image stands upside down",
    "mirrored": "The image looks mirrored",
    "inverted-polarity": "The polarity contradicts the header",
    "not-a-frontal-chest": "The image does not look like a frontal chest radiograph",
    "implausible-anatomy": "What was marked cannot be the anatomy that was looked for",
    # the study cannot be read
    "not-dicom": "An instance is no valid DICOM",
    "no-uid": "A UID is missing",
    "header": "A value of the header that is needed is missing or invalid",
    "pixel-data": "The pixel data cannot be decoded",
    "pixel-data-truncated": "The pixel data is shorter than announced",
    "no-pixel-data": "The instance holds no pixel data",
    "transfer-syntax": "There is no decoder for the transfer syntax",
    "image-size": "The image is too small or too large",
    "constant-image": "The image shows one grey value only",
    "unreadable": "The study cannot be read",
    # something broke on the way
    "mixed-patients": "The instances name more than one patient",
    "not-deidentified": "No image could be de-identified with certainty",
    "model-rejected": "The model cannot be used",
    "out-of-memory": "The worker has not enough memory",
    "worker-error": "An unexpected error in the worker",
    "worker-died": "The worker ended in the middle of the job",
    "lease-expired": "The worker gave no answer in time",
    "bad-outcome": "The worker's answer cannot be used",
    "not-written": "The results could not be written",
    "failed": "The analysis failed",
}
"""The meaning of every reason that this product gives for an analysis that was not made."""

_VALUES = {  # Code Value holds 16 characters; in Long Code Value not every reader looks
    "implausible-anatomy": "no-anatomy",
    "inverted-polarity": "inverted",
    "not-a-frontal-chest": "no-frontal-chest",
    "pixel-data-truncated": "pixel-data-short",
}

FAILURES = (
    *("failed", "unreadable", "header", "pixel", "no-pixel", "transfer-syntax", "image-size", "constant-image"),
    *("worker", "out-of-memory", "model-rejected", "lease-expired", "bad-outcome", "not-written", "not-deidentified"),
    *("not-dicom", "no-uid"),
)
"""Reasons that begin so mean that the analysis was tried and broke; all others that it was not tried."""


def status(analysis: Analysis) -> Code:
    """How far the analysis came, of CID 6042."""
    if not analysis.applicable:
        return _STATUS["Failed" if analysis.reason.startswith(FAILURES) else "NotAttempted"]
    return _STATUS["PartiallySucceeded" if analysis.detail else "Succeeded"]


def reason(analysis: Analysis) -> Code:
    """Why there is no analysis: our identifier as a private code, with its meaning in words."""
    identifier = ascii_(analysis.reason, 64) or "failed"
    value = _VALUES.get(identifier, identifier)
    return Code(value if len(value) <= 16 else "other", PRIVATE, REASONS.get(identifier, "Another, see the comment"))


def overall(analysis: Analysis, card: ModelCard) -> list[tuple[Code, Code]]:
    """Question and answer for the study as a whole."""
    said = [(codes.DCM.SummaryOfDetections, status(analysis))]
    if not analysis.applicable:
        return [*said, (REASON, reason(analysis))]
    if analysis.findings:
        said.append((codes.DCM.CADProcessingAndFindingsSummary, _summary(analysis)))
    return [*said, (codes.DCM.OverallAssessment, assessment(analysis, card))]


def assessment(analysis: Analysis, card: ModelCard) -> Code:
    """Of CID 222. Nothing found is normal only where the card says so, and nothing was held back or is in doubt.

    A worklist may sort by it, so what is only offered for review does not make a study abnormal.
    """
    if any(f.is_asserted for f in analysis.findings):
        return _NORMALITY["Abnormal"]
    in_doubt = analysis.detail or any(f.tier == "review" for f in analysis.findings)
    is_normal = card.may_say_normal and analysis.findings and not in_doubt
    return _NORMALITY["Normal" if is_normal else "NormalityUndetermined"]


def _summary(analysis: Analysis) -> Code:
    """Of CID 6047."""
    which = "NotAllAlgorithmsSucceeded" if analysis.detail else "AllAlgorithmsSucceeded"
    found = any(f.present for f in analysis.findings)
    return _SUMMARY[which + ("WithFindings" if found else "WithoutFindings")]


def evaluations(tier: str) -> list[tuple[Code, Code]]:
    """How sure the answer to one question is, and what to do if it is not."""
    if not tier:
        return []
    said = [(TIER, TIERS[tier])]
    return [*said, (codes.DCM.Recommendation, REVIEW)] if tier == "review" else said

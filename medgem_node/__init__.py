"""medgem-node: a DICOM node that puts an AI detector into a hospital's normal workflow."""

__version__ = "0.1.0"

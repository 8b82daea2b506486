"""The DICOM network: acceptor, requestor, presentation contexts."""

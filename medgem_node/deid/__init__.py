"""De-identified copies: what leaves for the worker names nobody (PS3.15 Annex E).

Reading order: `deidentifier` (an instance becomes a copy), `options` and `table` with `types` (what is asked, what the
standard says), `actions` and `copier` (bytes walked once), `text` and `cleaning` (who is named, what words stay),
`pixels`, `burned_in`, `masking` (what frames show) and `faces`, `pseudonym`, `dates`, `keyring`, then `proof`, the gate
that distrusts all of these. `folder` does it for people who only want copies, `certificate` says what was done.
"""

import logging

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values, and no log may name a patient

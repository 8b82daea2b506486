"""De-identified copies: what leaves for the worker names nobody (PS3.15 Annex E).

Reading order: `profile` (what happens to an instance), `table` (the standard's rows), `text` (who is named),
`pixels` (the pixel element, undecoded), `layout` (bytes and elements), `pseudonym` (keyed, repeatable), `proof`
(the gate that distrusts all of these).
"""

import logging

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values, and no log may name a patient

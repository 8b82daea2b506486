"""medgem-node: a DICOM node that puts an AI detector into a hospital's normal workflow.

The data's path, and where each part is:

    C-STORE          dimse/scp.py    bytes as sent
    receive          inbox.py        durable (stores/), then known (ledger/), then 0x0000
    complete, route  routing.py      quiet for long enough; the first rule that matches chooses a model
    prepare          preparation.py  de-identified copies (deid/) into the exchange; a job is opened
    submit           engines/        a lease, and a worker somewhere
                     worker.py       copies in, detector/ on them, one Outcome out
    collect          pipeline.py     an Outcome becomes a state
    publish          publication.py  originals and analysis through writers/ into the archive
    deliver          outbox.py       destinations/, until each has everything

Reading order: `pipeline.py` (the steps on one page), `seams.py` (the five places where a part may be exchanged), then
the words that all of it speaks: `study.py`, `job.py`, `finding.py`, `card.py`, `errors.py`. `node.py` runs it all as
processes, `cli.py` is the command. Imports go one way; `[importlinter]` in setup.cfg says which.
"""

__version__ = "0.1.0"

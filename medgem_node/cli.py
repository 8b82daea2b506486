"""The command `medgem-node`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from medgem_node import __version__
from medgem_node.commands import (
    calibrate,
    card,
    crosswalk,
    data,
    deidentify,
    export,
    heads,
    images,
    index,
    models,
    pretrain,
    refine,
    service,
)
from medgem_node.commands.common import Run, common_arguments, say
from medgem_node.errors import MedgemError

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; see engines/local.py
_COMMANDS = (
    service,
    images,
    deidentify,
    crosswalk,
    models,
    card,
    data,
    pretrain,
    refine,
    heads,
    calibrate,
    export,
    index,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 wrong use or configuration."""
    options = _parser().parse_args(arguments)
    if not options.verbose:
        warnings.simplefilter("ignore")  # libraries warn of what strangers' headers hold, with the values
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except MedgemError as exc:
        say(f"medgem-node: {exc}", sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except Exception as exc:  # an edge: the last word, without what the exception may quote of a patient
        if options.verbose:
            raise
        say(f"medgem-node: internal error: {type(exc).__name__} (--verbose shows where)", sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medgem-node",
        description="A DICOM node that puts an AI detector into a hospital's workflow. Research use only.",
    )
    parser.add_argument("--version", action="version", version=f"medgem-node {__version__}")
    common = common_arguments()
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    for group in _COMMANDS:
        group.add(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())

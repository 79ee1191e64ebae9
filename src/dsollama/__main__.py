"""The program, also as `python -m dsollama`: a door that is open before the slow imports end."""

from __future__ import annotations

import sys
from typing import NoReturn

from dsollama import limits
from dsollama.cli import streams
from dsollama.errors import DsollamaError, InterruptedByUserError


def run() -> NoReturn:
    """Import the program and run it; what goes wrong around it is one sentence, too."""
    streams.prepare()
    try:
        limits.prepare()
        from dsollama.cli.app import main  # noqa: PLC0415
    except KeyboardInterrupt:
        _end(InterruptedByUserError("Stopped."))
    except DsollamaError as error:
        _end(error)
    except (MemoryError, SystemError, ImportError, OSError) as error:
        limit = limits.limit_error(error)
        if limit is None:
            raise
        _end(limit)
    try:
        main()
    finally:
        try:
            streams.finish()
        except DsollamaError as error:
            _end(error)


def _end(error: DsollamaError) -> NoReturn:
    streams.tell(error)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    run()

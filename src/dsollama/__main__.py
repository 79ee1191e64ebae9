"""The program, also as `python -m dsollama`: a door that is open before the slow imports end."""

from __future__ import annotations

import sys
from typing import NoReturn


def run() -> NoReturn:
    """Import the program and run it; what goes wrong on the way is one sentence, too."""
    try:
        from dsollama.cli.app import main  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("Error: Stopped.\n")
        sys.exit(130)
    except (MemoryError, ImportError, OSError) as error:
        from dsollama.limits import limit_error  # noqa: PLC0415

        limit = limit_error(error)
        if limit is None:
            raise
        sys.stderr.write(f"Error: {limit}\nHint: {limit.hint}\n")
        sys.exit(limit.exit_code)
    main()


if __name__ == "__main__":
    run()

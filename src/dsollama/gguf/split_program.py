"""llama.cpp's own merger: `llama-gguf-split --merge`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dsollama import programs
from dsollama.errors import ProgramFailedError, ProgramMissingError
from dsollama.privileges import child_identity

PROGRAM = "llama-gguf-split"
_HINT = "`--merger native` does the same in one pass."


def find_program(configured: str | None = None) -> Path:
    """Return the program: LLAMA_GGUF_SPLIT, one on PATH, or the one that this checkout built.

    Args:
        configured: path from the settings, if any.

    Raises:
        ProgramMissingError: it is nowhere.
    """
    if configured:
        found = programs.named(configured)
    else:
        found = next(programs.candidates(PROGRAM, f"llama.cpp/{PROGRAM}"), None)
    if found:
        return found
    raise ProgramMissingError(
        f"The program {configured or PROGRAM} was not found.",
        "Set LLAMA_GGUF_SPLIT to its path (after `llama.cpp/build.sh`: "
        f"LLAMA_GGUF_SPLIT=llama.cpp/{PROGRAM}), or leave out `--merger`: dsollama's own merge "
        "writes the same bytes.",
    )


def merge(program: Path, first_shard: Path, output: Path) -> None:
    """Merge the shards beside `first_shard` into `output`, which must not exist yet.

    Raises:
        ProgramFailedError: with the program's last line.
    """
    try:
        done = programs.run(
            [str(program), "--merge", str(first_shard), str(output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **child_identity(),
        )
    except OSError as error:
        raise ProgramFailedError(
            f"{program} cannot be started as the store's owner: {error.strerror}.",
            "Put it where every user can run it, such as /usr/local/bin.",
        ) from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ProgramFailedError(
            f"{PROGRAM} failed with code {done.returncode}: {lines[-1] if lines else 'no message'}",
            _HINT,
        )
    if not os.path.lexists(output):
        raise ProgramFailedError(f"{PROGRAM} ended well, and wrote nothing.", _HINT)

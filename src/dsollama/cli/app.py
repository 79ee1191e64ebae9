"""The program `dsollama`: its commands, and the one place where errors become exits."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from dsollama.cli import chat, demo, garbage, install, models, remove, template, verify
from dsollama.cli.streams import give_up_stdout, tell_words
from dsollama.errors import DsollamaError, InterruptedByUserError, StoreError
from dsollama.limits import limit_error

GC_THRESHOLD = 50_000
"""New objects between two garbage collections. Imports make hundreds of thousands that all stay:
at Python's 700 looking through them again and again takes a seventh of a command's start."""

app = typer.Typer(
    name="dsollama",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Put DeepSeek's 671B models into Ollama.\n\n"
    "`dsollama install UD-Q2_K_XL` finds the shards on the Hugging Face Hub, downloads and merges "
    "them in one pass into Ollama's store, and registers two names with the right chat template: "
    "deepseek-v3.1-terminus:UD-Q2_K_XL answers at once, the same name with -thinking thinks "
    "first. Then `ollama run` works as for any other model.",
    epilog="Try it without a download: dsollama demo",
)
install.register(app)
chat.register(app)
models.register(app)
remove.register(app)
garbage.register(app)
template.register(app)
verify.register(app)
demo.register(app)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from dsollama import __version__

        typer.echo(f"dsollama {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> NoReturn:
    """Run the program; every failure leaves as one sentence, a hint and its exit code."""
    gc.set_threshold(GC_THRESHOLD)
    atexit.register(gc.freeze)  # or the interpreter takes every import apart: 0.1 s
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
        signal.signal(signal.SIGHUP, _stop)
    try:
        app(prog_name="dsollama")
    except DsollamaError as error:
        _fail(error.code, str(error), error.hint, error.exit_code)
    except KeyboardInterrupt:
        stopped = InterruptedByUserError("Stopped.")
        _fail(stopped.code, str(stopped), "", stopped.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`dsollama list | head`): nothing to say.
        give_up_stdout()
        sys.exit(1)
    except Exception as error:
        limit = limit_error(error)
        if limit:
            _fail(limit.code, str(limit), limit.hint, limit.exit_code)
        if os.environ.get("DSOLLAMA_TRACEBACK"):
            raise
        if isinstance(error, OSError) and error.filename:
            place = StoreError(
                f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}.",
                "Look at that path, at who may enter its folders, and at the disk.",
            )
            _fail(place.code, str(place), place.hint, place.exit_code)
        _fail(
            "internal",
            f"dsollama has a bug: {type(error).__name__}: {error}",
            "Please report it with the output of the same command under DSOLLAMA_TRACEBACK=1.",
            1,
        )
    sys.exit(0)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Let `kill`, systemd's stop and a closed terminal do what Ctrl-C does."""
    raise KeyboardInterrupt


def _fail(code: str, message: str, hint: str, exit_code: int) -> NoReturn:
    tell_words(code, message, hint, exit_code)
    sys.exit(exit_code)

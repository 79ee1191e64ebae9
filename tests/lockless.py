"""A program for which flock(2) fails, as on a file system without locks.

A stand-in: no file system without locks can be mounted here (Lustre, or NFS without its lock
service, need servers of their own). A filter of system calls (seccomp) lets the kernel answer flock
with the very error number that those answer; everything else is real.
"""

from __future__ import annotations

import platform
import sys

import pytest

_FLOCK = {"x86_64": 73, "aarch64": 32}
"""Number of the system call, by machine."""

_BEGIN = """
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, number)]
steps += [(RETURN, 0, 0, ERRNO | error), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in steps))
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
call = ctypes.CDLL(None, use_errno=True).prctl
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
if call(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or call(SECCOMP, FILTER, program, 0, 0):
    sys.exit(f"no seccomp here: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def without_locks(error: int) -> list[str]:
    """Return what to put before a command, so that flock answers it with `error`."""
    number = _FLOCK.get(platform.machine())
    if sys.platform != "linux" or number is None:
        pytest.skip("system calls are filtered on Linux, x86_64 and aarch64, only")
    return [sys.executable, "-I", "-S", "-c", _BEGIN, str(number), str(error)]

"""Runs scripts of this folder in forked children, for which torch and transformers are loaded once.

Started with a socket as its stdin. Each message on it is its length in 8 bytes, which carry the child's three
standard files, and a JSON object with `script`, `folder`, `environment` and `cwd`. The answer, once the child
has ended, is its exit code in 8 bytes. Server and child end with the process that started the server.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

SET_PDEATHSIG = 1  # of prctl(2)


def main() -> None:
    """Serves until the socket is closed; one child at a time."""
    control = socket.socket(fileno=os.dup(0))
    while True:
        length, files, _, _ = socket.recv_fds(control, 8, 3)
        if not length:
            return
        message = received(control, int.from_bytes(length, "big"))
        pid = os.fork()
        if pid == 0:
            control.close()
            end_with_parent()
            run(json.loads(message), files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # the socket may be closed by now
            control.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def received(control: socket.socket, length: int) -> bytes:
    """Returns as many bytes; fewer if the other end is closed."""
    message = b""
    while len(message) < length and (part := control.recv(length - len(message))):
        message += part
    return message


def end_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)


def run(asked: dict[str, Any], files: list[int]) -> None:
    """Runs a script as if it had been started alone, and ends this process."""
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    code = 1
    try:
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["cwd"])
        sys.argv = [asked["script"], asked["folder"]]
        runpy.run_path(asked["script"], run_name="__main__")
        sys.stdout.flush()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    end_with_parent()
    import torch  # noqa: F401
    import transformers.models.auto.modeling_auto
    import transformers.models.auto.tokenization_auto
    import transformers.models.bert.modeling_bert  # noqa: F401

    main()

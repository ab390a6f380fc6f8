"""Starts our programs in processes that have already imported the large libraries.

A fresh interpreter imports torch and Lightning for five seconds, and a run is two interpreters or more. Here a server
imports the libraries once, and `python FILE.py ...` or `python -m alexnet_lab...` becomes a fork of it: a process with
its own pid, parent, session, signals, files and environment, which imports this project's modules itself, from its own
PYTHONPATH. Each has a server of its own, forked before its program begins, so what it starts is forked likewise. A
process appends its pid to the file named by `PROCESSES` in its environment. Linux only.
"""

import atexit
import contextlib
import ctypes
import fcntl
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

IMPORTED = (
    *("hydra.main", "hydra.core.plugins", "pydantic", "rich.live", "rich.table", "rich.tree", "yaml", "numpy"),
    *("PIL.Image", "torch.distributed.run", "torchvision.transforms.v2", "lightning.pytorch", "torchmetrics", "wandb"),
)
OURS = ("alexnet_lab", "torch.distributed.run")
PROCESSES = "ALEXNET_LAB_TEST_PROCESSES"
NUMBER = struct.Struct("q")
MOST_FILES = 64
PR_SET_CHILD_SUBREAPER = 36  # from Linux's <sys/prctl.h>

exec_in_fork = subprocess._fork_exec  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Start:
    """The state of a new process; `files`: numbers of its open files, `ignored`: its ignored signals."""

    arguments: Sequence[str]
    folder: str
    environment: dict[str, str]
    new_session: bool
    ignored: Sequence[int]
    files: Sequence[int]

    @property
    def words(self) -> Sequence[str]:
        """The arguments after `python` or `python -u`."""
        return self.arguments[2:] if self.arguments[1:2] == ["-u"] else self.arguments[1:]

    @property
    def is_ours(self) -> bool:
        """Whether the command is `python FILE.py ...`, or `python -m` with a module of `OURS`."""
        first, second = [*self.words, "", ""][:2]
        is_module = first == "-m" and second.startswith(OURS)
        return self.arguments[0] == sys.executable and (is_module or first.endswith(".py"))


class Server:
    """The server process that has imported the libraries. It ends with this one."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        own = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, env=own, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    @contextlib.contextmanager
    def forking(self) -> Iterator[None]:
        """A context in which `subprocess.Popen` of our programs lets the server fork."""
        subprocess._fork_exec = _fork_by(self._socket)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            subprocess._fork_exec = exec_in_fork  # type: ignore[attr-defined]


def _fork_by(server: socket.socket) -> Callable[..., int]:
    """Replaces `_posixsubprocess.fork_exec` in `subprocess`."""
    one_at_a_time = threading.Lock()

    def fork(*given: Any) -> int:
        start, files = _start_of(*given)
        if not start.is_ours:
            return int(exec_in_fork(*given))
        content = json.dumps(vars(start)).encode()
        with one_at_a_time, _taking_in_orphans():
            socket.send_fds(server, [NUMBER.pack(len(content))], files)
            server.sendall(content)
            (pid,) = NUMBER.unpack(_receive(server, NUMBER.size))
        return int(pid)

    return fork


def _start_of(*given: Any) -> tuple[Start, list[int]]:
    """The program to start and its open files, from the arguments of `_posixsubprocess.fork_exec`."""
    words, _, _, keep, folder, environment, stdin, _, _, stdout, _, stderr, _, errors, _, session, *_ = given
    pairs = [os.fsdecode(pair).partition("=") for pair in environment or ()]
    streams = [given if given != -1 else usual for usual, given in enumerate((stdin, stdout, stderr))]
    passed = [number for number in keep if number != errors]
    start = Start(
        [os.fsdecode(word) for word in words],
        os.fsdecode(folder or os.getcwd()),
        dict(os.environ) if environment is None else {name: value for name, _, value in pairs},
        bool(session),
        [int(number) for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN],
        [0, 1, 2, *passed],
    )
    return start, [*streams, *passed]


@contextlib.contextmanager
def _taking_in_orphans() -> Iterator[None]:
    """Make the new process a child of this one: its parent, a child of the server, ends at once."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _receive(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise EOFError("the other process has gone")
        content += part
    return content


def serve(connection: socket.socket) -> NoReturn:
    """Fork a process per request, until the connection is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the programs
    while True:
        head, files, _, _ = socket.recv_fds(connection, NUMBER.size, MOST_FILES)
        if not head:
            os._exit(0)
        start = Start(**json.loads(_receive(connection, NUMBER.unpack(head)[0])))
        connection.sendall(NUMBER.pack(_fork_twice(start, files)))
        for file in files:
            os.close(file)


def _fork_twice(start: Start, files: Sequence[int]) -> int:
    """Start a process described by `start`, not as a child of this one, and return its pid."""
    told, tell = os.pipe()
    between = os.fork()
    if between == 0:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            while os.getppid() == parent:  # a program that asks to end with its parent means the one that started it
                time.sleep(0.001)
            _become(start, files)
        os.write(tell, NUMBER.pack(pid))
        os._exit(0)
    os.waitpid(between, 0)
    (pid,) = NUMBER.unpack(os.read(told, NUMBER.size))
    os.close(told)
    os.close(tell)
    return int(pid)


def _become(start: Start, files: Sequence[int]) -> NoReturn:
    """Run the program described by `start`, as if this process had just started, and exit."""
    if start.new_session:
        os.setsid()
    _take_files(files, start.files)
    server, theirs = socket.socketpair()
    if os.fork() == 0:
        kept = theirs.detach()
        _take_files([kept], [0])
        serve(socket.socket(fileno=0))
    theirs.close()
    for number in signal.valid_signals():
        if number in start.ignored:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) is not signal.SIG_DFL and number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(start.folder)
    os.environ.clear()
    os.environ.update(start.environment)
    _open_streams(os.environ.get("PYTHONIOENCODING", ""))
    if PROCESSES in os.environ:
        with open(os.environ[PROCESSES], "a") as file:
            file.write(f"{os.getpid()}\n")
    subprocess._fork_exec = _fork_by(server)  # type: ignore[attr-defined]
    os._exit(_run(start.words))


def _take_files(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Move open files to these numbers and close all others."""
    above = max(*numbers, 2) + 1
    kept = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    os.closerange(0, above)
    for file, number in zip(kept, numbers, strict=True):
        os.dup2(file, number)
    os.closerange(above, os.sysconf("SC_OPEN_MAX"))


def _open_streams(wanted: str) -> None:
    """Open the standard streams on the files 0, 1 and 2, with `wanted`, ENCODING:ERRORS."""
    encoding, _, errors = wanted.partition(":")
    encoding = encoding or "utf-8"
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding=encoding, errors=errors or None, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding=encoding, errors=errors or None, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)


def _run(words: Sequence[str]) -> int:
    """Run the program after `python` on a command line and return its exit status."""
    status: Any = 0
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    own = os.getcwd() if words[0] == "-m" else os.path.dirname(os.path.abspath(words[0]))
    sys.path[:1] = [*([] if os.environ.get("PYTHONSAFEPATH") else [own]), *paths]
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return (status or 0) & 0xFF


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))

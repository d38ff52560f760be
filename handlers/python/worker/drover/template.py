"""A template: a worker that has loaded the app and runs nothing. Workers are forked
from it, as the daemon asks: they need not load the app, and share its memory until
they change it."""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

from drover import frames, unpatched

_PID = struct.Struct("<q")
_FDS = 3  # with each FORK: the worker's socket, its standard output, its standard error
_PARENT = 5.0  # how long a forked worker waits for its place below the reaper, in seconds


def unforkable(hooked: bool) -> str:
    """Why the app cannot be forked from; "" if it can. Hooked says that it has
    functions to be called after a fork."""
    library = unpatched.patched()
    if library:
        return f"{library} has replaced threads, and its event loop is not made for a fork"
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if threads:
        return f"it starts threads while it loads ({', '.join(sorted(threads)[:5])}), which a forked process does not have"
    try:
        more = len(os.listdir("/proc/self/task")) - 1
        opened = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
    except OSError:  # no /proc
        return ""
    if more > 0:
        return f"a library that it imports starts {more} threads while it loads, which a forked process does not have"
    devices = sorted({path for path in opened if path.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri"))})
    if devices:
        return f"it opens {', '.join(devices)} while it loads, and what a GPU's driver holds does not survive a fork"
    peers = [] if hooked else _peers()
    if peers:
        return (
            f"it opens connections while it loads ({', '.join(peers[:5])}), which forked workers would share;"
            " open them in a function marked with drover.after_fork"
        )
    return ""


def _peers() -> list[str]:
    """Where the connections go that this process has."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd == 3:
            continue  # the daemon's
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    found.append("%s:%s" % sock.getpeername()[:2])
        except OSError:  # no socket, or not connected, or closed meanwhile
            continue
    return sorted(found)


def serve(sock: socket.socket, reader: frames.Reader, writer: frames.Writer) -> None:
    """Forks at the daemon's request. It returns in each forked process, which then goes
    through the handshake like any other worker; in the template it does not return."""
    child = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the ones between us and a worker are collected by nobody
    writer.forked = True  # what code says that the app runs in a fork is not the template's to tell
    spare, error = _fork()
    got, fds = bytearray(), array.array("i")
    while spare is not None or error is not None:
        data, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(_FDS * fds.itemsize))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data:
            os._exit(0)  # the daemon is gone
        got += data
        while len(got) >= 4 and len(got) >= 4 + int.from_bytes(got[:4], "little"):
            length, kind = int.from_bytes(got[:4], "little"), got[4]
            temporary = bytes(got[5 : 4 + length])
            del got[: 4 + length]
            if kind == frames.DRAIN:
                os._exit(0)
            if kind != frames.FORK or len(fds) != _FDS:
                raise ValueError(f"a frame of type {kind} with {len(fds)} file descriptors, of a template")
            if spare is None or not spare.take(fds, temporary):  # it could not be forked, or was killed
                spare, error = _fork()
                if spare is None and error is None:
                    break
                if spare is not None and not spare.take(fds, temporary):
                    spare, error = None, "the process that was forked is gone"
            for fd in fds:
                os.close(fd)
            del fds[:]
            writer.json(frames.FORKED, {"pid": spare.pid} if spare is not None else {"error": error})
            writer.flush()
            # The next one is forked before it is requested: a worker then takes no longer than its handshake.
            spare, error = _fork()
            if spare is None and error is None:
                break
    signal.signal(signal.SIGCHLD, child)
    writer.forked = False
    reader.reset()
    writer.watch = frames.Watch(writer)


class _Spare:
    """A process that is forked and waits to be a worker."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock

    def take(self, fds: array.array[int], temporary: bytes) -> bool:
        """Gives it what makes it a worker; False if it is gone."""
        try:
            with self._sock as sock:
                sock.sendmsg([b"x" + temporary], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            return True
        except OSError:
            return False


def _fork() -> tuple[_Spare | None, str | None]:
    """Forks a process that waits to be a worker: (it, None), or (None, what is wrong);
    (None, None) in it, when it is one.

    It is forked by a process between us and it, which ends when the worker has heard
    from the daemon: so it becomes a child of the reaper, as other workers are, and the
    reaper knows of it by then."""
    opened: list[int] = []
    try:
        opened += os.pipe()  # its number comes there
        opened += os.pipe()  # closed by the worker: the one between may end
        ours, theirs = socket.socketpair()
    except OSError as error:
        for fd in opened:
            os.close(fd)
        return None, f"forking: {error}"
    pid_in, pid_out, ending, end = opened
    try:
        between = _bare_fork()
    except OSError as error:
        for fd in opened:
            os.close(fd)
        ours.close()
        theirs.close()
        return None, f"forking: {error}"
    if between == 0:
        os.close(pid_in)
        ours.close()
        _between(theirs, pid_out, ending, end)
        return None, None
    for fd in (pid_out, ending, end):
        os.close(fd)
    theirs.close()
    said = os.read(pid_in, 4096)
    os.close(pid_in)
    if len(said) == _PID.size:
        return _Spare(_PID.unpack(said)[0], ours), None
    ours.close()
    return None, said.decode("utf-8", "replace") or "the process between ended"


def _move(temporary: str) -> None:
    """Gives this process a temporary directory of its own."""
    try:
        os.mkdir(temporary, 0o700)
    except OSError:
        return  # it stays in the template's
    of_template, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), temporary
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir == of_template:
        tempfile.tempdir = temporary


def _bare_fork() -> int:
    """Forks without what Python and the app do before and after a fork: the process
    between runs no code of theirs."""
    try:
        import ctypes

        fork = ctypes.PyDLL(None, use_errno=True).fork
    except (ImportError, OSError, AttributeError):
        return os.fork()
    pid: int = fork()
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid


def _between(sock: socket.socket, tell: int, ending: int, end: int) -> None:
    """The process between; it returns in the worker only, when it is one.

    It does not ignore SIGCHLD, as the template does: the kernel would drop the exit status
    of a worker that ends before it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        pid = os.fork()
    except BaseException as error:  # of the app's own code, too
        os.write(tell, f"forking: {error}".encode()[:1000])
        os._exit(1)
    if pid > 0:
        sock.close()
        os.close(tell)
        os.close(end)
        os.read(ending, 1)
        os._exit(0)
    os.close(ending)
    parent = os.getppid()
    os.setpgid(0, 0)
    os.write(tell, _PID.pack(os.getpid()))
    os.close(tell)
    fds = array.array("i")
    with sock:
        data, ancillary, _, _ = sock.recvmsg(8192, socket.CMSG_SPACE(_FDS * fds.itemsize))
    for _, _, payload in ancillary:
        fds.frombytes(payload)
    if len(fds) != _FDS:
        os._exit(0)  # the template is gone
    if len(data) > 1:
        _move(os.fsdecode(data[1:]))
    for fd, to in zip(fds, (3, 1, 2)):
        os.dup2(fd, to, inheritable=to != 3)
        os.close(fd)
    with socket.socket(fileno=os.dup(3)) as daemon:
        daemon.recv(1, socket.MSG_PEEK)
    os.close(end)
    until = time.monotonic() + _PARENT
    while os.getppid() == parent and time.monotonic() < until:
        unpatched.sleep(0.0001)

"""A template: a worker that has loaded the app and runs no functions. Workers are forked
from it at the daemon's request. They need not load the app, and share its memory until
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
_PARENT = 5.0  # the time limit for a forked worker to become a child of the reaper, in seconds


def unforkable(hooked: bool) -> str:
    """Returns why workers cannot be forked from the app; "" if they can. hooked is true if it
    has functions to be called after a fork."""
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
    """Returns the remote addresses of this process's connections."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd == 3:
            continue  # the daemon's socket
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    found.append("%s:%s" % sock.getpeername()[:2])
        except OSError:  # not a socket, or not connected, or closed meanwhile
            continue
    return sorted(found)


def serve(sock: socket.socket, reader: frames.Reader, writer: frames.Writer) -> None:
    """Forks at the daemon's request. It returns in each forked process, which then goes
    through the handshake like any other worker; in the template it does not return."""
    child = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the processes between this one and a worker are not waited for
    writer.forked = True  # code that the app runs at a fork must not log as the template
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
            if spare is None or not spare.take(fds, temporary):  # forking failed, or the process was killed
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
            # The next one is forked before it is requested, so that starting a worker takes only its handshake.
            spare, error = _fork()
            if spare is None and error is None:
                break
    signal.signal(signal.SIGCHLD, child)
    writer.forked = False
    reader.reset()
    writer.watch = frames.Watch(writer)


class _Spare:
    """A forked process that waits to become a worker."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock

    def take(self, fds: array.array[int], temporary: bytes) -> bool:
        """Makes it a worker: sends it the worker's files. Returns False if it is gone."""
        try:
            with self._sock as sock:
                sock.sendmsg([b"x" + temporary], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            return True
        except OSError:
            return False


def _fork() -> tuple[_Spare | None, str | None]:
    """Forks a process that waits to become a worker. Returns (the process, None), or (None, an
    error); and (None, None) in the new process, when it has become a worker.

    A process between the template and the worker forks it, and ends when the worker has
    received HELLO. So the worker becomes a child of the reaper, like other workers, and the
    reaper knows it by then."""
    opened: list[int] = []
    try:
        opened += os.pipe()  # for the PID of the new process
        opened += os.pipe()  # the worker closes it: the process between may end
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
    """Moves this process to its own temporary directory."""
    try:
        os.mkdir(temporary, 0o700)
    except OSError:
        return  # it keeps the template's
    of_template, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), temporary
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir == of_template:
        tempfile.tempdir = temporary


def _bare_fork() -> int:
    """Forks without running the hooks of Python and of the app: the process between runs
    none of their code."""
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
    """Runs the process between. It returns only in the worker, when it has become one.

    It does not ignore SIGCHLD, as the template does: the kernel would drop the exit status
    of a worker that ends before it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        pid = os.fork()
    except BaseException as error:  # the app's hooks may raise anything
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

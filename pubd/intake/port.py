"""Listening sockets, and Twisted ports on them that survive the end of file descriptors.

Three things differ from ``reactor.listenTCP`` and ``listenUNIX``. A unix socket never has wider permissions than asked
for (Twisted binds it with the umask of the process, and opens one that systemd passed to everybody), and its lock is
the kernel's (Twisted's holds the pid: after a crash another process with that pid, usual in containers, keeps pubd
from starting). The last file descriptors are kept for the spool and the broker. And a port that cannot accept rests
before it tries again, where Twisted's would try at every turn of the reactor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet import tcp, unix
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from pubd.errors import InvalidOption
from pubd.intake.endpoint import Endpoint, Kind, exposed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
    from twisted.python.failure import Failure

#: Seconds for which a port rests that could not accept.
REST = 0.25
#: File descriptors that connections do not get; a quarter of them where there are few.
KEPT_BACK = 128

_PROBLEMS = {
    errno.EADDRINUSE: "is in use by another process; stop that one, or listen somewhere else",
    errno.EADDRNOTAVAIL: "has an address that this machine does not have; use one of its own",
    errno.EACCES: "may not be opened by this user: permission denied",
    errno.EPERM: "may not be opened by this user: not permitted",
    errno.ENOENT: "is in a directory that does not exist; create it (RuntimeDirectory= in a systemd unit)",
    errno.ENOTDIR: "is in something that is no directory; use another path",
    errno.EROFS: "is on a read-only file system; use another path",
}


class Opened:
    """A socket that listens for ``endpoint``, until :meth:`close`. Raises InvalidOption, naming the string."""

    def __init__(self, endpoint: Endpoint, reactor: Any, *, authenticated: bool) -> None:
        self.endpoint = endpoint
        self._lock: _Lock | None = None
        self._file: os.stat_result | None = None
        self.path = ""
        try:
            self.socket = self._open(reactor, authenticated)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                refuse(endpoint, error)
            raise

    def close(self) -> None:
        """Remove what was made in the file system; the socket itself belongs to its port by now, or is closed."""
        if self._file is not None:
            try:
                found = os.lstat(self.path)
                if (found.st_dev, found.st_ino) == (self._file.st_dev, self._file.st_ino):
                    os.unlink(self.path)
            except OSError:
                # Somebody else was quicker, or it is theirs now.
                pass
            self._file = None
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open(self, reactor: Any, authenticated: bool) -> socket.socket:
        kind = self.endpoint.kind
        if kind is Kind.SYSTEMD:
            return _passed(self.endpoint, reactor, authenticated)
        family = socket.AF_UNIX
        if kind is Kind.TCP:
            family = socket.AF_INET6 if ":" in self.endpoint.interface else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            if kind is Kind.UNIX:
                self._bind_path(opened)
            else:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                interface = self.endpoint.interface
                # With AI_NUMERICHOST nothing is looked up; a zone such as %eth0 becomes its number.
                (*_, address), *_ = socket.getaddrinfo(
                    interface or None,
                    self.endpoint.port,
                    family,
                    socket.SOCK_STREAM,
                    flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE,
                )
                opened.bind(address)
                opened.listen(self.endpoint.backlog)
        except BaseException:
            opened.close()
            raise
        return opened

    def _bind_path(self, opened: socket.socket) -> None:
        # As twistd may change its directory afterwards.
        path = self.path = os.path.abspath(self.endpoint.path)
        if self.endpoint.lockfile:
            self._lock = _Lock(path + ".lock", self.endpoint)
        _remove_stale(path, self.endpoint)
        # Linux gives a new socket file the mode of the socket, less the umask: so nobody else ever has it.
        os.fchmod(opened.fileno(), 0o600)
        opened.bind(path)
        self._file = os.lstat(path)
        opened.listen(self.endpoint.backlog)
        os.chmod(path, self.endpoint.mode)


def refuse(endpoint: Endpoint, error: OSError) -> NoReturn:
    """Raise InvalidOption with the sentence for what the kernel said."""
    said = error.strerror or str(error)
    problem = _PROBLEMS.get(error.errno or 0, f"cannot be opened: {said}")
    if error.errno == errno.EACCES and endpoint.kind is Kind.TCP and endpoint.port < 1024:
        problem += "; ports below 1024 take root or AmbientCapabilities=CAP_NET_BIND_SERVICE"
    raise InvalidOption(f"{endpoint.text!r} {problem}") from None


def _remove_stale(path: str, endpoint: Endpoint) -> None:
    """Remove the socket of a process that ended without doing so itself; refuse whatever else is there."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise InvalidOption(f"{endpoint.text!r}: {path} exists and is no socket; remove it, or use another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        os.unlink(path)
    elif code in (0, errno.EAGAIN, errno.EINPROGRESS, errno.EPROTOTYPE):
        refuse(endpoint, OSError(errno.EADDRINUSE, "in use"))
    elif code != errno.ENOENT:
        raise OSError(code, os.strerror(code))


class _Lock:
    """A file with the holder's pid, locked by flock and so released by the kernel whatever happens."""

    def __init__(self, path: str, endpoint: Endpoint) -> None:
        self._path = path
        self._pid = os.getpid()
        while True:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current():
                    break
                # Its holder removed it between our two steps.
                os.close(self._fd)
            except BlockingIOError:
                holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                os.close(self._fd)
                who = f"process {holder}" if holder else "another process"
                problem = f"is in use by {who}; stop that one, or use another path"
                raise InvalidOption(f"{endpoint.text!r} {problem}") from None
            except BaseException:
                os.close(self._fd)
                raise
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % self._pid, 0)

    def release(self) -> None:
        """Remove it and let the next one in."""
        if self._is_current():
            os.unlink(self._path)
        os.close(self._fd)

    def _is_current(self) -> bool:
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return False
        held = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _passed(endpoint: Endpoint, reactor: Any, authenticated: bool) -> socket.socket:
    """A copy of the socket that systemd passed; it stays systemd's, and can be used again after a stop."""
    which = f"index={endpoint.index}" if endpoint.name is None else f"name={endpoint.name}"
    try:
        # Twisted takes LISTEN_FDS out of the environment at its import: only it knows them now.
        adopted = serverFromString(reactor, f"systemd:domain=UNIX:{which}")
    except (IndexError, KeyError):
        raise InvalidOption(
            f"{endpoint.text!r}: systemd passed no such socket; start pubd by its socket unit, twistd with --nodaemon"
        ) from None
    assert isinstance(adopted, AdoptedStreamServerEndpoint)
    os.set_inheritable(adopted.fileno, False)
    passed = socket.socket(fileno=os.dup(adopted.fileno))
    try:
        if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise InvalidOption(f"{endpoint.text!r} does not listen: the socket unit needs ListenStream= and Accept=no")
        if passed.family is not socket.AF_UNIX and (
            why := exposed(endpoint, passed.getsockname()[0], authenticated=authenticated)
        ):
            raise InvalidOption(why)
        passed.setblocking(False)
    except BaseException:
        passed.close()
        raise
    return passed


def port(opened: Opened, factory: IProtocolFactory, reactor: Any) -> tcp.Port:
    """A port that accepts connections for ``factory`` from now on."""
    kind = UnixPort if opened.socket.family is socket.AF_UNIX else TcpPort
    made = kind(opened, factory, reactor)
    made.startListening()
    return made


class _Accepting(socket.socket):
    """Keeps the last file descriptors back, and remembers that accepting failed."""

    listen_text = ""
    ceiling = 0
    failed: OSError | None = None
    refused = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """As socket.accept; what comes with a descriptor beyond ``ceiling`` is closed at once."""
        while True:
            try:
                accepted, address = super().accept()
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno not in (errno.ECONNABORTED, errno.EPERM):
                    self.failed = error
                raise
            # The kernel gives the lowest free one: its number is as good as a count of all that are open.
            if accepted.fileno() < self.ceiling:
                return accepted, address
            accepted.close()
            self.refused += 1
            if self.refused % 100 == 0:
                # Others want their turn.
                raise BlockingIOError(errno.EAGAIN, "refused enough for now")


@implementer(ILogObserver)
def _unheard(_: LogEvent) -> None:
    pass


class _Port(tcp.Port):
    """What ports of pubd do otherwise than Twisted's."""

    log = Logger(namespace="pubd.intake.port")
    # Twisted's own would write three lines and more at every turn.
    _logger = Logger(namespace="pubd.intake.port.twisted", observer=_unheard)

    def _begin(self, opened: Opened, reactor: Any) -> None:
        self._opened = opened
        self._clock = reactor
        self._resting: IDelayedCall | None = None
        self._told: float | None = None
        self._kept_quiet = 0

    def startListening(self) -> None:
        """The socket listens already: take part in the reactor."""
        # Twisted's answer to EMFILE: it accepts with this one and closes, so that clients see an end.
        tcp._reservedFD.reserve()
        opened = self._opened
        listening = _Accepting(fileno=opened.socket.detach())
        listening.setblocking(False)
        listening.ceiling = _ceiling()
        self._shouldShutdown = False
        assert self.factory is not None
        self.factory.doStart()
        self.connected = True
        self.socket = listening
        self.fileno = listening.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self._realPortNumber = opened.endpoint.port
        self.startReading()

    def doRead(self) -> None:
        """Accept; when that failed for want of something, rest before the next time."""
        listening = self.socket
        assert isinstance(listening, _Accepting)
        super().doRead()
        failed, refused = listening.failed, listening.refused
        if failed is not None or refused:
            listening.failed, listening.refused = None, 0
            self._tell(failed, refused)
            self.stopReading()
            self._resting = self._clock.callLater(REST, self._again)

    def _again(self) -> None:
        self._resting = None
        if self.connected and not self.disconnecting:
            self.startReading()

    def _tell(self, failed: OSError | None, refused: int) -> None:
        """At most once a second."""
        self._kept_quiet += refused
        now = self._clock.seconds()
        if self._told is not None and now - self._told < 1:
            return
        self._told = now
        self.log.error(
            "{listen}: connections are refused, because file descriptors run out{count} ({reason}); raise LimitNOFILE= "
            "or ulimit -n, or lower max_connections",
            listen=self._opened.endpoint.text,
            count=f": {self._kept_quiet} so far" if self._kept_quiet else "",
            reason=failed.strerror if failed is not None else "the rest is kept for the spool and RabbitMQ",
        )
        self._kept_quiet = 0

    def _logConnectionLostMsg(self) -> None:
        self.log.debug("{listen}: closed", listen=self._opened.endpoint.text)

    def connectionLost(self, reason: Failure) -> None:
        """Closed: what is in the file system goes first, so that nobody connects to what does not answer."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._opened.close()
        # Not unix.Port's, which removes the path whosever it is.
        tcp.Port.connectionLost(self, reason)


class TcpPort(_Port):
    """IPv4 or IPv6."""

    def __init__(self, opened: Opened, factory: IProtocolFactory, reactor: Any) -> None:
        interface = opened.socket.getsockname()[0]
        tcp.Port.__init__(self, opened.endpoint.port, factory, opened.endpoint.backlog, interface, reactor)
        self._begin(opened, reactor)


class UnixPort(_Port, unix.Port):
    """A unix socket."""

    def __init__(self, opened: Opened, factory: IProtocolFactory, reactor: Any) -> None:
        unix.Port.__init__(self, opened.socket.getsockname(), factory, opened.endpoint.backlog, reactor=reactor)
        self._begin(opened, reactor)

    def startListening(self) -> None:
        """As of all ports here."""
        _Port.startListening(self)


def _ceiling() -> int:
    """Connections get descriptors below this number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 1 << 30
    return limit - min(KEPT_BACK, limit // 4)

"""The log of ``twistd pubd``: twistd's options say where it goes, the [log] table says how it looks."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from pubd.operate.log_file import LogFile
from pubd.operate.logs import Log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pubd.operate.log_options import LogOptions

#: Where a twistd in the background logs without --logfile.
_FILE = "twistd.log"


def give_observer(
    application: object, twistd: Mapping[str, Any] | None, options: LogOptions, environ: Mapping[str, str], reactor: Any
) -> Log | None:
    """Make twistd log as ``options`` have it, unless its own options name an observer: then None.

    ``application`` is what the service tree was given to; ``twistd`` are its options, None: it is not run by twistd.
    Raises SystemExit, with a sentence, if the log file cannot be opened.
    """
    if not isinstance(application, Componentized) or twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    if application.getComponent(ILogObserver, None) is not None:
        return None
    path = twistd.get("logfile")
    if twistd.get("nodaemon") and path in (None, "", "-"):
        log = Log(options, sys.stdout, environ)
    elif path == "-":
        # twistd says what is wrong with that.
        return None
    else:
        file = _file(path or _FILE, reactor)
        log = Log(options, file, environ, file.reopen_if_moved)
    application.setComponent(ILogObserver, log)
    return log


def _file(path: str, reactor: Any) -> LogFile:
    """As twistd has it: rotated when it is large, and by SIGUSR1; but see :class:`LogFile`."""
    try:
        file: LogFile = LogFile.fromFullPath(path)
    except OSError as error:
        raise SystemExit(f"pubd: the log file {path} cannot be opened: {error.strerror}") from None
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.signalled))
    return file

"""Who is at the other end of a connection, as far as the connection itself tells."""

from __future__ import annotations

import array
import socket
import struct
from typing import TYPE_CHECKING, Any

import attrs
from cryptography import x509
from twisted.internet.address import UNIXAddress

from pubd.intake.endpoint import is_loopback

if TYPE_CHECKING:
    from pubd.access import Access, Principal

# Linux's asm-generic/socket.h; Python has no name for it. Since Linux 4.13.
_SO_PEERGROUPS = 59
_UCRED = struct.Struct("iII")
#: Python's getsockopt gives this many bytes at most: 256 groups.
_GROUPS = 1024


@attrs.frozen(kw_only=True)
class Peer:
    """``local``: over a unix socket or loopback. ``uid`` and the like: of the process that connected to a unix socket.

    ``certificate``: the names (CN, DNS and URI) in a client's certificate that was verified; empty without one.
    """

    text: str
    """For logs."""
    local: bool
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    certificate: tuple[str, ...] = ()


def peer_of(transport: Any) -> Peer:
    """What ``transport`` tells of its peer; of TLS only once the handshake is over, as it is when data comes."""
    address = transport.getPeer()
    if isinstance(address, UNIXAddress):
        return _unix_peer(transport)
    host = getattr(address, "host", "")
    return Peer(
        text=f"{host} port {getattr(address, 'port', '?')}",
        local=is_loopback(host),
        certificate=_names(transport),
    )


def principal_of(transport: Any, access: Access) -> Principal | None:
    """Who comes over ``transport`` without a token: by certificate, by unix user, or the anonymous one where local.

    None: nobody that is known. Over TLS ask once data has come.
    """
    return principal_of_peer(peer_of(transport), access)


def principal_of_peer(peer: Peer, access: Access) -> Principal | None:
    """As :func:`principal_of`."""
    found = access.by_certificate(peer.certificate) if peer.certificate else None
    if found is None and peer.uid is not None and peer.gid is not None:
        found = access.by_peer(peer.uid, peer.gid, peer.groups)
    if found is None and peer.local:
        found = access.anonymous
    return found


def _unix_peer(transport: Any) -> Peer:
    handle: socket.socket = transport.getHandle()
    try:
        pid, uid, gid = _UCRED.unpack(handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        groups = _groups(handle)
    except OSError:
        # The connection is gone already, and whoever it was with it.
        return Peer(text="unix socket", local=True)
    return Peer(text=f"process {pid} of user {uid}", local=True, pid=pid, uid=uid, gid=gid, groups=groups)


def _groups(handle: socket.socket) -> tuple[int, ...]:
    """The supplementary groups; none where there are more than fit, or the kernel is too old to say."""
    try:
        return tuple(array.array("I", handle.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS)))
    except OSError:
        return ()


def _names(transport: Any) -> tuple[str, ...]:
    try:
        certificate = transport.getPeerCertificate()
    except AttributeError:
        return ()
    if certificate is None:
        return ()
    leaf: x509.Certificate = certificate.to_cryptography()
    try:
        names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += alternatives.get_values_for_type(x509.DNSName)
        names += alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        pass
    except ValueError:
        # Signed, but not to be read: nobody.
        return ()
    return tuple(dict.fromkeys(names))

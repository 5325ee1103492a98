"""The endpoint for a BrokerUrl: TCP for amqp, TLS and nothing less for amqps."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet import ssl
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from pubd.amqp.reasons import CertificateRefused
from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from twisted.internet.interfaces import IStreamClientEndpoint
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    from pubd.amqp.url import BrokerUrl

# The sentences of OpenSSL's X509_verify_cert_error_string, which pyOpenSSL does not hand out (crypto/x509/x509_txt.c).
_VERIFY_ERRORS = {
    2: "unable to get issuer certificate",
    7: "certificate signature failure",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    23: "certificate revoked",
    24: "invalid CA certificate",
    25: "path length constraint exceeded",
    26: "unsuitable certificate purpose",
    27: "certificate not trusted",
    28: "certificate rejected",
    66: "EE certificate key too weak",
    67: "CA certificate key too weak",
    68: "CA signature digest algorithm too weak",
}


def endpoint(reactor: Any, url: BrokerUrl, timeout: float) -> IStreamClientEndpoint:
    """An endpoint for one attempt to connect, given up after ``timeout`` seconds; it never falls back to plaintext.

    Reads the files that the URL names anew, so that renewed certificates are used; raises
    :class:`pubd.errors.InvalidOption` naming parameter and file where one cannot be used.
    """
    tcp = HostnameEndpoint(reactor, url.host, url.port, timeout=timeout)
    return wrapClientTLS(_creator(url), tcp) if url.tls else tcp


def check_files(url: BrokerUrl) -> None:
    """Raise :class:`pubd.errors.InvalidOption` if a file that the URL names cannot be used now."""
    if url.tls:
        _creator(url)


def _creator(url: BrokerUrl) -> _VerifyingCreator:
    options: dict[str, Any] = {}
    if url.certfile is not None and url.keyfile is not None:
        certificate, *chain = _certificates("certfile", url.certfile)
        options |= {"certificate": certificate, "privateKey": _key(url.keyfile), "extraCertChain": chain}
    if url.verify:
        options["trustRoot"] = ssl.platformTrust()
        if url.cacertfile is not None:
            authorities = [
                ssl.Certificate(crypto.X509.from_cryptography(authority))
                for authority in _certificates("cacertfile", url.cacertfile)
            ]
            options["trustRoot"] = ssl.trustRootFromCertificates(authorities)
    # Connections without verification are what verify_none asks for in so many words.
    certificate_options = ssl.CertificateOptions(**options)
    try:
        certificate_options.getContext()
    except SSL.Error:
        raise _unusable("keyfile", str(url.keyfile), f"it does not belong to certfile {url.certfile}") from None
    return _VerifyingCreator(
        options=certificate_options,
        expected=_ascii(url.server_name or url.host),
        send_name=url.send_server_name,
        verify=url.verify,
    )


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen(kw_only=True)
class _VerifyingCreator:
    """What optionsForClientTLS makes, but telling OpenSSL's reason and whose certificate it was.

    (Twisted's own says "certificate verify failed" for any reason, and "DNSMismatch" without the names.)
    """

    options: ssl.CertificateOptions
    expected: str
    send_name: bool
    verify: bool

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """One TLS connection, as IOpenSSLClientConnectionCreator asks."""
        connection = self.options.clientConnectionForTLS(tlsProtocol)
        if self.send_name and not _is_address(self.expected):
            connection.set_tlsext_host_name(self.expected.encode("ascii"))
        if self.verify:
            mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            connection.set_verify(mode, self._verification(tlsProtocol.failVerification))
        return connection

    def _verification(
        self, refuse: Callable[[Failure], None]
    ) -> Callable[[SSL.Connection, crypto.X509, int, int, int], bool]:
        def verify(connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int) -> bool:
            del connection
            # An exception in a callback of OpenSSL vanishes: nothing may leave it, and whatever goes wrong refuses.
            try:
                problem = self._problem(certificate, number, depth, bool(ok))
            except Exception as error:
                problem = f"certificate verify failed: {error}"
            if problem is not None:
                refuse(Failure(CertificateRefused(problem)))
            return problem is None

        return verify

    def _problem(self, certificate: crypto.X509, number: int, depth: int, ok: bool) -> str | None:
        if not ok:
            return f"certificate verify failed: {_VERIFY_ERRORS.get(number, f'OpenSSL verify error {number}')}"
        if depth != 0:
            return None
        leaf = certificate.to_cryptography()
        try:
            if _is_address(self.expected):
                verify_certificate_ip_address(leaf, self.expected)
            else:
                verify_certificate_hostname(leaf, self.expected)
        except (VerificationError, CertificateError):
            return f"certificate is for {_names(certificate)}, not for {self.expected!r}"
        return None


def _ascii(host: str) -> str:
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidOption(f"broker URL: host: {host!r} is not a host name") from None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _names(certificate: crypto.X509) -> str:
    try:
        alternatives = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "no host at all (it has no subjectAltName)"
    names = [
        *alternatives.value.get_values_for_type(x509.DNSName),
        *map(str, alternatives.value.get_values_for_type(x509.IPAddress)),
    ]
    return ", ".join(repr(name) for name in names) or "no host at all"


def _read(parameter: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unusable(parameter, path, error.strerror or str(error)) from None


def _certificates(parameter: str, path: str) -> list[x509.Certificate]:
    content = _read(parameter, path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise _unusable(parameter, path, "it contains no certificate in PEM format, or a damaged one") from None


def _key(path: str) -> PrivateKeyTypes:
    content = _read("keyfile", path)
    try:
        return load_pem_private_key(content, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise _unusable("keyfile", path, "it contains no unencrypted private key in PEM format") from None


def _unusable(parameter: str, path: str, problem: str) -> InvalidOption:
    return InvalidOption(f"broker URL: {parameter}: {path}: {problem}")

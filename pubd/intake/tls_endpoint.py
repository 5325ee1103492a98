"""TLS for listening: certificates from files, which are read again when they were renewed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from twisted.internet.interfaces import IAddress
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    from pubd.intake.endpoint import Endpoint, TlsFiles


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """TLS 1.2 and newer with the files of ``endpoint``; with its ``client_ca`` clients must show a certificate.

    Raises :class:`pubd.errors.InvalidOption`, naming string, option and file, where one cannot be used.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._context = self._read()

    def reload(self) -> None:
        """Use what is in the files now for new connections; raises as construction does, and then nothing changes."""
        self._context = self._read()

    def become(self, other: Certificates) -> None:
        """Use what ``other`` has read for new connections."""
        self._endpoint, self._context = other._endpoint, other._context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """One TLS connection, as IOpenSSLServerConnectionCreator asks."""
        del tlsProtocol
        return SSL.Connection(self._context, None)

    def _read(self) -> SSL.Context:
        files = self._endpoint.tls
        assert files is not None
        certificate, *chain = self._certificates("certificate", files.certificate)
        if files.chain is not None:
            chain += self._certificates("extraCertChain", files.chain)
        options: dict[str, Any] = {
            "certificate": certificate,
            "extraCertChain": chain,
            "privateKey": self._key(files),
            "raiseMinimumTo": ssl.TLSVersion.TLSv1_2,
        }
        if files.client_ca is not None:
            options["trustRoot"] = ssl.trustRootFromCertificates(
                [
                    ssl.Certificate(crypto.X509.from_cryptography(each))
                    for each in self._certificates("client_ca", files.client_ca)
                ]
            )
        try:
            context: SSL.Context = ssl.CertificateOptions(**options).getContext()
        except (SSL.Error, ValueError, TypeError):
            raise self._unusable("key", files.key, f"it does not belong to {files.certificate}") from None
        # Twisted's own answer to a client that offers protocols (ALPN), as curl does, is to refuse it.
        context.set_alpn_select_callback(_protocol)
        return context

    def _certificates(self, option: str, path: str) -> list[x509.Certificate]:
        content = self._content(option, path)
        try:
            return x509.load_pem_x509_certificates(content)
        except ValueError:
            problem = "it contains no certificate in PEM format, or a damaged one"
            raise self._unusable(option, path, problem) from None

    def _key(self, files: TlsFiles) -> PrivateKeyTypes:
        content = self._content("key", files.key)
        try:
            return load_pem_private_key(content, password=None)
        except (TypeError, ValueError, UnsupportedAlgorithm):
            problem = "it contains no unencrypted private key in PEM format"
            raise self._unusable("key", files.key, problem) from None

    def _content(self, option: str, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise self._unusable(option, path, getattr(error, "strerror", None) or str(error)) from None

    def _unusable(self, option: str, path: str, problem: str) -> InvalidOption:
        return InvalidOption(f"{self._endpoint.text!r}: {option}: {path}: {problem}")


def _protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    """HTTP/1.1 for whoever offers it; whoever offers other protocols only is told of none, and may go on."""
    return _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


_HTTP = b"http/1.1"


class TlsFactory(TLSMemoryBIOFactory):
    """TLS around a factory that may refuse connections, which Twisted's own does not expect."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """None where the wrapped factory gives none: the connection is closed before a byte of TLS."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)

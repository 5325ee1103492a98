"""Certificates for TLS tests, made by trustme: good ones, and the ways in which one is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from tests.rabbitmq import TlsFiles


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Paths of one certificate chain and its private key, PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """One CA and what it signed; `other_ca` signed nothing of it. `client` has the common name `guest`."""

    ca: Path
    other_ca: Path
    server: Identity
    other_host: Identity
    expired: Identity
    client: Identity
    unknown_client: Identity

    def listener(self, identity: Identity | None = None) -> TlsFiles:
        """What a Node's TLS listener shows, `server` unless told."""
        shown = identity or self.server
        return TlsFiles(ca=self.ca, cert=shown.cert, key=shown.key)


def make_certificates(directory: Path) -> Certificates:
    """Write everything under `directory`; `server` is good for localhost and 127.0.0.1, `expired` was until 2020."""
    ca, other_ca = trustme.CA(), trustme.CA()

    def write(name: str, leaf: trustme.LeafCert) -> Identity:
        identity = Identity(cert=directory / f"{name}.pem", key=directory / f"{name}.key")
        identity.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(identity.key))
        return identity

    for name, authority in (("ca", ca), ("other-ca", other_ca)):
        authority.cert_pem.write_to_path(str(directory / f"{name}.pem"))
    here = ("localhost", "127.0.0.1")
    begin, end = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    return Certificates(
        ca=directory / "ca.pem",
        other_ca=directory / "other-ca.pem",
        server=write("server", ca.issue_cert(*here)),
        other_host=write("other-host", ca.issue_cert("elsewhere.example")),
        expired=write("expired", ca.issue_cert(*here, not_before=begin, not_after=end)),
        client=write("client", ca.issue_cert("guest@pubd.example", common_name="guest")),
        unknown_client=write("unknown-client", other_ca.issue_cert("guest@pubd.example", common_name="guest")),
    )

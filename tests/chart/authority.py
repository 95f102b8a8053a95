"""An authority, and Secrets with certificates that it signs."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


class Authority:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.pem = self._sign("authority", self.key, [basic]).public_bytes(PEM)

    def _sign(self, name, key, extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        subject, issuer = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, "authority")
        )
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def secret(self, *names):
        """Contents of a Secret as cert-manager makes it, for these DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        extensions = [
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]),
            x509.ExtendedKeyUsage(usages),
        ]
        certificate = self._sign(names[0][:60], key, extensions)
        form = serialization.PrivateFormat.PKCS8
        return {
            "tls.crt": certificate.public_bytes(PEM),
            "tls.key": key.private_bytes(PEM, form, serialization.NoEncryption()),
            "ca.crt": self.pem,
        }

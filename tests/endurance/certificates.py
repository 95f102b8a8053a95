"""An authority and certificates of its making, as files."""

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(
            _name("endurance"), self.key, x509.BasicConstraints(ca=True, path_length=None)
        )

    def _sign(self, subject, key, extension, begins=-3600, ends=86_400):
        """Holds from then until then, in seconds from now."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(_name("endurance"))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + datetime.timedelta(seconds=begins))
        builder = builder.not_valid_after(now + datetime.timedelta(seconds=ends))
        return builder.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())

    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def caller(self, begins, ends):
        """A key and a certificate of a caller that holds from then until then, in seconds from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("caller")])
        certificate = self._sign(_name("caller"), key, names, begins, ends)
        return _pem(key), certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, folder):
        """A new certificate for localhost, each file put into its place at once."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        certificate = self._sign(_name("localhost"), key, names)
        files = {
            "cert.pem": certificate.public_bytes(serialization.Encoding.PEM),
            "key.pem": _pem(key),
        }
        for name, contents in files.items():
            draft = folder / f"{name}.draft"
            draft.write_bytes(contents)
            os.replace(draft, folder / name)

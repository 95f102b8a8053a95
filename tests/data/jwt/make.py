#!/usr/bin/env python3
"""Makes an RSA key set and two tokens signed with it. The private key is not kept."""

import base64
import json
import pathlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

HERE = pathlib.Path(__file__).parent
CLAIMS = {"iss": "https://login", "aud": "onnxd", "sub": "svc", "exp": 4102444800}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = key.public_key().public_numbers()
jwk = {"kty": "RSA", "kid": "r", "n": number(public.n), "e": number(public.e)}
(HERE / "jwks.json").write_text(json.dumps({"keys": [jwk]}) + "\n")
pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=hashes.SHA384.digest_size)
for name, scheme, digest in [
    ("RS256", padding.PKCS1v15(), hashes.SHA256()),
    ("PS384", pss, hashes.SHA384()),
]:
    head = {"alg": name, "kid": "r"}
    message = ".".join(encoded(json.dumps(part).encode()) for part in (head, CLAIMS))
    signature = key.sign(message.encode(), scheme, digest)
    (HERE / f"{name}.token").write_text(f"{message}.{encoded(signature)}\n")

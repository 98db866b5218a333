"""Secrets at rest: a data key per tenant, wrapped by a master key that lives in a file.

Envelope encryption with AES-256-GCM. A ciphertext is bound to its place by associated data (tenant
and purpose), so that a row copied to another tenant or column doesn't decrypt. The master key
file holds one key a line, newest first; older ones only unwrap, which makes rotation possible.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


def new_key() -> bytes:
    """32 random bytes."""
    return AESGCM.generate_key(bit_length=256)


def seal(key: bytes, plain: bytes, context: str) -> bytes:
    """Encrypt ``plain``; ``context`` says where it belongs and must be given again to open it."""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, context.encode())


def unseal(key: bytes, sealed: bytes, context: str) -> bytes:
    """Decrypt; raises ``InvalidTag`` if key, bytes or context are not the ones of ``seal``."""
    return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], context.encode())


def read_master_keys(file: Path) -> list[bytes]:
    """The master keys of a file, newest first."""
    return [base64.urlsafe_b64decode(line) for line in file.read_text().split() if line]


def write_master_key(file: Path, keys: list[bytes] | None = None) -> None:
    """Put a new master key in front of ``keys``; the file is readable by its owner only."""
    lines = [base64.urlsafe_b64encode(key).decode() for key in [new_key(), *(keys or [])]]
    temporary = file.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write("\n".join(lines) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    temporary.rename(file)


def wrap(master: list[bytes], key: bytes, context: str) -> bytes:
    """A data key under the newest master key."""
    return seal(master[0], key, context)


def unwrap(master: list[bytes], wrapped: bytes, context: str) -> bytes:
    """A data key, whichever of the master keys wrapped it."""
    for candidate in master:
        try:
            return unseal(candidate, wrapped, context)
        except InvalidTag:
            continue
    raise InvalidTag

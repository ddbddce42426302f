"""The cluster secret: one text to type, from which both nodes make all their keys.

256 random bits. Each purpose gets a key of its own by HKDF-SHA256 (RFC 5869). So the same
secret gives the same keys on both nodes, nothing secret travels, and no key reveals another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets

from asha.errors import UserError

PATH = "/etc/asha/secret"

SECRET_BYTES = 32
# 32 + 3 bytes are 56 symbols of 5 bits exactly: no padding, one way to write each.
CHECK_BYTES = 3
GROUP = 4
SYMBOLS = (SECRET_BYTES + CHECK_BYTES) * 8 // 5

# Crockford's base32 (crockford.com/base32.html): no I, L, O, U, which are misread.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
LOOK_ALIKES = str.maketrans("OIL", "011")
BETWEEN = str.maketrans("", "", " \t\r\n-_.\u2010\u2011\u2012\u2013\u2014\u00a0")

SALT = b"asha cluster secret"


class Secret:
    """Compare with ``==``. Printing it does not show it."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes")
        self._raw = raw

    @classmethod
    def generate(cls) -> Secret:
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, typed: str) -> Secret:
        """The secret that a person typed. Raises ValueError with words for that person."""
        symbols = typed.upper().translate(BETWEEN).translate(LOOK_ALIKES)
        if not symbols:
            raise ValueError("nothing was typed")
        for place, symbol in enumerate(symbols):
            if symbol not in ALPHABET:
                raise ValueError(
                    f"{symbol!r} in group {place // GROUP + 1} is not one of the secret's "
                    "letters and digits"
                )
        if len(symbols) != SYMBOLS:
            raise ValueError(
                f"it has {len(symbols)} letters and digits, the secret has {SYMBOLS}: "
                f"{SYMBOLS // GROUP} groups of {GROUP}"
            )
        both = base64.b32decode(symbols.translate(str.maketrans(ALPHABET, RFC4648)))
        raw, check = both[:SECRET_BYTES], both[SECRET_BYTES:]
        if not hmac.compare_digest(_check(raw), check):
            raise ValueError("the secret's checksum is wrong: a letter or digit was mistyped")
        return cls(raw)

    @classmethod
    def read(cls, path: str | os.PathLike[str] = PATH) -> Secret:
        """The secret in a file. FileNotFoundError without the file; UserError if others could
        have written it."""
        with open(path, encoding="ascii", errors="replace") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o077:
                raise UserError(
                    f"{path} can be read by others (mode {status.st_mode & 0o7777:o})",
                    f"chmod 600 {path}",
                )
            if status.st_uid not in (0, os.geteuid()):
                raise UserError(f"{path} belongs to another user", f"chown root:root {path}")
            text = file.read()
        try:
            return cls.parse(text)
        except ValueError as wrong:
            raise UserError(f"{path}: {wrong}",
                            "copy it from the other node's file; where there is no other node: "
                            f"rm {path}; asha secret rotate") from None

    @property
    def typed(self) -> str:
        """The form that is shown and typed: 14 groups of 4, joined by dashes."""
        both = base64.b32encode(self._raw + _check(self._raw)).decode("ascii")
        symbols = both.translate(str.maketrans(RFC4648, ALPHABET))
        return "-".join(symbols[i : i + GROUP] for i in range(0, SYMBOLS, GROUP))

    @property
    def text(self) -> str:
        """The contents of its file, which must have mode 600."""
        return self.typed + "\n"

    def corosync_authkey(self) -> str:
        """256 printable characters.

        corosync-keygen(8) makes files of this length. libknet takes the first 32 of
        them for AES-256, so each holds the 6 bits of base64 and not the 4 of hex.
        """
        return base64.urlsafe_b64encode(self._key("corosync authkey", 192)).decode("ascii")

    def drbd(self) -> str:
        """48 hex digits; drbd.conf(5) takes up to 64 characters."""
        return self._key("drbd shared-secret", 24).hex()

    def ami(self) -> str:
        """40 hex digits: no character that manager.conf would take as a comment."""
        return self._key("asterisk manager secret", 20).hex()

    def join_key(self) -> bytes:
        """32 bytes, by which the second node proves that it has the secret."""
        return self._key("join proof", 32)

    def key_id(self) -> str:
        """Four letters and digits by which people and programs distinguish secrets.

        Not a secret: 20 bits that reveal nothing about the other keys.
        """
        number = int.from_bytes(self._key("key id", 4), "big")
        return "".join(ALPHABET[number >> shift & 31] for shift in (15, 10, 5, 0))

    def _key(self, purpose: str, length: int) -> bytes:
        return hkdf_sha256(self._raw, SALT, f"asha 1 {purpose}".encode(), length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return "Secret(not shown)"


def hkdf_sha256(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256: extract, then expand to ``length`` bytes (at most 8160)."""
    if not 0 < length <= 255 * hashlib.sha256().digest_size:
        raise ValueError(f"HKDF-SHA256 gives 1 to 8160 bytes, not {length}")
    extracted = hmac.digest(salt or bytes(32), material, "sha256")
    block, expanded = b"", b""
    counter = 1
    while len(expanded) < length:
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        expanded += block
        counter += 1
    return expanded[:length]


def _check(raw: bytes) -> bytes:
    """Only stored where the secret itself is, so a plain hash is enough."""
    return hashlib.sha256(raw).digest()[:CHECK_BYTES]

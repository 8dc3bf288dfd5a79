"""The keys by which an Android device recognises this user: adb's own, so that a device asks only once for both."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from adb_shell.auth.keygen import encode_pubkey, get_user_info, keygen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from device_agents.errors import DeviceUnauthorised


class Signer:
    """One private key, with the methods that adb_shell calls."""

    def __init__(self, path: Path) -> None:
        """`DeviceUnauthorised` if the file cannot be read or is not an RSA key of 2048 bits."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as exc:
            raise DeviceUnauthorised(f"{path} cannot be read as a private key; move it away, and a new one will be made") from exc
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != 2048:
            raise DeviceUnauthorised(f"{path} is not an RSA key of 2048 bits; move it away, and a new one will be made")
        self._key, self._path = key, path

    def Sign(self, token: bytes) -> bytes:
        return self._key.sign(token, padding.PKCS1v15(), Prehashed(hashes.SHA1()))

    def GetPublicKey(self) -> bytes:
        """The public key in Android's format, with the name of its owner, which the device shows when it asks."""
        encoded: bytes = encode_pubkey(str(self._path))
        return base64.b64encode(encoded) + str(get_user_info()).encode()


def signers() -> list[Signer]:
    """All keys: the user's own, which is made if there is none and offered to a device that knows none of them, and then the files,
    and the files *.adb_key of folders, that ANDROID_VENDOR_KEYS names."""
    own = Path.home() / ".android" / "adbkey"
    if not own.exists():
        _make(own)
    named = [Path(name) for name in os.environ.get("ANDROID_VENDOR_KEYS", "").split(os.pathsep) if name]
    files = [file for path in named for file in (sorted(path.glob("*.adb_key")) if path.is_dir() else [path])]
    return [Signer(path) for path in (own, *files)]


def _make(path: Path) -> None:
    """Make a key. Its file is unreadable for others before anything is written to it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.touch(mode=0o600)
        keygen(str(fresh))
        Path(f"{fresh}.pub").replace(f"{path}.pub")
        fresh.replace(path)
    except OSError as exc:
        raise DeviceUnauthorised(
            f"no key for adb can be written to {path}: {exc.strerror or exc}; make the folder writable"
        ) from exc

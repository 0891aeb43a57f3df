#!/usr/bin/env python3
"""Makes the envelope vectors, once, by docs/architecture.md#crypto. Shares no code with src/crypto.

    pip install cryptography && python3 make_envelopes.py

Inputs are fixed, so running it again changes nothing. The files it made must open for ever. A new
envelope format gets a new folder beside `envelopes_v1`. Keys are plainly fake on purpose.
"""
import base64
import hashlib
import hmac
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = pathlib.Path(__file__).parent
PROJECT = bytes(range(0x10, 0x20))
KEY_ID = bytes(range(0x80, 0x90))
ZERO = bytes(16)
MASTER_SECRET = "correct horse battery staple, and thirty more"
MASTER_SALT = bytes(range(16))
ITERATIONS = 100_000
ROOT = hashlib.pbkdf2_hmac("sha256", MASTER_SECRET.encode(), MASTER_SALT, ITERATIONS, 32)


def hkdf(key, salt, info):  # RFC 5869, one block
    prk = hmac.new(salt, key, "sha256").digest()
    return hmac.new(prk, info + b"\x01", "sha256").digest()


def fixed(label, size):
    return hashlib.sha256(b"vector " + label.encode()).digest()[:size]


def header(master_key_version):
    return b"\x01" + struct.pack(">I", master_key_version)


def aad(kind, master_key_version, project, key_id, version, provider):
    return (b"watchllm_keys aad v1" + bytes([kind]) + header(master_key_version) + project + key_id
            + struct.pack(">I", version) + struct.pack(">H", len(provider.encode())) + provider.encode())


def seal(name, plaintext, kind=1, master_key_version=3, project=PROJECT, key_id=KEY_ID, version=2, provider="openai"):
    salt, nonce = fixed(name + " salt", 16), fixed(name + " nonce", 12)
    key = hkdf(ROOT, salt, b"watchllm_keys seal v1")
    bound = aad(kind, master_key_version, project, key_id, version, provider)
    return header(master_key_version) + salt + nonce + AESGCM(key).encrypt(nonce, plaintext, bound)


def write(name, envelope, expect, plaintext=b"", kind=1, project=PROJECT, key_id=KEY_ID, version=2, provider="openai"):
    """Writes a case: where it is opened (which, in a negative case, is not where it was sealed)."""
    lines = [f"expect: {expect}", f"root: {ROOT.hex()}", f"kind: {kind}", f"project: {project.hex()}",
             f"provider_key: {key_id.hex()}", f"version: {version}", f"provider: {provider}",
             f"plaintext: {plaintext.hex()}", f"envelope: {envelope.hex()}"]
    (HERE / "envelopes_v1" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def flip(envelope, at):
    return envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1:]


def positive():
    plain = b"sk-proj-" + b"abcdefghijklmnopqrstuvwxyz" * 2
    write("plain_key", seal("plain_key", plain), "opens", plain)
    text = "schlüssel-東京-🗝".encode()
    write("non_ascii_key", seal("non_ascii_key", text, provider="größe"), "opens", text, provider="größe")
    long = bytes(ord("a") + n % 26 for n in range(4096))
    write("longest_key", seal("longest_key", long), "opens", long)
    write("empty_key", seal("empty_key", b""), "opens", b"")
    value = b"watchllm_keys canary v1"
    canary = dict(kind=2, project=ZERO, key_id=ZERO, version=3, provider="")
    write("canary", seal("canary", value, **canary), "opens", value, **canary)
    audit = dict(kind=3, project=ZERO, key_id=ZERO, version=1, provider="fingerprint")
    key = bytes(range(32))
    write("audit_key", seal("audit_key", key, **audit), "opens", key, **audit)
    write("audit_key_of_another_kind", seal("audit_key", key, **audit), "does not open",
          **{**audit, "provider": "mac"})
    write("audit_key_as_canary", seal("audit_key", key, **audit), "does not open", **canary)


def negative():
    sealed = seal("negative", b"sk-" + b"abcdefgh" * 5)
    no = "does not open"
    write("moved_row", sealed, no, key_id=flip(KEY_ID, 15))
    write("moved_project", sealed, no, project=flip(PROJECT, 0))
    write("swapped_ids", sealed, no, project=KEY_ID, key_id=PROJECT)
    write("other_version", sealed, no, version=3)
    write("other_provider", sealed, no, provider="anthropic")
    write("other_provider_case", sealed, no, provider="OpenAI")
    write("flipped_master_key_version", flip(sealed, 4), no)
    write("flipped_salt", flip(sealed, 5), no)
    write("flipped_nonce", flip(sealed, 21), no)
    write("flipped_ciphertext", flip(sealed, 33), no)
    write("flipped_tag", flip(sealed, len(sealed) - 1), no)
    write("truncated_ciphertext", sealed[:-1], no)
    write("lengthened", sealed + b"\0", no)
    write("truncated", sealed[:48], "too short")
    write("header_only", sealed[:5], "too short")
    write("empty", b"", "too short")
    write("unknown_format", b"\x02" + sealed[1:], "unknown format 2")
    write("format_zero", b"\x00" + sealed[1:], "unknown format 0")
    write("master_key_version_zero", b"\x01\0\0\0\0" + sealed[5:], "zero version")
    write("too_long", sealed[:33] + bytes(4096 + 17), "too long")


def watchllm():
    """WatchLLM's own format; `secret`, `encrypted_key`, `encryption_iv`, `plaintext` in hex."""
    secret = "watchllm secret with an ü, forty letters long"
    lines = []
    for name, plaintext in [("plain", b"sk-ant-" + b"abcd" * 20), ("non_ascii", "schlüssel-🗝".encode())]:
        salt, nonce = fixed(name + " w salt", 16), fixed(name + " w nonce", 12)
        key = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 100_000, 32)
        sealed = salt + AESGCM(key).encrypt(nonce, plaintext, None)
        lines += [f"name: {name}", f"secret: {secret}", f"encrypted_key: {base64.b64encode(sealed).decode()}",
                  f"encryption_iv: {base64.b64encode(nonce).decode()}", f"plaintext: {plaintext.hex()}", ""]
    (HERE / "watchllm.txt").write_text("\n".join(lines))


def root_key():
    (HERE / "root_key.txt").write_text(
        f"secret: {MASTER_SECRET}\nsalt: {MASTER_SALT.hex()}\niterations: {ITERATIONS}\nroot: {ROOT.hex()}\n")


if __name__ == "__main__":
    (HERE / "envelopes_v1").mkdir(exist_ok=True)
    positive()
    negative()
    watchllm()
    root_key()

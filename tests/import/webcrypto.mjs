// Makes rows of WatchLLM's provider_keys as its worker makes them: WebCrypto, PBKDF2-HMAC-SHA256
// with 100,000 iterations over a 16-byte salt, AES-256-GCM with a 12-byte iv.
// encrypted_key = base64(salt ‖ ciphertext ‖ tag), encryption_iv = base64(iv).
// The one argument is JSON: {"secret": text, "keys": [text or {"hex": bytes}]}. Prints "key iv",
// one a line.
const { subtle } = globalThis.crypto;

const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

async function encrypt(plaintext, secret) {
  const salt = crypto.getRandomValues(new Uint8Array(16));
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const material = await subtle.importKey('raw', new TextEncoder().encode(secret), 'PBKDF2', false, ['deriveKey']);
  const key = await subtle.deriveKey(
    { name: 'PBKDF2', salt, iterations: 100000, hash: 'SHA-256' },
    material,
    { name: 'AES-GCM', length: 256 },
    false,
    ['encrypt'],
  );
  const sealed = new Uint8Array(await subtle.encrypt({ name: 'AES-GCM', iv }, key, plaintext));
  const combined = new Uint8Array(salt.length + sealed.length);
  combined.set(salt);
  combined.set(sealed, salt.length);
  return `${base64(combined)} ${base64(iv)}`;
}

const { secret, keys } = JSON.parse(process.argv[2]);
for (const key of keys) {
  const bytes = typeof key === 'string' ? new TextEncoder().encode(key) : Buffer.from(key.hex, 'hex');
  console.log(await encrypt(bytes, secret));
}

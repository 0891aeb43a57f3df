// No record, no answer: while the audit trail cannot be written, a call fails with 503 and shows
// nothing of the key. Once it can be written, the same call is answered.
import { a, assert, check, done, must, newKey, refused, service, tenant, world } from './application.mjs';

const key = newKey();
const backend = service();
const id = must(await backend.rpc('store_provider_key', { project_id: a.project, provider: 'openai', api_key: key }));

await check('while the trail cannot be written there is a 503 and no key', async () => {
  process.kill(world.writer, 'SIGSTOP');
  try {
    // all at once, because each waits for the whole audit_timeout
    const answers = await Promise.all([
      backend.rpc('decrypt_provider_key', { provider_key_id: id }),
      backend.rpc('resolve_provider_key', { project_id: a.project, provider: 'openai' }),
      tenant(a.sub).rpc('rotate_provider_key', { provider_key_id: id, new_api_key: newKey() }),
    ]);
    for (const answer of answers) {
      const { error } = refused(answer, 503, '53000');
      assert.ok(!JSON.stringify(error).includes(key.slice(8)));
    }
  } finally {
    process.kill(world.writer, 'SIGCONT');
  }
});

await check('afterwards the key opens, unchanged', async () => {
  assert.equal(must(await backend.rpc('decrypt_provider_key', { provider_key_id: id })), key);
});

done();

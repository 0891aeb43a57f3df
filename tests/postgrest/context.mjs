// What the trail keeps of a request: the first hop, the user agent and the request id, cut and
// redacted. It never keeps other headers, and never one request's context in another's row.
import { a, assert, auditor, check, done, keyInHeader, lines, must, newKey, randomUUID, service, tenant, trail, raw, keyToken } from './application.mjs';

const backend = service();
let key = newKey();
const id = must(await backend.rpc('store_provider_key', { project_id: a.project, provider: 'openai', api_key: key, name: 'context' }));

const opened = async (headers, args = {}) => {
  const request = randomUUID();
  assert.equal(must(await service({ 'x-request-id': request, ...headers }).rpc('decrypt_provider_key', { provider_key_id: id, ...args })), key);
  const [row, ...more] = await trail(args.request_id ?? headers['x-request-id'] ?? request);
  assert.deepEqual(more, []);
  return row;
};

await check('first hop, user agent and request id end in the trail', async () => {
  const row = await opened({ 'x-forwarded-for': '203.0.113.7, 198.51.100.2', 'user-agent': 'dashboard/1.0 (suite)' });
  assert.deepEqual([row.ip_address, row.user_agent], ['203.0.113.7', 'dashboard/1.0 (suite)']);
  const six = await opened({ 'x-forwarded-for': '2001:db8::7' });
  assert.equal(six.ip_address, '2001:db8::7');
  // the gateway's own hop, if the client names none
  assert.equal((await opened({})).ip_address, '127.0.0.1');
});

await check('a tenant\'s change keeps its context too, and its own trail shows it', async () => {
  const request = randomUUID();
  const own = tenant(a.sub, { 'x-request-id': request, 'x-forwarded-for': '203.0.113.8', 'user-agent': 'a tenant' });
  key = newKey();
  must(await own.rpc('rotate_provider_key', { provider_key_id: id, new_api_key: key }));
  const [row] = must(await own.from('access_logs').select().eq('request_id', request));
  assert.deepEqual([row.access_type, row.ip_address, row.user_agent, row.claims_sub, row.claims_trusted], ['rotate', '203.0.113.8', 'a tenant', a.sub, true]);
});

await check('arguments win over headers', async () => {
  const given = `given-${randomUUID()}`;
  const row = await opened({ 'x-forwarded-for': '203.0.113.9', 'user-agent': 'header' }, { request_id: given, ip_address: '192.0.2.4', user_agent: 'argument' });
  assert.deepEqual([row.request_id, row.ip_address, row.user_agent], [given, '192.0.2.4', 'argument']);
});

await check('an address that is none breaks nothing', async () => {
  const kept = [
    ['not an address', 'not an address'],
    ['unknown', 'unknown'],
    ['"; DROP TABLE x; --', '"; DROP TABLE x; --'],
    ['203.0.113.7:4711', '203.0.113.7'],
    ['9'.repeat(300), '9'.repeat(64)],
  ];
  for (const [hop, ip] of kept) assert.equal((await opened({ 'x-forwarded-for': `${hop}, 10.0.0.1` })).ip_address, ip);
});

await check('long headers are cut, keys in them redacted', async () => {
  const other = keyInHeader();
  const cut = await opened({ 'user-agent': 'u'.repeat(4000) });
  assert.equal(cut.user_agent, 'u'.repeat(256));
  const redacted = await opened({ 'user-agent': `agent ${other}` });
  assert.ok(redacted.user_agent.startsWith('agent ') && !redacted.user_agent.includes(other.slice(8)), redacted.user_agent);
  const long = `${randomUUID()}-${'r'.repeat(300)}`;
  must(await service({ 'x-request-id': long }).rpc('decrypt_provider_key', { provider_key_id: id }));
  assert.equal((await trail(long.slice(0, 128))).length, 1);
});

await check('headers sent twice, or in bytes that are no text, blank nothing out', async () => {
  const call = (header, value) => {
    const sent = ['x-request-id', randomUUID(), 'x-forwarded-for', '203.0.113.11', 'user-agent', 'once', header, value];
    return lines('/rpc/decrypt_provider_key', keyToken('service_role'), sent, { provider_key_id: id });
  };
  const newest = async () => must(await auditor().from('access_logs').select('request_id, ip_address, user_agent')
    .eq('provider_key_id', id).order('accessed_at', { ascending: false }).limit(1).single());
  for (const [header, value] of [['user-agent', 'twice'], ['X-Request-Id', randomUUID()], ['cookie', 'a=b'], ['x-forwarded-for', '203.0.113.12']]) {
    assert.equal((await call(header, value)).status, 200);
    const row = await newest();
    // PostgREST passes one of two lines
    assert.ok(['once', 'twice'].includes(row.user_agent) && /^203\.0\.113\.1[12]$/.test(row.ip_address) && row.request_id.length === 36, JSON.stringify(row));
  }
  for (const header of ['accept-language', 'user-agent', 'x-request-id', 'x-forwarded-for']) {
    const { status, text } = await call(header, '\u00ff\u00fe');
    assert.ok(status >= 400 && !text.includes(key), `${header}: ${status}`);
  }
});

await check('a request that gives nothing has nothing of the one before', async () => {
  const before = { 'x-request-id': randomUUID(), 'x-forwarded-for': '203.0.113.10', 'user-agent': 'before', cookie: 'session=before' };
  for (const headers of [before, {}, before, {}]) {
    const answer = await raw('POST', '/rpc/validate_provider_key', { bearer: keyToken('service_role'), headers, body: { provider_key_id: id } });
    assert.equal(answer.status, 200, answer.text);
  }
  const rows = must(await auditor().from('access_logs').select('request_id, ip_address, user_agent')
    .eq('provider_key_id', id).eq('access_type', 'validate').order('accessed_at'));
  const given = { request_id: before['x-request-id'], ip_address: '203.0.113.10', user_agent: 'before' };
  // fetch sets its own user agent, and the gateway adds its hop
  const own = { request_id: null, ip_address: '127.0.0.1', user_agent: 'node' };
  assert.deepEqual(rows, [given, own, given, own]);
});

await check('a rolled-back request stays on record', async () => {
  const request = randomUUID();
  const marked = service({ 'x-request-id': request });
  assert.equal(must(await marked.rpc('decrypt_provider_key', { provider_key_id: id }).rollback()), key);
  assert.deepEqual((await trail(request)).map((row) => [row.access_type, row.success]), [['decrypt', true]]);
  // a change that is rolled back leaves no row and no change
  const undone = randomUUID();
  must(await tenant(a.sub, { 'x-request-id': undone }).rpc('rotate_provider_key', { provider_key_id: id, new_api_key: newKey() }).rollback());
  assert.deepEqual(await trail(undone), []);
  assert.equal(must(await backend.rpc('decrypt_provider_key', { provider_key_id: id })), key);
});

done();

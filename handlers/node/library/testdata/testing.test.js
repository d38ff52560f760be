'use strict';
// Tests of drover/testing in an app with the package installed.

const assert = require('node:assert');
const { test } = require('node:test');
const { Output, Outputs, Reject, Response, Retry, Verdicts } = require('drover');
const testing = require('drover/testing');

test('bodies', async () => {
  const echo = async (message) => message.text();
  for (const [body, want] of [['text', 'text'], [Buffer.from('bytes'), 'bytes'], [{ id: 7 }, '{"id":7}'], [[1, 2], '[1,2]'], [undefined, '']]) {
    assert.equal(await testing.run(echo, body), want);
  }
});

test('messages', () => {
  const at = new Date(1_700_000_000_123);
  const message = testing.message('x', {
    id: '17', subject: 's', orderingKey: 'k', attempt: 3, enqueued: at, attributes: { one: '1', many: ['a', 'b'] }, contentType: 'text/csv', correlationId: 'c',
    sequenceNumber: 5, deliveryCount: 2, expiresAt: at, replyTo: null, properties: { priority: '1' },
  });
  assert.deepEqual([message.id, message.subject, message.orderingKey, message.attempt, message.enqueued, message.expiresAt], ['17', 's', 'k', 3, at, at]);
  assert.deepEqual([message.attributes, message.values('many'), message.contentType, message.correlationId], [{ one: '1', many: 'a' }, ['a', 'b'], 'text/csv', 'c']);
  assert.deepEqual([message.sequenceNumber, message.deliveryCount, message.replyTo, message.properties.priority], ['5', 2, null, '1']);
  const plain = testing.message();
  assert.deepEqual([plain.id, plain.attempt, plain.enqueued, plain.body.length, plain.attributes], ['1', 1, null, 0, {}]);
  assert.throws(() => testing.message('', { correlation: 'c' }), /a message has no correlation; it has id, .*correlationId/);
  assert.throws(() => testing.message('', { enqueued: 5 }), /enqueued must be a Date/);
});

test('requests', async () => {
  const message = testing.request('POST', 'http://localhost/orders/7?a=b#c', { body: { id: 7 }, headers: { 'content-type': 'application/json', 'x-one': '1' }, params: { id: '7' } });
  assert.deepEqual(message.properties, {
    content_type: 'application/json', http_method: 'POST', http_url: 'http://localhost/orders/7?a=b#c', http_query: 'a=b', http_params: '{"id":"7"}', http_remote: '127.0.0.1',
  });
  assert.deepEqual(message.attributes, { 'Content-Type': 'application/json', 'X-One': '1' });
  assert.deepEqual(testing.request('GET', undefined, { headers: new Headers({ accept: '*/*' }) }).attributes, { Accept: '*/*' });
});

test('outcomes of an attempt', async () => {
  const fails = (error) => async () => { throw error; };
  await assert.rejects(testing.run(fails(new Reject('no'))), Reject);
  await assert.rejects(testing.run(fails(new Retry('later', { after: 5 }))), { name: 'Retry', after: 5 });
  const own = new TypeError('own');
  await assert.rejects(testing.run(fails(own)), (error) => error === own);
  await assert.rejects(testing.run(() => { throw own; }), (error) => error === own);
});

test('results that a worker rejects', async () => {
  await assert.rejects(testing.run(async () => Symbol('x')), { name: 'Reject', message: /returned a symbol, which cannot be sent/ });
  await assert.rejects(testing.run(async () => ({ a: Promise.resolve() })), { name: 'Reject', message: /with a Promise in it/ });
  await assert.rejects(testing.run(async () => new Outputs({ a: 1 }), '', { outputs: ['b'] }), { name: 'Reject', message: /"a", which the function does not have; it has: b/ });
  await assert.rejects(testing.run(async () => new Outputs({ a: [() => {}] })), { name: 'Reject', message: /for the output a/ });
  assert.deepEqual((await testing.run(async () => new Outputs({ a: [1, 2] }, 'plain'))).messages, { a: [1, 2] });
  assert.equal((await testing.run(async () => new Output({ a: 1 }, { correlationId: 'c' }))).properties.correlation_id, 'c');
});

test('functions that do not load', async () => {
  for (const [fn, why] of [
    [(a, b, c) => a + b + c, /takes 3 parameters/], [class Orders {}, /is a class/], [(context, message) => [context, message], /as Azure Functions v3 calls it/],
    [function* parts() { yield 1; }, /is a generator function/], ['orders', /run takes a function, not string/],
  ]) {
    await assert.rejects(testing.run(fn, ''), (error) => error instanceof TypeError && why.test(error.message), String(fn));
  }
});

test('timeouts', async () => {
  let reason;
  const waits = async (message, context) => {
    assert.ok(context.remaining() <= 30 && context.deadline instanceof Date && !context.cancelled);
    await new Promise((resolve) => { context.signal.addEventListener('abort', resolve); });
    reason = context.signal.reason.name;
    assert.ok(context.cancelled);
  };
  await assert.rejects(testing.run(waits, '', { timeout: 30 }), { name: 'TimeoutError', message: 'the attempt has timed out' });
  assert.equal(reason, 'AbortError');
  await assert.rejects(testing.run(waits, '', { context: testing.context('f', { timeout: 30 }) }), { name: 'TimeoutError' });
  assert.equal(await testing.run(async () => 'done', '', { timeout: 2 ** 40 }), 'done');
  assert.equal(testing.context().remaining(), Infinity);
});

test('a context', async () => {
  const context = testing.context('shop', { sessionState: Buffer.from('1') });
  await testing.run(async (message, own) => {
    assert.equal(own.function, 'shop');
    own.sessionState = Buffer.from(`${own.sessionState}2`);
  }, '', { context });
  assert.equal(String(context.sessionState), '12');
  assert.equal(testing.context().sessionState, null);
});

test('batches', async () => {
  const messages = [testing.message({ id: 1 }), testing.message({}, { id: '2' })];
  const archive = async (all) => new Verdicts(all.map((one) => (one.json().id ? null : new Reject('no ID'))), 'one');
  const found = await testing.run(archive, messages);
  assert.deepEqual([found.result, found.verdicts[0], found.verdicts[1].message], ['one', null, 'no ID']);
  await assert.rejects(testing.run(async () => new Verdicts([null]), messages), /1 verdicts for 2 messages/);
  await assert.rejects(testing.run(async () => new Verdicts({ 3: null }), messages), /'3', but no message in this batch has this ID/);
});

test('responses in parts', async () => {
  async function* texts() { yield 'a'; yield 'b'; }
  assert.equal((await testing.run(texts, testing.request())).body, 'ab');
  const mixed = await testing.run(async () => new Response(['a', Buffer.from('b')][Symbol.iterator](), { status: 201 }), testing.request());
  assert.deepEqual([mixed.status, mixed.body], [201, Buffer.from('ab')]);
  assert.equal((await testing.run(async () => new globalThis.Response('x', { status: 404 }), testing.request())).status, 404);
  await assert.rejects(testing.run(async () => new Response([1][Symbol.iterator]()), testing.request()), /must be a string, a Buffer/);
});

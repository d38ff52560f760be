'use strict';
// node --test

const assert = require('node:assert');
const test = require('node:test');
const { orders, total } = require('./index');

test('an order', async () => {
  const message = { body: Buffer.from('{"id": 7, "lines": [{"price": 5, "count": 2}]}'), attempt: 1 };
  assert.deepStrictEqual(await orders(message), { id: 7, total: 10 });
});

test('the total of nothing', () => {
  assert.strictEqual(total({ lines: [] }), 0);
});

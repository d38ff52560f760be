'use strict';
// The functions that the conformance suite calls; docs/worker-protocol.md describes each.

const { writeSync } = require('node:fs');
const timers = require('node:timers/promises');
const { Output, Outputs, Reject, Response, Retry, Verdicts } = require('drover');

console.log('conformance: loading');

async function* parts(body) {
  if (body === 'fail') {
    yield 'some';
    throw new Error('late');
  }
  for (let rest = Number(body); rest > 0; rest -= 100_000) yield Buffer.alloc(Math.min(rest, 100_000), 'x');
}

const functions = {
  echo: (message) => message.body,
  nothing: () => {},
  describe: (message, context) => ({
    id: message.id, subject: message.subject, ordering_key: message.orderingKey, attributes: message.attributes, properties: message.properties,
    repeated: Object.fromEntries(Object.keys(message.attributes).map((name) => [name, message.values(name)]).filter(([, all]) => all.length > 1)), attempt: message.attempt,
    enqueued_ms: message.enqueued?.getTime() ?? null, deadline_ms: context.deadline?.getTime() ?? null, size: message.body.length,
  }),
  output: (message) => new Output(message.body, { contentType: 'text/x-test', correlationId: message.id, attributes: { n: 'é' } }),
  outputs(message, context) {
    if (message.text() === 'none') return undefined;
    if (message.text() === 'unknown') return new Outputs({ nobody: 'x' });
    if (message.text() === 'state') context.sessionState = Buffer.from('new');
    return new Outputs({ first: functions.output(message), second: ['1', '2'] }, 'plain');
  },
  stream: (message) => new Response(parts(message.text()), { status: 201, headers: { 'x-test': 'yes' } }),
  large: (message) => Buffer.alloc(Number(message.text()), 'x'),
  fail: (message) => { throw new Error(message.text()); },
  fail_large: (message) => { throw new Error('x'.repeat(Number(message.text()))); },
  reject: (message) => { throw new Reject(message.text()); },
  retry: (message) => { throw new Retry('', { after: Number(message.text()) * 1000 }); },
  // Not declared async, and yet cancelled: it returns a promise.
  sleep: (message, { signal }) => timers.setTimeout(Number(message.text()), 'slept', { signal }),
  say: (message) => { console.log(message.text()); },
  warn: (message) => { console.warn(message.text()); },
  write(message) {
    for (let rest = message.body; rest.length > 0;) {
      try {
        rest = rest.subarray(writeSync(1, rest));
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error; // the pipe is full for now
      }
    }
  },
  state(message, context) {
    const before = context.sessionState === null ? 'none' : Buffer.concat([Buffer.from('was '), context.sessionState]);
    const [what, state] = message.body.toString('latin1').split(/ (.*)/s);
    if (what === 'clear') context.sessionState = null;
    if (what === 'set' || what === 'fail') context.sessionState = Buffer.from(state, 'latin1');
    if (what === 'fail') throw new Error(state);
    return before;
  },
  batch(messages) {
    const bodies = messages.map((message) => message.text());
    if (bodies.includes('throw')) throw new Error('thrown');
    if (bodies[0] === 'whole') return String(messages.length);
    const verdicts = new Map([['done', undefined], ['reject', new Reject('rejected')], ['retry', new Retry('later', { after: 1500 })], ['fail', new Error('failed')]]);
    const result = messages.map((m) => ({ id: m.id, attempt: m.attempt, subject: m.subject, size: m.body.length, enqueued_ms: m.enqueued?.getTime() ?? null }));
    return new Verdicts(bodies.map((body) => (verdicts.has(body) ? verdicts.get(body) : body)), result);
  },
};
for (const [name, run] of Object.entries(functions)) {
  exports[name] = run;
  exports[`${name}_async`] = async (message, context) => run(message, context);
}

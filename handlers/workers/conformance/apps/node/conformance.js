'use strict';
// The functions that the conformance suite calls; docs/worker-protocol.md says what each does.

const { writeSync } = require('node:fs');
const timers = require('node:timers/promises');
const { Output, Reject, Retry } = require('drover');

console.log('conformance: loading');

const functions = {
  echo: (message) => message.body,
  nothing: () => {},
  describe: (message, context) => ({
    id: message.id, subject: message.subject, ordering_key: message.orderingKey, attributes: message.attributes, properties: message.properties,
    repeated: Object.fromEntries(Object.keys(message.attributes).map((name) => [name, message.values(name)]).filter(([, all]) => all.length > 1)), attempt: message.attempt,
    enqueued_ms: message.enqueued?.getTime() ?? null, deadline_ms: context.deadline?.getTime() ?? null, size: message.body.length,
  }),
  output: (message) => new Output(message.body, { contentType: 'text/x-test', correlationId: message.id, attributes: { n: 'é' } }),
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
};
for (const [name, run] of Object.entries(functions)) {
  exports[name] = run;
  exports[`${name}_async`] = async (message, context) => run(message, context);
}

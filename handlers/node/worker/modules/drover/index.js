'use strict';
// The module of `require('drover')` and `import ... from 'drover'` in a worker.
//
// A function takes a message and a context, and returns nothing, a Buffer or Uint8Array,
// a string, a value that JSON.stringify accepts, an Output, or Outputs; or a promise of one. An error is a failed
// attempt, unless it is a Reject or a Retry. A worker also identifies both by name: code that
// must not depend on this module can throw its own Error with that name.

/** Throw it to dead-letter the message at once. */
class Reject extends Error {
  constructor(reason = '', options = undefined) {
    super(reason, options);
    this.name = 'Reject';
  }
}

const LONGEST = 30 * 86400 * 1000;

/** Throw it to retry the message after `after` milliseconds, or else with the function's backoff. */
class Retry extends Error {
  constructor(reason = '', { after = undefined, ...options } = {}) {
    super(reason, options);
    if (after !== undefined && !(typeof after === 'number' && after >= 0 && after <= LONGEST)) {
      throw new RangeError(`after is in milliseconds, a number from 0 to ${LONGEST}`);
    }
    this.name = 'Retry';
    this.after = after;
  }
}

const NAMES = {
  contentType: 'content_type', correlationId: 'correlation_id', messageId: 'message_id', replyTo: 'reply_to', replyToSession: 'reply_to_session',
  sessionId: 'session_id', subject: 'subject', to: 'to', partitionKey: 'partition_key',
  scheduledAt: 'scheduled_at', timeToLive: 'time_to_live',
};

// How values that are not strings are written.
const TEXTS = {
  scheduledAt: (value) => (value instanceof Date && !Number.isNaN(value.getTime()) ? value.toISOString() : wrong('scheduledAt', 'a Date')),
  timeToLive: (value) => (typeof value === 'number' && value > 0 && value < Infinity ? (value / 1000).toFixed(3) : wrong('timeToLive', 'a number of milliseconds')),
};

function wrong(name, what) {
  throw new TypeError(`${name} of an Output must be ${what}`);
}

/**
 * An output with properties. Return it instead of the body, for example as the reply to a
 * request:
 *
 *     return new Output(result, { correlationId: message.correlationId ?? message.id, sessionId: message.replyToSession });
 *
 * The body is any value that a function may return. If it is encoded as JSON, the default
 * contentType is application/json. Service Bus and storage queues hide the message until
 * scheduledAt, a Date, and drop it after timeToLive, in milliseconds.
 */
class Output {
  constructor(body, { attributes = {}, ...properties } = {}) {
    if (body instanceof Output) throw new TypeError('the body of an Output is an Output; give it its body');
    this.body = body;
    this.properties = {};
    this.attributes = {};
    for (const [name, value] of Object.entries(properties)) {
      if (NAMES[name] === undefined) throw new TypeError(`an Output has no ${name}; it has ${Object.keys(NAMES).join(', ')} and attributes`);
      if (value !== undefined && value !== null) this.properties[NAMES[name]] = TEXTS[name] ? TEXTS[name](value) : checked(name, value);
    }
    for (const [name, value] of Object.entries(attributes)) this.attributes[name] = checked(name, value);
  }
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/**
 * The response of an HTTP function, with a status and headers:
 *
 *     return new Response({ id: 7 }, { status: 201, headers: { Location: '/orders/7' } });
 *
 * The body is any value that a function may return. The default contentType is
 * text/plain; charset=utf-8 for a string, application/json for a value that is encoded as JSON, and
 * application/octet-stream for bytes. headers is an object, a Headers, or an array of pairs if a
 * name, such as Set-Cookie, occurs several times.
 *
 * A ReadableStream, a Readable, an async iterable or a generator as the body is sent in parts, while
 * it is produced. Each part is a string, a Buffer or a Uint8Array. It waits while the client is
 * slow. If it throws after the first part, the connection is aborted.
 */
class Response extends Output {
  constructor(body = '', { status = 200, headers = {}, contentType = undefined } = {}) {
    super(body);
    if (!Number.isInteger(status) || status < 200 || status > 599) throw new RangeError(`the status of a Response is ${String(status)}; it must be an integer from 200 to 599`);
    this.status = status;
    this.headers = [];
    let kind = contentType;
    for (const [name, value] of typeof headers[Symbol.iterator] === 'function' ? headers : Object.entries(headers)) {
      checkHeader(name, value);
      if (name.toLowerCase() !== 'content-type') this.headers.push([name, value]);
      else kind ??= value;
    }
    if (kind !== undefined && kind !== null) {
      checkHeader('Content-Type', kind);
      this.properties.content_type = kind;
    }
    this.properties.http_status = String(status);
    if (this.headers.length > 0) this.properties.http_headers = JSON.stringify(this.headers);
  }
}

function checkHeader(name, value) {
  if (typeof name !== 'string' || !TOKEN.test(name)) throw new TypeError(`a Response cannot have the header ${JSON.stringify(name)}; a name is letters, digits and -`);
  if (typeof value !== 'string') throw new TypeError(`the header ${name} of a Response is of the type ${typeof value}; it must be a string`);
  if (/[\0-\x08\x0a-\x1f\x7f]/.test(value)) throw new TypeError(`the header ${name} of a Response has a control character, such as a line break, in its value, which HTTP does not allow`);
}

function checked(name, value) {
  if (typeof value !== 'string') throw new TypeError(`${name} of an Output is of the type ${typeof value}; it must be a string`);
  return value;
}

/**
 * Messages for the function's named outputs, whose names are in the configuration. A function
 * returns it:
 *
 *     return new Outputs({ receipts: receipt, audit: [opened, closed] });
 *
 * An array is a message for each of its elements, sent in their order. Any other value is one
 * message; undefined and null are none. Each message is any value that a function may return, or
 * an Output, which has properties, and can have an array as its body. result is the plain result
 * of the function, for outputs without a name.
 */
class Outputs {
  constructor(messages, result = undefined) {
    if (messages === null || typeof messages !== 'object' || Array.isArray(messages) || messages instanceof Output) {
      throw new TypeError('Outputs takes an object of messages by the names of outputs; the plain result is its second argument');
    }
    if (result instanceof Outputs) throw new TypeError('the result of Outputs is Outputs; give it the plain result');
    this.messages = { ...messages };
    this.result = result;
  }
}

/**
 * Verdicts on the messages of a batch. A function that takes an array of messages returns it if
 * the messages need different verdicts:
 *
 *     return new Verdicts(messages.map((message) => (valid(message) ? undefined : new Reject('no order'))));
 *
 * The verdicts are an array with one for each message, in their order, or a Map or an object by the
 * messages' IDs, which need not have all of them. A verdict is undefined or null: the message is
 * done; an Error, which is not thrown: a Reject dead-letters the message, a Retry retries it after
 * its time, and any other is a failed attempt; or the message's own result, any other value that a
 * function may return: the message is done when the result has been sent.
 *
 * result is the result of the call, as if the function had returned it: it is sent once, before any
 * of the messages is done.
 */
class Verdicts {
  constructor(verdicts, result = undefined) {
    if (verdicts === null || typeof verdicts !== 'object') throw new TypeError(`the verdicts of Verdicts are of the type ${typeof verdicts}; give it an array, or an object by message ID`);
    this.verdicts = verdicts;
    this.result = result;
  }
}

exports.Output = Output;
exports.Outputs = Outputs;
exports.Reject = Reject;
exports.Response = Response;
exports.Retry = Retry;
exports.Verdicts = Verdicts;

// Called by the worker at its end.
const hooks = [];

/**
 * Registers a function to be called when the worker process ends normally, after its last
 * message: when the pool shrinks, when the worker is recycled, when the daemon stops. It may be
 * async. All such functions together have two seconds; the last one is called first.
 */
function atExit(hook) {
  if (typeof hook !== 'function') throw new TypeError('atExit takes a function');
  hooks.push(hook);
  return hook;
}

exports.atExit = atExit;
Object.defineProperty(exports, Symbol.for('drover.atExit'), { value: hooks });

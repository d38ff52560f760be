'use strict';
// What a function gets: a message, and the attempt that is under way.

const { cutTexts } = require('./frames');

/** An object of pairs, which has the first value of each name. */
function firsts(pairs) {
  const found = new Map();
  for (const [name, value] of pairs) if (!found.has(name)) found.set(name, value);
  return Object.fromEntries(found);
}

/** A message: body, a Buffer, and what is known of it. Read only. */
class Message {
  #call;
  #texts;
  #attributes;
  #properties;

  constructor(call) {
    this.#call = call;
    this.body = call.body;
    this.attempt = call.attempt;
  }

  #text(index) {
    this.#texts ??= cutTexts(this.#call.meta);
    return this.#texts[index];
  }

  get id() { return this.#text(0); }
  get subject() { return this.#text(1); }
  get orderingKey() { return this.#text(2); }

  /** The attributes as pairs of name and value, or the properties. */
  #pairs(ofProperties) {
    this.#text(0);
    const out = [];
    let properties = false;
    for (let at = 3; at + 1 < this.#texts.length; at += 2) {
      if (this.#texts[at] === '' && this.#texts[at + 1] === '' && !properties) properties = true;
      else if (properties === ofProperties) out.push([this.#texts[at], this.#texts[at + 1]]);
    }
    return out;
  }

  /**
   * The headers that the sender gave, strings by their name. A value that was no text has
   * the form that docs/workers.md tells. Of several values it has the first.
   */
  get attributes() { return this.#attributes ??= firsts(this.#pairs(false)); }

  /** All values of an attribute, in their order: an array, empty if there is none. */
  values(name) { return this.#pairs(false).filter(([other]) => other === name).map(([, value]) => value); }

  /** What the source knows of the message, strings by their name, such as sequence_number. */
  get properties() { return this.#properties ??= Object.fromEntries(this.#pairs(true)); }

  #known(name, header) {
    const value = this.properties[name];
    return value ?? (header && (this.attributes[header] ?? this.attributes[header.toLowerCase()])) ?? null;
  }

  #number(name) { return name in this.properties ? Number(this.properties[name]) : null; }

  // Each of these is null where there is none.
  get contentType() { return this.#known('content_type', 'Content-Type'); }
  get correlationId() { return this.#known('correlation_id', 'Correlation-Id'); }
  get replyTo() { return this.#known('reply_to', 'Reply-To'); }
  get replyToSession() { return this.#known('reply_to_session'); }
  get to() { return this.#known('to'); }
  get sessionId() { return this.#known('session_id'); }
  get partitionKey() { return this.#known('partition_key'); }
  /** The number that the source gave it: a string, as it may be larger than what is exact in a number. */
  get sequenceNumber() { return this.#known('sequence_number'); }
  get deliveryCount() { return this.#number('delivery_count'); }
  get dequeueCount() { return this.#number('dequeue_count'); }
  /** When the source drops it, a Date. */
  get expiresAt() { return 'expires_at' in this.properties ? new Date(this.properties.expires_at) : null; }

  /** When the source took it in, a Date; null if unknown. */
  get enqueued() { return this.#call.enqueued === 0 ? null : new Date(this.#call.enqueued / 1000); }

  text() { return this.body.toString('utf8'); }
  json() { return JSON.parse(this.text()); }
}

/** The attempt that is under way. */
class Context {
  #call;
  #message;
  #controller;
  #cancelled = false;
  #trace;

  constructor(call, message) {
    this.#call = call;
    this.#message = message;
    this.function = call.function.name;
  }

  /** When the attempt times out, a Date; null if never. */
  get deadline() { return this.#call.deadline === 0 ? null : new Date(this.#call.deadline / 1000); }

  /** The milliseconds left, at least 0; Infinity if there is no limit. */
  remaining() { return this.#call.deadline === 0 ? Infinity : Math.max(0, this.#call.deadline / 1000 - Date.now()); }

  /** True when the attempt is given up: its outcome no longer counts. */
  get cancelled() { return this.#cancelled; }

  /** An AbortSignal that fires then; for fetch and all else that takes one. */
  get signal() {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#cancelled) this.#abort();
    }
    return this.#controller.signal;
  }

  #abort() { this.#controller.abort(new DOMException('the attempt is given up', 'AbortError')); }

  /** The context of the trace that the attempt is in, as W3C Trace Context writes it; null if there is none. */
  get traceparent() { return this.#traced()[0]; }

  /** What goes with the traceparent; null if there is nothing. */
  get tracestate() { return this.#traced()[1]; }

  #traced() {
    if (this.#trace === undefined) {
      this.#trace = [null, null];
      const { attributes } = this.#message;
      for (const name of ['traceparent', 'Traceparent', 'Diagnostic-Id']) {
        const parent = attributes[name];
        if (parent?.[2] === '-') {
          this.#trace = [parent, attributes.tracestate || attributes.Tracestate || null];
          break;
        }
      }
    }
    return this.#trace;
  }

  /**
   * The bytes that are kept with the message's session, a Buffer; null if there are
   * none. What is set here is kept when the function returns, before the message is
   * done, and not when it throws. null clears it.
   */
  get sessionState() {
    this.#needState();
    return this.#call.state;
  }

  set sessionState(state) {
    this.#needState();
    if (state !== null && !(state instanceof Uint8Array)) {
      throw new TypeError("a session's state is a Buffer, a Uint8Array or null; encode it, as with Buffer.from(JSON.stringify(...))");
    }
    this.#call.state = state === null ? null : Buffer.from(state);
    this.#call.changed = true;
  }

  #needState() {
    if (this.#call.state === undefined) {
      throw new Error("there is no session's state; set session_state: true in the trigger, which needs sessions: true");
    }
  }

  /** The worker's own: gives the attempt up. */
  static cancel(context) {
    if (context.#cancelled) return;
    context.#cancelled = true;
    if (context.#controller !== undefined) context.#abort();
  }
}

const { cancel } = Context;
delete Context.cancel; // functions have no business with it

module.exports = { Message, Context, cancel };

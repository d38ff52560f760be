// The types of `require('drover/testing')` and `import ... from 'drover/testing'`.

import type { BatchHandler, Context, Handler, Message } from '../worker/modules/drover';

/** The options of message. Each is a property of the message. */
export interface MessageOptions {
  /** The default is '1'. */
  id?: string;
  subject?: string;
  orderingKey?: string;
  /** The default is 1. */
  attempt?: number;
  enqueued?: Date;
  /** Headers. An array has several values of one header. */
  attributes?: Record<string, string | readonly string[]>;
  contentType?: string | null;
  correlationId?: string | null;
  replyTo?: string | null;
  replyToSession?: string | null;
  to?: string | null;
  sessionId?: string | null;
  partitionKey?: string | null;
  sequenceNumber?: string | number | null;
  deliveryCount?: number | null;
  dequeueCount?: number | null;
  expiresAt?: Date | null;
  /** Properties without a separate option. */
  properties?: Record<string, string>;
}

/** Returns a message. A body that is neither a string nor bytes is encoded as JSON. */
export function message(body?: unknown, options?: MessageOptions): Message;

/** The options of request. */
export interface RequestOptions {
  body?: unknown;
  headers?: Record<string, string> | Headers;
  /** The parameters of the route. */
  params?: Record<string, string>;
}

/** Returns the message of an HTTP request, for a function with an http trigger. */
export function request(method?: string, url?: string, options?: RequestOptions): Message;

/** The options of context. */
export interface ContextOptions {
  /** The milliseconds until the deadline; by default there is none. */
  timeout?: number;
  /** The state of the message's session. */
  sessionState?: Uint8Array | null;
}

/** Returns a context. Its session has a state, which the function may replace. */
export function context(name?: string, options?: ContextOptions): Context;

/** The options of run. */
export interface RunOptions {
  /** By default one with the function's name. */
  context?: Context;
  /**
   * After this many milliseconds, context.signal fires. When the function then returns, or five seconds
   * later, the promise is rejected with a TimeoutError.
   */
  timeout?: number;
  /** The names of the function's outputs; by default all names are valid. */
  outputs?: readonly string[];
}

/**
 * Runs a function with a batch of messages, as a worker does. See the other form for the result.
 */
export function run<F extends BatchHandler>(fn: F, messages: readonly Message[], options?: RunOptions): Promise<Awaited<ReturnType<F>>>;

/**
 * Runs a function with a message, or with a message made from a body, as a worker does. The promise is
 * rejected with the error of the attempt: a Reject (also if a worker would reject the result), a
 * Retry, or any other error, which is a failed attempt. It is rejected with a TypeError if a worker
 * would not load the function. A response in parts is returned as a Response with its whole body.
 */
export function run<F extends Handler>(fn: F, message?: unknown, options?: RunOptions): Promise<Awaited<ReturnType<F>>>;

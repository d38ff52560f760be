// The types of `require('drover')` and `import ... from 'drover'`.
/// <reference types="node" />

/** A message: its body and its metadata. Read only. */
export interface Message {
  readonly body: Buffer;
  /** From 1. */
  readonly attempt: number;
  readonly id: string;
  readonly subject: string;
  readonly orderingKey: string;
  /** The headers set by the sender. If a header has several values, this is the first. */
  readonly attributes: Readonly<Record<string, string>>;
  /** All values of an attribute, in order: an array, empty if there are none. */
  values(name: string): string[];
  /** The properties set by the source, such as sequence_number. */
  readonly properties: Readonly<Record<string, string>>;
  readonly contentType: string | null;
  readonly correlationId: string | null;
  readonly replyTo: string | null;
  readonly replyToSession: string | null;
  readonly to: string | null;
  readonly sessionId: string | null;
  readonly partitionKey: string | null;
  /** A string, because it may exceed the exact integers of a number. */
  readonly sequenceNumber: string | null;
  readonly deliveryCount: number | null;
  readonly dequeueCount: number | null;
  /** When the message expires at the source. */
  readonly expiresAt: Date | null;
  /** When the source accepted the message; null if unknown. */
  readonly enqueued: Date | null;
  text(): string;
  json(): any;
}

/** The context of the running attempt. */
export interface Context {
  readonly function: string;
  /** When the attempt times out; null if never. */
  readonly deadline: Date | null;
  /** The milliseconds left, at least 0; Infinity if there is no limit. */
  remaining(): number;
  /** True when the attempt was cancelled: its result no longer counts. */
  readonly cancelled: boolean;
  /** Aborted when the attempt is cancelled, for fetch and other functions that accept a signal. */
  readonly signal: AbortSignal;
  readonly traceparent: string | null;
  readonly tracestate: string | null;
  /** The state of the message's session; null if it has none. It is stored when the function returns. */
  get sessionState(): Buffer | null;
  set sessionState(state: Uint8Array | null);
}

/** What a function returns, or a promise of it. */
export type Result = unknown;

/** The type of a function: `exports.orders = (async (message, context) => { ... }) satisfies Handler`. */
export type Handler = (message: Message, context: Context) => Result | Promise<Result>;

/** The type of a function that takes batches: the configuration has `batch`. The context belongs to the call. */
export type BatchHandler = (messages: Message[], context: Context) => Result | Promise<Result>;

/** Throw it to dead-letter the message at once. */
export class Reject extends Error {
  constructor(reason?: string, options?: ErrorOptions);
}

/** Throw it to retry the message after `after` milliseconds, or else with the function's backoff. */
export class Retry extends Error {
  constructor(reason?: string, options?: ErrorOptions & { after?: number });
  after: number | undefined;
}

/** The properties of an Output. */
export interface OutputOptions {
  contentType?: string | null;
  correlationId?: string | null;
  messageId?: string | null;
  replyTo?: string | null;
  replyToSession?: string | null;
  sessionId?: string | null;
  subject?: string | null;
  to?: string | null;
  partitionKey?: string | null;
  /** When the message can be received. */
  scheduledAt?: Date | null;
  /** After how many milliseconds it expires. */
  timeToLive?: number | null;
  attributes?: Record<string, string>;
}

/** An output with properties. Return it instead of the body. */
export class Output {
  constructor(body?: unknown, options?: OutputOptions);
  body: unknown;
  properties: Record<string, string>;
  attributes: Record<string, string>;
}

/**
 * Messages for the function's named outputs, by the names in the configuration. An array is a
 * message for each of its elements, sent in their order; any other value is one message;
 * undefined and null are none. result is the plain result, for outputs without a name.
 */
export class Outputs {
  constructor(messages: Record<string, unknown>, result?: unknown);
  messages: Record<string, unknown>;
  result: unknown;
}

/** The status and headers of a Response. */
export interface ResponseOptions {
  /** From 200 to 599; the default is 200. */
  status?: number;
  /** An object, a Headers, or pairs if a name, such as Set-Cookie, occurs several times. */
  headers?: Record<string, string> | Iterable<readonly [string, string]>;
  contentType?: string | null;
}

/**
 * The response of an HTTP function. A ReadableStream, a Readable, an async iterable or a generator
 * as the body is sent in parts, while it is produced.
 */
export class Response extends Output {
  constructor(body?: unknown, options?: ResponseOptions);
  status: number;
  headers: [string, string][];
}

/**
 * Verdicts on the messages of a batch, as an array with one for each message, in their order, or by
 * the messages' IDs. A verdict is undefined or null: the message is done; an Error, which is not
 * thrown; or the message's own result. result is the result of the call.
 */
export class Verdicts {
  constructor(verdicts: readonly unknown[] | ReadonlyMap<string, unknown> | Record<string, unknown>, result?: unknown);
  verdicts: readonly unknown[] | ReadonlyMap<string, unknown> | Record<string, unknown>;
  result: unknown;
}

/**
 * Registers a function to be called when the worker process ends normally, after its last
 * message. It may be async.
 */
export function atExit<T extends () => unknown>(hook: T): T;

'use strict';
// Converts errors of functions to the status and payload of a result.

const { inspect, types } = require('node:util');
const { FAILURE, REJECT, RETRY } = require('./frames');
const { Reject, Retry } = require('./modules/drover');
const { Unsendable, article } = require('./results');

const LONGEST_RETRY = 30 * 86400 * 1000;
const LONGEST_SUMMARY = 1000;
const LONGEST_DETAIL = 64_000;
// The depth to which the causes of an error and the errors of an AggregateError are shown,
// and how many errors of one AggregateError.
const MOST_CAUSES = 5;
const MOST_ERRORS = 10;

const isError = (value) => types.isNativeError(value) || value instanceof Error;

/** Returns the text of an error, or of another thrown value, in one line. */
function said(error) {
  try {
    let text = error;
    if (isError(error)) text = error.message;
    else if (typeof error === 'object' && error !== null) text = shown(error);
    return String(text).replace(/\s+/g, ' ').trim().slice(0, LONGEST_SUMMARY);
  } catch {
    return 'its text cannot be read';
  }
}

/** Returns the content of a value that is not an error, as text. */
const shown = (value) => inspect(value, { depth: 3, maxArrayLength: 20, maxStringLength: LONGEST_SUMMARY, breakLength: 120 });

function nameOf(error) {
  try {
    if (typeof error === 'object' && error !== null && typeof error.name === 'string') return error.name;
  } catch { /* a getter threw */ }
  return '';
}

/** Returns an error's type and text in one line. */
function oneLine(error) {
  const text = said(error);
  if (!isError(error)) return `it threw ${article(error)}: ${text}`;
  const name = nameOf(error) || 'Error';
  const inner = text === '' && Array.isArray(error.errors) && error.errors.length > 0 ? `${error.errors.length} errors, the first: ${oneLine(error.errors[0])}` : text;
  return inner ? `${name}: ${inner}`.slice(0, LONGEST_SUMMARY) : name;
}

const frameOfNode = /^\s+at (?:.*\()?node:/;
const HIDDEN = new Set(['stack', 'message', 'name', 'cause', 'errors']);

/** Returns the properties of an error, such as code, beyond those of all errors; '' if there are none. */
function properties(error) {
  const own = Object.fromEntries(Object.entries(error).filter(([key]) => !HIDDEN.has(key)));
  return Object.keys(own).length > 0 ? `\n${shown(own)}` : '';
}

/** Returns the stack of an error, its properties, its causes and its errors, without the worker's own frames. */
function stack(error, depth = 0) {
  let text;
  let cause;
  let errors = [];
  try {
    if (isError(error)) {
      text = typeof error.stack === 'string' && error.stack ? error.stack : oneLine(error);
      cause = error.cause;
      if (Array.isArray(error.errors)) ({ errors } = error);
    } else if (typeof error?.stack === 'string' && error.stack) {
      text = error.stack; // an error of another realm, or an object like an error
      cause = error.cause;
    } else {
      text = depth === 0 ? oneLine(error) : shown(error);
    }
  } catch {
    text = oneLine(error);
  }
  const lines = text.split('\n').filter((line) => !(line.includes(__dirname) && /^\s+at /.test(line)));
  while (lines.length > 1 && frameOfNode.test(lines.at(-1))) lines.pop();
  text = lines.join('\n');
  if (isError(error)) {
    try {
      text += properties(error);
    } catch { /* a getter threw */ }
  }
  if (depth < MOST_CAUSES) {
    if (cause !== undefined && cause !== null) text += `\ncaused by ${stack(cause, depth + 1)}`;
    for (const [at, one] of errors.slice(0, MOST_ERRORS).entries()) text += `\nerror ${at + 1} of ${errors.length}: ${stack(one, depth + 1)}`;
  }
  return text.slice(0, LONGEST_DETAIL);
}

const json = (value) => Buffer.from(JSON.stringify(value));

/** Returns the status and payload of a result for an error of a function. */
function outcome(error) {
  const name = nameOf(error);
  if (error instanceof Unsendable) return [REJECT, json({ summary: said(error) })];
  if (name === 'Reject' || error instanceof Reject) return [REJECT, json({ summary: said(error) || 'rejected' })];
  if (name === 'Retry' || error instanceof Retry) {
    const { after } = error;
    if (typeof after === 'number' && after >= 0 && after <= LONGEST_RETRY) {
      return [RETRY, json({ summary: said(error) || 'the function requested a retry', after: after / 1000 })];
    }
    if (after !== undefined && after !== null) {
      return [FAILURE, json({ summary: `${oneLine(error)} (after is ${said(after)}; it is in milliseconds, a number from 0 to ${LONGEST_RETRY})`, detail: stack(error) })];
    }
  }
  return [FAILURE, json({ summary: oneLine(error), detail: stack(error) })];
}

module.exports = { oneLine, outcome, said, stack };

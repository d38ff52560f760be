'use strict';
// Turns what functions return and throw into answers.

const { inspect, types } = require('node:util');
const { FAILURE, REJECT, RETRY } = require('./frames');
const { Reject, Retry } = require('./modules/drover');
const { Unsendable, article } = require('./results');

const LONGEST_RETRY = 30 * 86400 * 1000;
const LONGEST_SUMMARY = 1000;
const LONGEST_DETAIL = 64_000;
// How deep the errors behind an error are shown (causes, and those of an AggregateError),
// and how many of those of one AggregateError.
const MOST_CAUSES = 5;
const MOST_ERRORS = 10;

const isError = (value) => types.isNativeError(value) || value instanceof Error;

/** The text of an error, or of what else was thrown, in one line. */
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

/** A value that is no error, with its content. */
const shown = (value) => inspect(value, { depth: 3, maxArrayLength: 20, maxStringLength: LONGEST_SUMMARY, breakLength: 120 });

function nameOf(error) {
  try {
    if (typeof error === 'object' && error !== null && typeof error.name === 'string') return error.name;
  } catch { /* a getter of its own */ }
  return '';
}

/** An error in one line. */
function oneLine(error) {
  const text = said(error);
  if (!isError(error)) return `it threw ${article(error)}: ${text}`;
  const name = nameOf(error) || 'Error';
  const inner = text === '' && Array.isArray(error.errors) && error.errors.length > 0 ? `${error.errors.length} errors, the first: ${oneLine(error.errors[0])}` : text;
  return inner ? `${name}: ${inner}`.slice(0, LONGEST_SUMMARY) : name;
}

const frameOfNode = /^\s+at (?:.*\()?node:/;
const HIDDEN = new Set(['stack', 'message', 'name', 'cause', 'errors']);

/** The properties of an error beside those that all have, such as code; '' if it has none. */
function properties(error) {
  const own = Object.fromEntries(Object.entries(error).filter(([key]) => !HIDDEN.has(key)));
  return Object.keys(own).length > 0 ? `\n${shown(own)}` : '';
}

/** The stack of an error, its properties, and the errors behind it, without the worker's own frames. */
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
      text = error.stack; // of another realm, or made by hand
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
    } catch { /* getters of its own */ }
  }
  if (depth < MOST_CAUSES) {
    if (cause !== undefined && cause !== null) text += `\ncaused by ${stack(cause, depth + 1)}`;
    for (const [at, one] of errors.slice(0, MOST_ERRORS).entries()) text += `\nerror ${at + 1} of ${errors.length}: ${stack(one, depth + 1)}`;
  }
  return text.slice(0, LONGEST_DETAIL);
}

const json = (value) => Buffer.from(JSON.stringify(value));

/** The status and payload of an answer about what a function threw. */
function outcome(error) {
  const name = nameOf(error);
  if (error instanceof Unsendable) return [REJECT, json({ summary: said(error) })];
  if (name === 'Reject' || error instanceof Reject) return [REJECT, json({ summary: said(error) || 'rejected' })];
  if (name === 'Retry' || error instanceof Retry) {
    const { after } = error;
    if (typeof after === 'number' && after >= 0 && after <= LONGEST_RETRY) {
      return [RETRY, json({ summary: said(error) || 'the function asked to be tried again', after: after / 1000 })];
    }
    if (after !== undefined && after !== null) {
      return [FAILURE, json({ summary: `${oneLine(error)} (after is ${said(after)}; it is in milliseconds, a number from 0 to ${LONGEST_RETRY})`, detail: stack(error) })];
    }
  }
  return [FAILURE, json({ summary: oneLine(error), detail: stack(error) })];
}

module.exports = { oneLine, outcome, said, stack };

'use strict';
// Turns what functions return and throw into answers.

const { types } = require('node:util');
const { EMPTY, FAILURE, REJECT, RETRY } = require('./frames');
const { Reject, Retry } = require('./modules/drover');

const LONGEST_RETRY = 30 * 86400 * 1000;
const LONGEST_SUMMARY = 1000;
const LONGEST_DETAIL = 64_000;
// How many errors behind an error are told, each by its cause.
const MOST_CAUSES = 5;

/** The bytes of what a function returned; throws a TypeError. */
function encode(value) {
  if (value === undefined || value === null) return EMPTY;
  if (typeof value === 'string') return Buffer.from(value);
  if (Buffer.isBuffer(value)) return value;
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (types.isAnyArrayBuffer(value)) return Buffer.from(value);
  let text;
  let why = 'JSON has no such thing';
  try {
    text = JSON.stringify(value);
  } catch (error) {
    why = said(error);
  }
  if (text === undefined) {
    throw new TypeError(`returned ${article(value)}, which cannot be sent: ${why}; return nothing, a Buffer, a string or what JSON.stringify takes`);
  }
  return Buffer.from(text);
}

function article(value) {
  const name = typeof value === 'object' ? value?.constructor?.name || 'object' : typeof value;
  return /^[aeiou]/i.test(name) ? `an ${name}` : `a ${name}`;
}

function said(error) {
  try {
    const text = error instanceof Error || types.isNativeError(error) ? error.message : error;
    return String(text).replace(/\s+/g, ' ').trim().slice(0, LONGEST_SUMMARY);
  } catch {
    return 'its text cannot be read';
  }
}

function nameOf(error) {
  try {
    if (typeof error === 'object' && error !== null && typeof error.name === 'string') return error.name;
  } catch { /* a getter of its own */ }
  return '';
}

/** An error in one line. */
function oneLine(error) {
  const text = said(error);
  if (!types.isNativeError(error) && !(error instanceof Error)) return `it threw ${article(error)}: ${text}`;
  const name = nameOf(error) || 'Error';
  return text ? `${name}: ${text}` : name;
}

const frameOfNode = /^\s+at (?:.*\()?node:/;

/** The stack of an error and of those that caused it, without the worker's own frames. */
function stack(error, depth = 0) {
  let text;
  let cause;
  try {
    text = typeof error?.stack === 'string' && error.stack ? error.stack : oneLine(error);
    cause = error?.cause;
  } catch {
    text = oneLine(error);
  }
  const lines = text.split('\n').filter((line) => !(line.includes(__dirname) && /^\s+at /.test(line)));
  while (lines.length > 1 && frameOfNode.test(lines.at(-1))) lines.pop();
  text = lines.join('\n');
  if (cause !== undefined && cause !== null && depth < MOST_CAUSES) text += `\ncaused by ${stack(cause, depth + 1)}`;
  return text.slice(0, LONGEST_DETAIL);
}

const json = (value) => Buffer.from(JSON.stringify(value));

/** The status and payload of an answer about what a function threw. */
function outcome(error) {
  const name = nameOf(error);
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

module.exports = { article, encode, oneLine, outcome, said, stack };

'use strict';
// Debugs functions in a worker whose standard input is a terminal: that of drover invoke --debug and
// drover replay --debug.

const { isatty } = require('node:tty');

const NAME = 'drover.debugged'; // a global that briefly refers to a function
let session;

/** Runs node inspect on the terminal, and waits until it is connected. Does nothing without a terminal. */
function start() {
  if (!isatty(0)) return;
  const { spawn } = require('node:child_process');
  const inspector = require('node:inspector');
  inspector.open(0, '127.0.0.1');
  const client = spawn(process.execPath, ['inspect', new URL(inspector.url()).host], { stdio: 'inherit' });
  process.on('exit', () => client.kill());
  inspector.waitForDebugger();
  session = new inspector.Session();
  session.connect();
  session.post('Debugger.enable');
}

/** Stops where a function is called, without changing its code. */
function stopAt(run) {
  if (session === undefined) return;
  globalThis[Symbol.for(NAME)] = run;
  session.post('Runtime.evaluate', { expression: `globalThis[Symbol.for(${JSON.stringify(NAME)})]` }, (error, answer) => {
    if (error === null) session.post('Debugger.setBreakpointOnFunctionCall', { objectId: answer.result.objectId });
  });
  delete globalThis[Symbol.for(NAME)];
}

module.exports = { start, stopAt };

'use strict';
// Runs the app's atExit functions at a worker's end.

const hooks = require('./modules/drover')[Symbol.for('drover.atExit')];
const { stack } = require('./outcome');

// The time limit for all of them together, in ms.
const LIMIT = 2000;

/** Calls the functions given to atExit, the last first, and returns when they have ended or after LIMIT. */
async function atEnd(output) {
  if (hooks.length === 0) return;
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, LIMIT, 'late'); });
  const all = (async () => {
    for (const hook of hooks.reverse()) {
      try {
        await hook();
      } catch (error) {
        output.say(-1, 'ERROR', 'drover', `a function given to atExit failed: ${stack(error)}`);
      }
    }
  })();
  if (await Promise.race([all, late]) === 'late') output.say(-1, 'WARNING', 'drover', `the functions given to atExit did not end within ${LIMIT / 1000} s; the worker ends without them`);
  clearTimeout(timer);
}

module.exports = { atEnd };

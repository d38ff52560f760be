'use strict';
// What the app wants done at a worker's end.

const hooks = require('./modules/drover')[Symbol.for('drover.atExit')];
const { stack } = require('./outcome');

// How long all of it may take, in ms.
const LIMIT = 2000;

/** Calls the functions given to atExit, the last first, and returns when they have ended or their time is up. */
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

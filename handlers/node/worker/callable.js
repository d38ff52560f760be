'use strict';
// Which functions can be called with (message, context).

const { types } = require('node:util');

const AsyncFunction = Object.getPrototypeOf(async () => {});

/**
 * Returns why a function cannot be called with (message, context), as a predicate of its name; '' if
 * it can. streams means that it may be a generator function.
 */
function misfit(run, streams) {
  const source = Function.prototype.toString.call(run);
  if (types.isGeneratorFunction(run) && !streams) return 'is a generator function';
  if (/^class\b/.test(source)) return 'is a class';
  if (run.length > 2) return `takes ${run.length} parameters, but drover passes no callback`;
  const [, first] = /^(?:async\s+)?(?:function\b[^(]*)?\(\s*(\w+)\s*,/.exec(source) ?? [];
  if (first === 'context' || first === 'ctx') return `takes (${first}, ...), as Azure Functions v3 calls it, in the wrong order`;
  return '';
}

/** Reports whether a function is async. For a bound function, only the prototype shows it. */
const isAsync = (run) => types.isAsyncFunction(run) || Object.getPrototypeOf(run) === AsyncFunction;

module.exports = { isAsync, misfit, takes: 'a function takes (message, context), and returns its output or a promise of it' };

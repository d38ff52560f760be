'use strict';
// Loads the app's functions.

const { spawnSync } = require('node:child_process');
const path = require('node:path');
const { fileURLToPath, pathToFileURL } = require('node:url');
const { isAsync, misfit, takes } = require('./callable');
const { ENDINGS, findFile } = require('./files');
const { oneLine, stack } = require('./outcome');
const { stopAt } = require('./debug');
const { article, encoder } = require('./results');
const { FROM_APP, useHooks } = require('./resolve');

/** The code failed to load. */
class LoadError extends Error {
  constructor(summary, detail = '') {
    super(summary);
    this.detail = detail;
  }
}

/**
 * Loads the functions that the daemon requested. Returns their names, how to call them, and
 * whether they are async. Throws a LoadError.
 */
async function load(app, wanted, imports, canStream) {
  useHooks(app, imports);
  const functions = [];
  for (const { name, module, function: wantedName, results, outputs, reply = false } of wanted) {
    const specifier = find(app, module);
    const file = specifier.startsWith('file:') ? path.relative(app, fileURLToPath(specifier)) : module;
    let exported;
    try {
      exported = await import(specifier);
    } catch (error) {
      throw new LoadError(`loading ${file} from ${app}: ${oneLine(error)}${hint(error, app)}`, place(error, app, specifier) ?? stack(error));
    }
    const [run, owner] = pick(exported, wantedName);
    if (typeof run !== 'function') throw new LoadError(nothing(exported, file, wantedName, run));
    const streams = reply && canStream;
    const wrong = misfit(run, streams);
    if (wrong) throw new LoadError(`${wantedName} of ${file} ${wrong}; ${takes}`);
    stopAt(run);
    functions.push({
      name,
      run: owner === undefined ? run : run.bind(owner),
      isAsync: isAsync(run),
      encode: encoder(results, outputs, reply),
      streams,
      shown: results === 'shown',
      quick: 0,
      warned: false,
    });
  }
  return functions;
}

/** Returns the specifier of a module: a file of the app, or a package. */
function find(app, module) {
  const file = path.resolve(app, module);
  const relative = path.relative(app, file);
  if (!relative.startsWith('..') && !path.isAbsolute(relative)) {
    const found = findFile(file);
    if (found) return pathToFileURL(found).href;
  }
  if (module.startsWith('.') || path.isAbsolute(module)) {
    throw new LoadError(`there is no module ${module} in ${app}; drover looks for this name, for the name with ${ENDINGS.join(', ')}, and for a directory with a package.json or an index.js`);
  }
  return FROM_APP + module;
}

/**
 * Returns the export with a name, and its object if it is a method. Exports of a
 * CommonJS module that Node.js does not detect are only in its default export; so are all those
 * of a module whose default export is an object.
 */
function pick(exported, name) {
  const { default: whole } = exported;
  if (name === 'default') return typeof whole?.default === 'function' ? [whole.default] : [whole];
  if (name in exported) return [exported[name]];
  if (whole !== null && (typeof whole === 'object' || typeof whole === 'function')) return [whole[name], whole];
  return [undefined];
}

function nothing(exported, file, name, value) {
  if (value !== undefined) return `${name} of ${file} is not a function, but ${article(value)}`;
  const found = new Set(Object.keys(exported).filter((key) => typeof exported[key] === 'function'));
  const whole = exported.default;
  if (whole !== null && typeof whole === 'object') {
    for (const key of Object.keys(whole)) if (typeof whole[key] === 'function') found.add(key);
  }
  found.delete('module.exports'); // the default export, in newer versions
  return `${file} exports no function ${name}; it has: ${[...found].sort().join(', ') || 'none'}`;
}

/** Returns how to fix an error of an import. */
function hint(error, app) {
  if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') {
    const missing = /^Cannot find (?:module|package) '((?:@[^/']+\/)?[^./'][^/']*)/.exec(error.message)?.[1];
    if (missing && !missing.startsWith('file:')) return ` (by ${process.execPath}; to install it, in ${app}: npm install ${missing})`;
    return ` (by ${process.execPath})`;
  }
  if (error?.code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?ts"?/.test(error.message)) {
    return ` (by ${process.execPath}, Node.js ${process.versions.node}; 22.18 and newer run TypeScript: use one, or compile it)`;
  }
  return '';
}

// The time limit of a second import that finds the place of a syntax error, in ms.
const SECOND_LOOK = 10_000;

/**
 * Returns the place of a syntax error of an ES module. Node.js prints it only to standard
 * error, when the error ends it. So another Node.js imports the module.
 */
function place(error, app, specifier) {
  if (error?.name !== 'SyntaxError' || stack(error).includes('\n')) return undefined;
  const program = `require(${JSON.stringify(require.resolve('./resolve'))}).useHooks(${JSON.stringify(app)}); import(${JSON.stringify(specifier)});`;
  const { stderr } = spawnSync(process.execPath, ['--eval', program], { cwd: app, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'], timeout: SECOND_LOOK, killSignal: 'SIGKILL' });
  const at = stderr?.search(/^\S.*:\d+$/m);
  if (!stderr?.includes(oneLine(error)) || at < 0) return undefined;
  return stderr.slice(at).split('\n').filter((line) => !/^\s+at .*node:|^Node\.js v/.test(line)).join('\n').trim();
}

module.exports = { LoadError, load };

'use strict';
// Finds the files of modules. `drover check` runs this file, too, so it requires no other file of the
// worker.

const fs = require('node:fs');
const path = require('node:path');

const ENDINGS = ['.js', '.mjs', '.cjs', ...(process.features.typescript ? ['.ts', '.mts', '.cts'] : [])];

/** Returns the file of a module at a path: the path itself, with an ending, or a directory; undefined if there is none. */
function findFile(name) {
  return asFile(name) ?? asDirectory(name);
}

function asFile(file) {
  return ['', ...ENDINGS].map((ending) => file + ending).find((name) => fs.statSync(name, { throwIfNoEntry: false })?.isFile());
}

function asDirectory(dir) {
  let main;
  try {
    ({ main } = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')));
  } catch { /* package.json is optional */ }
  if (typeof main === 'string') {
    const found = asFile(path.join(dir, main)) ?? asFile(path.join(dir, main, 'index'));
    if (found) return found;
  }
  return asFile(path.join(dir, 'index'));
}

module.exports = { ENDINGS, findFile };

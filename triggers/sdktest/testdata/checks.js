// Runs named checks, and prints what came of each for the Go test.
"use strict";
const assert = require("node:assert/strict");
const { isDeepStrictEqual, inspect } = require("node:util");
inspect.defaultOptions.depth = 1;

const connection = process.argv[2];

async function main(checks) {
  let failed = false;
  for (const [name, run] of Object.entries(checks)) {
    let failure = "";
    const started = Date.now();
    try {
      await run();
    } catch (error) {
      failed = true;
      failure = error.stack || inspect(error);
    }
    console.log("CHECK " + JSON.stringify({ name, failure, seconds: (Date.now() - started) / 1000 }));
  }
  console.log("DONE", Object.keys(checks).length);
  process.exit(failed ? 1 : 0);
}

function same(got, want) {
  if (!isDeepStrictEqual(got, want)) assert.fail(`got ${inspect(got)}, want ${inspect(want)}`);
}

// rejects waits for a promise that must fail with an error that has these fields.
async function rejects(promise, fields) {
  let got;
  try {
    got = await promise;
  } catch (error) {
    for (const [name, want] of Object.entries(fields)) same(error[name], want);
    return error;
  }
  assert.fail(`resolved to ${inspect(got)}, want an error with ${inspect(fields)}`);
}

// entity creates a queue, topic or subscription through the emulator's admin API.
async function entity(path, kind = "Queue", description = {}) {
  const fields = Object.entries(description).map(([name, value]) => `<${name}>${value}</${name}>`).join("");
  const namespace = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect";
  const body = `<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">` +
    `<${kind}Description xmlns="${namespace}">${fields}</${kind}Description></content></entry>`;
  const host = /Endpoint=sb:\/\/([^;]*)/.exec(connection)[1];
  const answer = await fetch(`http://${host}/${path}`, { method: "PUT", body });
  same(answer.status, 201);
  return path;
}

module.exports = { connection, main, same, rejects, entity };

// How cases run and tell their end.
"use strict";

const { DaprClient, CommunicationProtocolEnum, LogLevel } = require("@dapr/dapr");

const patience = 20_000; // bounds what a case waits for; never a measure of speed
// The SDK logs each error that a case provokes: silence it.
const quiet = () => {};
const logger = { level: LogLevel.Error, service: { error: quiet, warn: quiet, info: quiet, verbose: quiet, debug: quiet } };
const protocols = { http: CommunicationProtocolEnum.HTTP, grpc: CommunicationProtocolEnum.GRPC };

// test runs one case to its end.
async function test(name, body) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${patience} ms`)), patience);
  });
  let error = "";
  try {
    await Promise.race([body(), late]);
  } catch (e) {
    error = String(e?.stack ?? e).slice(0, 2000) || "failed";
  }
  clearTimeout(timer);
  console.log("case " + JSON.stringify({ name, error }));
}

// until polls a condition and returns what it was, once it is truthy.
async function until(what, condition) {
  for (const end = Date.now() + patience; Date.now() < end; ) {
    const got = await condition();
    if (got) {
      return got;
    }
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error("never: " + what);
}

// failure is the error of a call that has to fail.
async function failure(call) {
  let got;
  try {
    got = await call;
  } catch (error) {
    return error?.error ?? error; // publish over gRPC throws { error }
  }
  if (got?.error) {
    return got.error; // some calls over HTTP return it
  }
  throw new Error("did not fail, but answered " + JSON.stringify(got));
}

// httpFailure is what an error of the HTTP client holds: the status and the body.
function httpFailure(error) {
  const { status, error_msg: text } = JSON.parse(error.message);
  let body = text;
  try {
    body = JSON.parse(text);
  } catch {
    // not all bodies are JSON
  }
  return { status, body };
}

// client makes an SDK client of a sidecar.
function client(protocol, node, more = {}) {
  return new DaprClient({
    daprHost: "127.0.0.1",
    daprPort: protocol === "http" ? node.HTTP : node.GRPC,
    communicationProtocol: protocols[protocol],
    logger,
    ...more,
  });
}

async function finish() {
  await new Promise((done) => process.stdout.write("", done));
}

module.exports = { test, until, failure, httpFailure, client, finish, logger, protocols };

// The published Dapr JavaScript SDK as client and server of sidecars that sdk_test.go has started. Each case ends with a
// line `case {"name": …, "error": …}` on standard output; what else is printed is for people.
"use strict";

const { serve } = require("./apps");
const { finish } = require("./cases");

// Where everything listens: see sdkNode in sdk_test.go.
const nodes = JSON.parse(process.env.COMPAT_NODES);

async function main() {
  const apps = { http: await serve("http", nodes.http), grpc: await serve("grpc", nodes.grpc) };
  for (const block of ["invocation", "state", "pubsub", "binding", "lock", "secrets", "configuration", "control"]) {
    await require("./" + block)(nodes, apps);
  }
  await finish();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);

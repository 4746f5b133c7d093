// Bindings: each app sends to one of its sidecar's and receives from another.
"use strict";

const assert = require("node:assert/strict");
const { test, until, failure, httpFailure, client } = require("./cases");

module.exports = async function bindings(nodes, apps) {
  for (const protocol of ["http", "grpc"]) {
    const { binding } = client(protocol, nodes[protocol]);

    await test(`binding/${protocol}/send`, async () => {
      const metadata = { fileName: "note" };
      const made = await binding.send("files", "create", { n: 1, s: "ü" }, metadata);
      assert.deepEqual(protocol === "http" ? made : JSON.parse(Buffer.from(made.data)), { fileName: "note" });
      const got = await binding.send("files", "get", "", metadata);
      assert.deepEqual(protocol === "http" ? got : JSON.parse(Buffer.from(got.data)), { n: 1, s: "ü" });
      await binding.send("files", "delete", "", metadata);
      for (const [name, operation] of [["files", "explode"], ["nope", "create"]]) {
        const error = await failure(binding.send(name, operation, "x"));
        if (protocol === "http") {
          const { status, body } = httpFailure(error);
          assert.deepEqual([status, body.errorCode], [500, "ERR_INVOKE_OUTPUT_BINDING"]);
        } else {
          assert.equal(error.code, 13); // Internal
        }
      }
    });

    await test(`binding/${protocol}/receive`, async () => {
      const seen = apps[protocol].ticks;
      await until("two events of the binding", () => seen.length >= 2);
    });
  }
};

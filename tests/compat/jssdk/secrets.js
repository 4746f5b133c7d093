// Secrets over both protocols.
"use strict";

const assert = require("node:assert/strict");
const { test, failure, httpFailure, client } = require("./cases");

module.exports = async function secrets(nodes) {
  for (const protocol of ["http", "grpc"]) {
    const { secret } = client(protocol, nodes.caller);
    const name = (what) => `secrets/${protocol}/${what}`;

    await test(name("get and get bulk"), async () => {
      assert.deepEqual(await secret.get("vault", "password"), { password: "hunter2" });
      if (protocol === "http") { // over gRPC the SDK returns the first part alone
        assert.deepEqual(await secret.get("vault", "db"), { user: "me", key: "k" });
      }
      const all = await secret.getBulk("vault");
      assert.deepEqual(all.password, { password: "hunter2" });
      assert.deepEqual(all.db, { user: "me", key: "k" });
    });

    await test(name("errors"), async () => {
      const fails = async (call, status, code, text) => {
        const error = await failure(call);
        if (protocol === "http") {
          const got = httpFailure(error);
          assert.deepEqual([got.status, got.body.message], [status, text]);
        } else {
          assert.deepEqual([error.code, error.rawMessage], [code, text]);
        }
      };
      await fails(secret.get("nope", "k"), 401, 3, "failed finding secret store with key nope");
      await fails(secret.getBulk("nope"), 401, 3, "failed finding secret store with key nope");
      await fails(secret.get("vault", "nope"), 500, 13, "failed getting secret with key nope from secret store vault: secret nope not found");
    });
  }
};

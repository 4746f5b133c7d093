// Locks over both protocols.
"use strict";

const assert = require("node:assert/strict");
const { test, until, failure, httpFailure, client } = require("./cases");

// The SDK's LockStatus, which it does not export.
const [success, doesNotExist, belongsToOthers] = [0, 1, 2];

module.exports = async function locks(nodes) {
  for (const protocol of ["http", "grpc"]) {
    const { lock } = client(protocol, nodes.caller);
    const name = (what) => `lock/${protocol}/${what}`;

    await test(name("lock and unlock"), async () => {
      const resource = protocol + "-resource";
      const take = (owner) => lock.lock("locks", resource, owner, 60);
      const free = (owner) => lock.unlock("locks", resource, owner);
      assert.deepEqual(await free("one"), { status: doesNotExist });
      assert.deepEqual(await take("one"), { success: true });
      assert.deepEqual(await take("two"), { success: false });
      assert.deepEqual(await take("one"), { success: false });
      assert.deepEqual(await free("two"), { status: belongsToOthers });
      assert.deepEqual(await free("one"), { status: success });
      assert.deepEqual(await take("two"), { success: true });
    });

    await test(name("expiry"), async () => {
      const resource = protocol + "-short";
      assert.deepEqual(await lock.lock("locks", resource, "one", 1), { success: true });
      await until("the lease ends", async () => (await lock.lock("locks", resource, "two", 60)).success);
      assert.deepEqual(await lock.unlock("locks", resource, "one"), { status: belongsToOthers });
    });

    await test(name("errors"), async () => {
      const fails = async (call, status, text) => {
        const error = await failure(call);
        if (protocol === "http") {
          const got = httpFailure(error);
          assert.equal(got.status, status);
          assert.match(got.body.message, text);
        } else {
          assert.equal(error.code, 3); // InvalidArgument
          assert.match(error.rawMessage, text);
        }
      };
      await fails(lock.lock("nope", "r", "o", 1), 400, /^lock store nope not found$/);
      await fails(lock.unlock("nope", "r", "o"), 400, /^lock store nope not found$/);
      await fails(lock.lock("locks", "", "o", 1), 400, /^ResourceId is empty in lock store locks/);
      await fails(lock.lock("locks", "r", "", 1), 400, /^LockOwner is empty in lock store locks/);
      await fails(lock.lock("locks", "r", "o", 0), 400, /^ExpiryInSeconds is not positive in lock store locks/);
    });
  }
};

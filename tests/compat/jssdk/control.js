// Metadata, health, tokens, what is not served, shutdown.
"use strict";

const assert = require("node:assert/strict");
const { test, until, failure, httpFailure, client } = require("./cases");

module.exports = async function control(nodes, apps) {
  for (const protocol of ["http", "grpc"]) {
    const name = (what) => `control/${protocol}/${what}`;
    const caller = client(protocol, nodes.caller);

    await test(name("metadata"), async () => {
      assert.equal(await caller.metadata.set(protocol + "-colour", "blue and green"), true);
      const got = await caller.metadata.get();
      assert.equal(got.id, nodes.caller.ID);
      assert.equal(got.extended[protocol + "-colour"], "blue and green");
      assert.equal(got.extended.daprRuntimeVersion, "1.18.3");
      assert.deepEqual(got.components.map((c) => `${c.name} ${c.type} ${c.version}`).sort(), [
        "bus pubsub.jetstream v1",
        "locks lock.in-memory v1",
        "settings configuration.jetstream v1",
        "store state.in-memory v1",
        "talker conversation.echo v1",
        "vault secretstores.local.file v1",
      ]);
      const { capabilities } = got.components.find((c) => c.name === "store");
      for (const can of ["ETAG", "TRANSACTIONAL", "TTL"]) {
        assert.ok(capabilities.includes(can), `${can} is not in ${capabilities}`);
      }
    });

    await test(name("health"), async () => {
      assert.equal(await caller.health.isHealthy(), true);
    });

    if (protocol === "http") {
      await test(name("app health"), async () => {
        // The SDK's gRPC app is always well.
        const { pubsub } = client("http", nodes.http);
        const call = () => caller.invoker.invoke(nodes.http.ID, "echo", "get");
        apps.http.events.splice(0);
        apps.http.well = false;
        await until("an unwell app is not called", () => call().then(() => false, (error) => httpFailure(error).status === 500));
        assert.deepEqual(await pubsub.publish("bus", "own/route", "later"), {});
        apps.http.well = true;
        await until("it is called again", () => call().then(() => true, () => false));
        assert.equal((await apps.http.arrived("own", 1))[0].data, "later");
      });
    }

    await test(name("token"), async () => {
      const guarded = client(protocol, nodes.guarded, { daprApiToken: nodes.guarded.Token });
      assert.equal((await guarded.metadata.get()).id, nodes.guarded.ID);
      await guarded.state.save("store", [{ key: "k", value: 1 }]);
      assert.equal(await guarded.state.get("store", "k"), 1);
    });

    await test(name("shutdown"), async () => {
      const node = nodes["ending-" + protocol];
      const ending = client(protocol, node);
      assert.equal(await ending.health.isHealthy(), true);
      await ending.sidecar.shutdown();
      await until("the sidecar is gone", async () => !(await ending.health.isHealthy()));
    });
  }
};

// Settings, which the SDK reads and follows over gRPC alone.
"use strict";

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const { test, until, failure, client } = require("./cases");

// set writes a setting as an operator does.
const set = (key, value) => execFileSync(process.env.COMPAT_SIDECAST, ["config", "set", key, value, "--store", "settings"]);

module.exports = async function configuration(nodes) {
  const { configuration: config } = client("grpc", nodes.caller);
  const values = ({ items }) => Object.fromEntries(Object.values(items).map((item) => [item.key, item.value]));

  await test("configuration/get", async () => {
    set("js-a", "1");
    set("js-b", "2");
    const got = await config.get("settings", ["js-a", "js-b", "absent"]);
    assert.deepEqual(values(got), { "js-a": "1", "js-b": "2" });
    assert.match(got.items["js-a"].version, /^[0-9]+$/);
    assert.equal(values(await config.get("settings"))["js-b"], "2");
    assert.equal((await failure(config.get("nope", ["k"]))).rawMessage, "configuration store nope not found");
  });

  await test("configuration/subscribe", async () => {
    const told = { some: {}, all: {} };
    const note = (whose) => async (change) => Object.assign(told[whose], values(change));
    const some = await config.subscribeWithKeys("settings", ["js-a"], note("some"));
    const all = await config.subscribe("settings", note("all"));
    let n = 0; // the SDK does not tell when a subscription has begun
    await until("a change is told", async () => {
      set("js-a", `value ${++n}`);
      return told.some["js-a"] && told.all["js-a"];
    });
    set("js-b", "3");
    await until("another change is told", async () => told.all["js-b"] === "3");
    assert.equal(told.some["js-b"], undefined);
    await until("the latest is told", async () => told.some["js-a"] === `value ${n}`);
    await some.stop();
    await all.stop();
  });
};

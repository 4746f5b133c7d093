// Publish and subscribe: each app has its own topics' events from clients of both protocols.
"use strict";

const assert = require("node:assert/strict");
const { test, failure, httpFailure, client } = require("./cases");

module.exports = async function pubsub(nodes, apps) {
  for (const to of ["http", "grpc"]) {
    const app = apps[to];
    const other = apps[to === "http" ? "grpc" : "http"];
    for (const from of ["http", "grpc"]) {
      const { pubsub } = client(from, nodes[to]);
      const name = (what) => `pubsub/${from}-${to}/${what}`;
      const clear = () => [app, other].forEach((a) => a.events.splice(0));
      // Every app gets each event: wait for all of them, so that none is late for the next case, and return those of this app.
      const arrived = async (route, n) => {
        await other.arrived(route, n);
        return app.arrived(route, n);
      };
      const publish = async (topic, data, options) => assert.deepEqual(await pubsub.publish("bus", topic, data, options), {});

      await test(name("publish"), async () => {
        clear();
        await publish("plain", { n: 1, s: "ü" });
        await publish("plain", "text");
        await publish("plain", 7);
        await publish("plain", Buffer.from("bytes"), { contentType: "application/octet-stream" });
        await publish("own/route", [1, 2]);
        const got = (await arrived("plain", 4)).map((e) => JSON.stringify(e.data)).sort();
        assert.deepEqual(got, [`"bytes"`, `"text"`, `{"n":1,"s":"ü"}`, to === "http" ? `"7"` : `7`].sort());
        assert.deepEqual((await arrived("own", 1))[0].data, [1, 2]);
      });

      await test(name("cloud events"), async () => {
        clear();
        const event = { specversion: "1.0", id: `${from}-${to}`, source: "here", type: "big", datacontenttype: "application/json", data: { n: 1 } };
        await publish("routed", event);
        assert.deepEqual((await arrived("big", 1))[0].data, { n: 1 });
        await publish("routed", { n: 9 }, { metadata: { "cloudevent.type": "big" } });
        assert.deepEqual((await arrived("big", 2))[1].data, { n: 9 });
      });

      await test(name("raw payload"), async () => {
        clear();
        await publish("raw", { n: 1 }, { metadata: { rawPayload: "true" } });
        assert.deepEqual((await arrived("raw", 1))[0].data, { n: 1 });
      });

      await test(name("routes"), async () => {
        clear();
        await publish("routed", { n: 9 });
        await publish("routed", { n: 5 });
        assert.deepEqual((await arrived("many", 1))[0].data, { n: 9 });
        assert.deepEqual((await arrived("rest", 1))[0].data, { n: 5 });
        assert.equal(app.of("big").length, 0);
      });

      await test(name("retry"), async () => {
        clear();
        const once = name("once"); // it is the third delivery that is taken
        await publish("again", once);
        assert.deepEqual((await arrived("again", 3)).map((e) => e.data), [once, once, once]);
      });

      await test(name("drop"), async () => {
        clear();
        await publish("drop", "away");
        await publish("drop", "too");
        assert.deepEqual((await arrived("drop", 2)).map((e) => e.data).sort(), ["away", "too"]);
        assert.equal(app.of("dead").length, 0);
      });

      await test(name("dead letters"), async () => {
        clear();
        await publish("dropped", "away");
        await publish("hopeless", "never");
        // Both apps dead-letter what both got, into one topic.
        const dead = await arrived("dead", 4);
        assert.deepEqual(dead.map((e) => e.data).sort(), ["away", "away", "never", "never"]);
        assert.equal(app.of("dropped").length, 1);
      });

      await test(name("bulk"), async () => {
        clear();
        const sent = ["one", { n: 2 }, { entryID: "mine", event: { n: 3 }, contentType: "application/json", metadata: { a: "b" } }];
        assert.deepEqual(await pubsub.publishBulk("bus", "plain", sent), { failedMessages: [] });
        const got = (await arrived("plain", 3)).map((e) => JSON.stringify(e.data)).sort();
        assert.deepEqual(got, [`"one"`, `{"n":2}`, `{"n":3}`]);
      });

      await test(name("bulk subscription"), async () => {
        clear();
        const sent = [1, 2, 3, 4, 5].map((n) => ({ from, to, n, retry: n === 2 }));
        assert.deepEqual(await pubsub.publishBulk("bus", "bulk", sent), { failedMessages: [] });
        const got = (await arrived("bulk", 6)).map((e) => e.data.n).sort(); // that one alone comes again
        assert.deepEqual(got, [1, 2, 2, 3, 4, 5]);
      });

      await test(name("errors"), async () => {
        const fails = async (call, status, code, tag) => {
          const error = await failure(call);
          if (from === "http") {
            const got = httpFailure(error);
            assert.deepEqual([got.status, got.body.errorCode], [status, tag]);
          } else {
            assert.equal(error.code, code);
          }
        };
        await fails(pubsub.publish("nope", "t", "x"), 404, 3, "ERR_PUBSUB_NOT_FOUND");
        await fails(pubsub.publish("bus", "secret", "x"), 403, 7, "ERR_PUBSUB_FORBIDDEN");
        await fails(pubsub.publish("bus", "plain", "x", { metadata: { rawPayload: "perhaps" } }), 400, 3, "ERR_PUBSUB_REQUEST_METADATA");
        for (const [bus, topic] of [["nope", "t"], ["bus", "secret"]]) {
          const { failedMessages } = await pubsub.publishBulk(bus, topic, ["x", "y"]);
          assert.equal(failedMessages.length, 2);
          assert.equal(failedMessages[0].message.event, "x");
          assert.ok(failedMessages[0].error);
        }
      });
    }
  }
};

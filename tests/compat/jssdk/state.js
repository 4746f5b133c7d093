// State over both protocols.
"use strict";

const assert = require("node:assert/strict");
const { StateConcurrencyEnum, StateConsistencyEnum } = require("@dapr/dapr");
const { test, until, failure, httpFailure, client } = require("./cases");

const first = { concurrency: StateConcurrencyEnum.CONCURRENCY_FIRST_WRITE, consistency: StateConsistencyEnum.CONSISTENCY_STRONG };

module.exports = async function state(nodes) {
  for (const protocol of ["http", "grpc"]) {
    const { state } = client(protocol, nodes.caller);
    const name = (what) => `state/${protocol}/${what}`;
    const key = (k) => `${protocol}-${k}`;
    const etagOf = async (k) => (await state.getBulk("store", [k]))[0].etag;
    const conflicts = (error) => {
      if (protocol === "http") {
        const { status, body } = httpFailure(error);
        assert.equal(status, 409);
        assert.match(body.errorCode, /^ERR_STATE_(SAVE|DELETE)$/);
        assert.match(body.message, /possible etag mismatch/);
      } else {
        assert.equal(error.code, 10); // Aborted
        assert.match(error.rawMessage, /possible etag mismatch/);
      }
    };

    await test(name("save and get"), async () => {
      const values = { object: { n: 1, s: "ü<&>", deep: [{ a: null }] }, text: "plain", number: 42, flag: true, list: [1, 2] };
      assert.deepEqual(await state.save("store", Object.entries(values).map(([k, value]) => ({ key: key(k), value }))), {});
      for (const [k, value] of Object.entries(values)) {
        assert.deepEqual(await state.get("store", key(k)), value);
        assert.deepEqual(await state.get("store", key(k), { consistency: StateConsistencyEnum.CONSISTENCY_STRONG }), value);
      }
      assert.equal(await state.get("store", key("absent")), "");
    });

    await test(name("bulk"), async () => {
      await state.save("store", [{ key: key("b1"), value: { n: 1 } }, { key: key("b2"), value: "two" }]);
      const got = await state.getBulk("store", [key("b1"), key("none"), key("b2")], { parallelism: 2 });
      assert.deepEqual(got.map((i) => i.key), [key("b1"), key("none"), key("b2")]);
      assert.deepEqual(got[0].data, { n: 1 });
      assert.ok(!got[1].data && !got[1].etag);
      assert.equal(got[2].data, "two");
      assert.ok(got[0].etag && got[2].etag);
    });

    await test(name("etags"), async () => {
      const k = key("etag");
      await state.save("store", [{ key: k, value: 1 }]);
      const etag = await etagOf(k);
      conflicts(await failure(state.save("store", [{ key: k, value: 9, etag: "wrong", options: first }])));
      conflicts(await failure(state.save("store", [{ key: k, value: 9, options: { ...first } }]))); // it is there already
      assert.deepEqual(await state.save("store", [{ key: k, value: 2, etag, options: { ...first } }]), {});
      conflicts(await failure(state.save("store", [{ key: k, value: 3, etag, options: { ...first } }])));
      conflicts(await failure(state.delete("store", k, { etag, ...first })));
      assert.equal(await state.get("store", k), 2);
      assert.deepEqual(await state.delete("store", k, { etag: await etagOf(k), ...first }), {});
      assert.equal(await state.get("store", k), "");
    });

    await test(name("delete"), async () => {
      await state.save("store", [{ key: key("gone"), value: 1 }]);
      assert.deepEqual(await state.delete("store", key("gone")), {});
      assert.deepEqual(await state.delete("store", key("gone")), {}); // what is not there is deleted already
      assert.equal(await state.get("store", key("gone")), "");
    });

    await test(name("ttl"), async () => {
      await state.save("store", [{ key: key("ttl"), value: "short" }], { metadata: { ttlInSeconds: "1" } });
      await state.save("store", [{ key: key("ttl2"), value: "short", metadata: { ttlInSeconds: "1" } }]);
      await state.save("store", [{ key: key("ttl3"), value: "stays", metadata: { ttlInSeconds: "1000" } }]);
      await until("both expire", async () => !(await state.get("store", key("ttl"))) && !(await state.get("store", key("ttl2"))));
      assert.equal(await state.get("store", key("ttl3")), "stays");
    });

    await test(name("transaction"), async () => {
      await state.save("store", [{ key: key("t1"), value: "old" }]);
      await state.transaction(
        "store",
        [
          { operation: "upsert", request: { key: key("t2"), value: "new" } },
          { operation: "delete", request: { key: key("t1") } },
        ],
        { some: "metadata" },
      );
      assert.equal(await state.get("store", key("t1")), "");
      assert.equal(await state.get("store", key("t2")), "new");
      const error = await failure(
        state.transaction("store", [
          { operation: "upsert", request: { key: key("t3"), value: "x" } },
          { operation: "upsert", request: { key: key("t2"), value: "x", etag: "wrong", options: first } },
        ]),
      );
      if (protocol === "http") {
        const { status, body } = httpFailure(error);
        assert.deepEqual([status, body.errorCode], [500, "ERR_STATE_TRANSACTION"]);
      } else {
        assert.equal(error.code, 13);
      }
      assert.equal(await state.get("store", key("t3")), ""); // nothing of it was done
      assert.equal(await state.get("store", key("t2")), "new");
    });

    if (nodes.queried) {
      await test(name("query"), async () => {
        const { state } = client(protocol, nodes.queried);
        const people = { ann: ["Bern", 30], bob: ["Basel", 40], eve: ["Bern", 50] };
        await state.save("people", Object.entries(people).map(([k, [city, age]]) => (
          { key: key(k), value: { city, age, by: protocol }, metadata: { contentType: "application/json" } })));
        const filter = { AND: [{ EQ: { by: protocol } }, { EQ: { city: "Bern" } }] };
        const found = await state.query("people", { filter, sort: [{ key: "age", order: "DESC" }] });
        assert.deepEqual(found.results.map((r) => r.key), [key("eve"), key("ann")]);
        const first = found.results[0];
        assert.ok(first.etag);
        const data = protocol === "http" ? first.data : JSON.parse(Buffer.from(first.data).toString());
        assert.deepEqual(data, { city: "Bern", age: 50, by: protocol });
        const page = await state.query("people", { filter, sort: [{ key: "age" }], page: { limit: 1 } });
        assert.deepEqual(page.results.map((r) => r.key), [key("ann")]);
        const next = await state.query("people", { filter, sort: [{ key: "age" }], page: { limit: 1, token: page.token } });
        assert.deepEqual(next.results.map((r) => r.key), [key("eve")]);
        const none = await state.query("people", { filter: { EQ: { city: "nowhere" } } });
        assert.deepEqual(none.results, []);
        const error = await failure(state.query("people", { filter: { LIKE: { city: "B" } } }));
        const text = protocol === "http" ? httpFailure(error).body.message : error.rawMessage;
        assert.match(text, /^state store people query failed: .*unsupported filter/);
      });
    }

    await test(name("errors"), async () => {
      const fails = async (call, status, code, text) => {
        const error = await failure(call);
        if (protocol === "http") {
          const got = httpFailure(error);
          assert.equal(got.status, status);
          assert.match(got.body.message, text);
        } else {
          assert.equal(error.code, code);
          assert.match(error.rawMessage, text);
        }
      };
      const none = /^state store nope is not found$/;
      await fails(state.get("nope", "k"), 400, 3, none);
      await fails(state.getBulk("nope", ["k"]), 400, 3, none);
      await fails(state.save("nope", [{ key: "k", value: 1 }]), 400, 3, none);
      await fails(state.delete("nope", "k"), 400, 3, none);
      await fails(state.transaction("nope", [{ operation: "delete", request: { key: "k" } }]), 400, 3, none);
      const key = protocol === "http"
        ? /^api error: code = InvalidArgument desc = input key\/keyPrefix 'a\|\|b' can't contain '\|\|'$/
        : /^input key\/keyPrefix 'a\|\|b' can't contain '\|\|'$/;
      await fails(state.get("store", "a||b"), 400, 3, key);
      await fails(state.query("store", { filter: {} }), 500, 13, /^state store does not support querying$/);
    });
  }
};

// Service invocation: each protocol to apps of each.
"use strict";

const assert = require("node:assert/strict");
const { test, failure, httpFailure, client } = require("./cases");
const { verbs } = require("./apps");

module.exports = async function invocation(nodes, apps) {
  for (const from of ["http", "grpc"]) {
    const caller = client(from, nodes.caller);
    for (const to of ["http", "grpc"]) {
      const { ID: id } = nodes[to];
      const name = (what) => `invocation/${from}-${to}/${what}`;

      await test(name("verbs"), async () => {
        for (const verb of verbs) {
          // What has a body and what has none: the SDK sends null for none over HTTP.
          const data = verb === "get" ? undefined : { n: 1, text: "ü<&>" };
          const got = await caller.invoker.invoke(id, "echo", verb, data);
          assert.equal(got.method, verb);
          if (data) {
            assert.deepEqual(JSON.parse(got.body), data);
            assert.equal(got.type, "application/json");
          }
        }
        assert.equal((await caller.invoker.invoke(id + ".default", "echo", "get")).method, "get"); // with its namespace
      });

      await test(name("text and bytes"), async () => {
        const text = await caller.invoker.invoke(id, "echo", "post", "ü");
        assert.deepEqual([text.body, text.type], [to === "http" ? `"ü"` : "ü", "text/plain"]);
        const bytes = await caller.invoker.invoke(id, "echo", "put", Buffer.from("bytes"));
        assert.deepEqual([bytes.body, bytes.type], [to === "http" ? JSON.stringify(Buffer.from("bytes")) : "bytes", "application/octet-stream"]);
      });

      await test(name("a large body"), async () => {
        const text = "0123456789abcdef".repeat(3 << 16); // 3 MiB
        const got = await caller.invoker.invoke(id, "echo", "post", { text });
        assert.equal(JSON.parse(got.body).text.length, text.length);
      });

      if (from === "http" && to === "http") {
        await test(name("headers and query"), async () => {
          const got = await caller.invoker.invoke(id, "echo?a=1&b=%20&a=2", "get", undefined, { headers: { "x-custom": "mine" } });
          assert.equal(got.query, "/echo?a=1&b=%20&a=2");
          assert.equal(got.headers["x-custom"], "mine");
          assert.equal(got.headers["dapr-caller-app-id"], nodes.caller.ID);
          assert.equal(got.headers["dapr-callee-app-id"], id);
          assert.match(got.headers["user-agent"], /^dapr-sdk-js/);
          assert.match(got.headers.traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
          const trace = "0af7651916cd43dd8448eb211c80319c";
          const traced = await caller.invoker.invoke(id, "echo", "get", undefined, { headers: { traceparent: `00-${trace}-b7ad6b7169203331-01` } });
          assert.equal(traced.headers.traceparent.split("-")[1], trace);
        });
      }

      await test(name("errors"), async () => {
        const absent = await failure(caller.invoker.invoke("nobody", "x", "get"));
        if (from === "http") {
          const { status, body } = httpFailure(absent);
          assert.equal(status, 500);
          assert.equal(body.errorCode, "ERR_DIRECT_INVOKE");
          assert.match(body.message, /^failed to invoke, id: nobody, err: couldn't find service: nobody$/);
        } else {
          assert.equal(absent.code, 13); // Internal
          assert.match(absent.rawMessage, /^failed to invoke, id: nobody, err: couldn't find service: nobody$/);
        }
        const missing = caller.invoker.invoke(id, "missing", "get");
        if (from === "http" && to === "http") {
          const { status, body } = httpFailure(await failure(missing));
          assert.equal(status, 404);
          assert.match(body, /Cannot GET \/missing/);
        } else if (to === "http") {
          assert.equal((await failure(missing)).code, 5); // NotFound
        } else if (from === "http") {
          assert.equal(await missing, ""); // the SDK's gRPC app answers what it does not know with nothing,
        } else {
          assert.match((await failure(missing)).message, /COULD_NOT_PARSE_RESULT/); // which its client does not take
        }
        const broken = await failure(caller.invoker.invoke(id, "broken", "get"));
        if (from === "http") {
          assert.equal(httpFailure(broken).status, to === "http" ? 418 : 500);
        } else {
          assert.equal(broken.code, to === "http" ? 2 : 13); // Unknown, Internal
        }
      });
    }
  }
};

// The apps: one of each protocol, with the same methods and subscriptions.
"use strict";

const { DaprServer, HttpMethod, DaprPubSubStatusEnum } = require("@dapr/dapr");
const { logger, protocols, client, until } = require("./cases");

const verbs = Object.values(HttpMethod);

// serve starts the app of a protocol and returns it when its sidecar has its subscriptions.
async function serve(protocol, node) {
  const server = new DaprServer({
    serverHost: "127.0.0.1",
    serverPort: node.App,
    communicationProtocol: protocols[protocol],
    clientOptions: {
      daprHost: "127.0.0.1",
      daprPort: protocol === "http" ? node.HTTP : node.GRPC,
      communicationProtocol: protocols[protocol],
      logger,
    },
    logger,
  });
  const app = { protocol, node, server, events: [], well: true };
  for (const method of verbs) {
    await server.invoker.listen(
      "echo",
      async (data) => ({ method, body: data.body, type: data.metadata?.contentType, headers: data.headers, query: data.query }),
      { method },
    );
  }
  if (protocol === "http") {
    // The SDK has no way for a method to fail over HTTP, but its server is Express.
    server.daprServer.getServer().get("/broken", (request, response) => response.status(418).send("no"));
    server.daprServer.getServer().get("/healthz", (request, response) => response.status(app.well ? 200 : 503).end());
  } else {
    await server.invoker.listen("broken", async () => {
      throw new Error("no");
    });
  }
  app.ticks = [];
  await server.binding.receive("tick", async (data) => app.ticks.push(data));
  await subscribe(app);
  await server.start();
  const sidecar = client("http", node);
  await until(protocol + " app is subscribed", async () => {
    const { subscriptions = [] } = await sidecar.metadata.get();
    return subscriptions.length === app.subscriptions;
  });
  return app;
}

async function subscribe(app) {
  const { pubsub } = app.server;
  const { SUCCESS, RETRY, DROP } = DaprPubSubStatusEnum;
  const times = new Map(); // that something came, by route and data
  const record = (route, says = () => SUCCESS) => async (data, headers) => {
    app.events.push({ route, data, headers });
    const what = route + JSON.stringify(data);
    times.set(what, (times.get(what) ?? 0) + 1);
    return says(times.get(what), data);
  };
  app.of = (route) => app.events.filter((e) => e.route === route);
  app.arrived = (route, n) => until(`${n} events of ${route}`, () => app.of(route).length >= n && app.of(route));

  await pubsub.subscribe("bus", "plain", record("plain"));
  await pubsub.subscribe("bus", "own/route", record("own"), "/own");
  await pubsub.subscribe("bus", "raw", record("raw"), undefined, { rawPayload: true });
  const rules = [
    { match: `event.type == "big"`, path: "/big" },
    { match: `event.data.n > 5`, path: "/many" },
  ];
  await pubsub.subscribeWithOptions("bus", "routed", { route: { default: "/rest", rules } });
  for (const route of ["big", "many", "rest"]) {
    pubsub.subscribeToRoute("bus", "routed", "/" + route, record(route));
  }
  await pubsub.subscribe("bus", "again", record("again", (n) => (n < 3 ? RETRY : SUCCESS)));
  await pubsub.subscribe("bus", "drop", record("drop", () => DROP));
  for (const [topic, status] of [["dropped", DROP], ["hopeless", RETRY]]) {
    await pubsub.subscribeWithOptions("bus", topic, { deadLetterTopic: "dead", callback: record(topic, () => status) });
  }
  await pubsub.subscribe("bus", "dead", record("dead"));
  await pubsub.subscribeBulk("bus", "bulk", record("bulk", (n, data) => (n === 1 && data.retry ? RETRY : SUCCESS)), {
    maxMessagesCount: 3,
    maxAwaitDurationMs: 100,
  });
  app.subscriptions = 10;
}

module.exports = { serve, verbs };

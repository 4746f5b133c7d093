"""The apps: one with each of the SDK's server extensions, with the same methods and subscriptions."""

import base64
import collections
import json
import threading
import urllib.request

import fastapi
import flask
import uvicorn
import werkzeug.serving
from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.fastapi import DaprApp as FastAPIDaprApp
from dapr.ext.flask import DaprApp as FlaskDaprApp
from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse, Rule, SubscriptionMessage

import grpc
from cases import until

VERBS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

# TOPICS are what every app subscribes to, with the metadata and the dead-letter topic.
TOPICS = {
    'plain': ({}, None),
    'raw': ({'rawPayload': 'true'}, None),
    'again': ({}, None),
    'drop': ({}, None),
    'dropped': ({}, 'dead'),
    'hopeless': ({}, 'dead'),
    'dead': ({}, None),
}


class Recorder:
    """What came to an app, and what it says."""

    def __init__(self, name):
        self.name = name
        self.subscriptions = len(TOPICS)
        self.well = True  # what the app says of its health
        self.ticks = 0  # events of a binding
        self._lock = threading.Lock()
        self._events = collections.defaultdict(list)
        self._times = collections.Counter()

    def take(self, route, event):
        """Records an event, a dict with `data`, and returns the status."""
        with self._lock:
            self._events[route].append(event)
            what = route + repr(event['data'])
            self._times[what] += 1
            if route == 'hopeless' or route == 'again' and self._times[what] < 3:
                return 'RETRY'
            return 'DROP' if route in ('drop', 'dropped') else 'SUCCESS'

    def tick(self):
        with self._lock:
            self.ticks += 1

    def of(self, route):
        with self._lock:
            return list(self._events[route])

    def arrived(self, route, n):
        return until(f'{n} events of {route}', lambda: len(self.of(route)) >= n and self.of(route))

    def clear(self):
        with self._lock:
            self._events.clear()


def serve(nodes):
    """Starts the apps, and returns their recorders when their sidecars have the subscriptions."""
    served = {}
    for name, start in (('grpc', serve_grpc), ('fastapi', serve_fastapi), ('flask', serve_flask)):
        served[name] = Recorder(name)
        start(served[name], int(nodes[name]['App']))
    for name, recorder in served.items():
        url = f'http://127.0.0.1:{nodes[name]["HTTP"]}/v1.0/metadata'

        def subscribed():
            with urllib.request.urlopen(url) as answer:
                return len(json.load(answer).get('subscriptions', [])) == recorder.subscriptions

        until(f'the {name} app is subscribed', subscribed)
    return served


def background(run, *args):
    threading.Thread(target=run, args=args, daemon=True).start()


def serve_grpc(recorder, port):
    app = App()

    @app.method('echo')
    def echo(request: InvokeMethodRequest):
        metadata = {key: value[0] if isinstance(value, list) else value for key, value in request.metadata.items()}
        answer = InvokeMethodResponse(json.dumps({
            'body': request.text(), 'type': request.content_type,
            'callers': [metadata.get('dapr-caller-app-id'), metadata.get('dapr-callee-app-id')],
            'custom': metadata.get('x-custom'), 'trace': metadata.get('traceparent'),
        }), 'application/json')
        answer.headers = (('x-answer', 'yes'),)
        return answer

    @app.method('broken')
    def broken(request):
        raise ValueError('no')

    def subscribe(topic, metadata, dead):
        @app.subscribe('bus', topic, metadata=metadata, dead_letter_topic=dead)
        def handle(event: SubscriptionMessage):
            data = event.data() if event.data() is not None else event.raw_data()
            if topic == 'raw':
                data = json.loads(data)
            status = recorder.take(topic, {'data': data, 'id': event.id(), 'type': event.type(), 'source': event.source(),
                                           'topic': event.topic(), 'pubsubname': event.pubsub_name(), 'extensions': event.extensions()})
            return TopicEventResponse(status.lower())

    for topic, (metadata, dead) in TOPICS.items():
        subscribe(topic, metadata, dead)

    # The old kind of handler, with rules: the paths are the names of the functions.
    @app.subscribe('bus', 'routed', rule=Rule('event.type == "big"', 1))
    def big(event):
        recorder.take('big', {'data': json.loads(event.Data())})

    @app.subscribe('bus', 'routed', rule=Rule('event.data.n > 5', 2))
    def many(event):
        recorder.take('many', {'data': json.loads(event.Data())})

    recorder.subscriptions += 1

    @app.binding('tick')
    def tick(request):
        recorder.tick()

    def health():
        if not recorder.well:
            raise ValueError('not well')

    app.register_health_check(health)
    app.add_external_service(lambda servicer, server: server.add_generic_rpc_handlers((servicer,)), Demo())
    background(app.run, port, '127.0.0.1')


class Demo(grpc.GenericRpcHandler):
    """A gRPC service of the app's own, of bytes, for calls through the sidecar's proxy."""

    def service(self, details):
        def one(request, context):
            if request == b'fail':
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'not so')
            context.send_initial_metadata((('x-custom', dict(context.invocation_metadata()).get('x-custom', '')),))
            context.set_trailing_metadata((('x-trailer', 'yes'),))
            return b'one ' + request

        def many(request, context):
            for i in range(3):
                yield b'%d ' % i + request

        return {
            '/demo.Demo/Unary': grpc.unary_unary_rpc_method_handler(one),
            '/demo.Demo/Server': grpc.unary_stream_rpc_method_handler(many),
            '/demo.Demo/Client': grpc.stream_unary_rpc_method_handler(lambda requests, context: b' '.join(requests)),
            '/demo.Demo/Both': grpc.stream_stream_rpc_method_handler(lambda requests, context: (b'<' + r + b'>' for r in requests)),
        }.get(details.method)


def received(recorder, topic, event):
    """Records an event of an HTTP app, as JSON, and returns the answer."""
    data = event['data'] if 'data' in event else base64.b64decode(event['data_base64'])
    if topic == 'raw':
        data = json.loads(data)
    return {'status': recorder.take(topic, {**event, 'data': data})}


def serve_fastapi(recorder, port):
    app = fastapi.FastAPI()
    dapr = FastAPIDaprApp(app)

    @app.api_route('/echo', methods=VERBS)
    async def echo(request: fastapi.Request, response: fastapi.Response):
        response.headers['x-answer'] = 'yes'
        return echoed(request.method, (await request.body()).decode(), request.headers, request.url.query)

    @app.get('/healthz')
    async def health():
        return fastapi.Response(status_code=200 if recorder.well else 503)

    @app.post('/tick')
    async def tick():
        recorder.tick()

    @app.get('/broken')
    async def broken():
        return fastapi.responses.JSONResponse({'error': 'no'}, status_code=418)

    def subscribe(topic, metadata, dead):
        @dapr.subscribe('bus', topic, metadata=metadata, dead_letter_topic=dead)
        def handle(event: dict = fastapi.Body()):
            return received(recorder, topic, event)

    for topic, (metadata, dead) in TOPICS.items():
        subscribe(topic, metadata, dead)
    background(uvicorn.Server(uvicorn.Config(app, host='127.0.0.1', port=port, log_level='error')).run)


def serve_flask(recorder, port):
    app = flask.Flask('app')
    dapr = FlaskDaprApp(app)

    @app.route('/echo', methods=VERBS)
    def echo():
        request = flask.request
        return echoed(request.method, request.get_data(as_text=True), request.headers, request.query_string.decode()), 200, {'x-answer': 'yes'}

    @app.get('/healthz')
    def health():
        return '', 200 if recorder.well else 503

    @app.post('/tick')
    def tick():
        recorder.tick()
        return ''

    @app.get('/broken')
    def broken():
        return {'error': 'no'}, 418

    def subscribe(topic, metadata, dead):
        @dapr.subscribe('bus', topic, metadata=metadata, route=f'/on/{topic}', dead_letter_topic=dead)
        def handle():
            return received(recorder, topic, flask.request.get_json())

    for topic, (metadata, dead) in TOPICS.items():
        subscribe(topic, metadata, dead)
    quiet = type('Quiet', (werkzeug.serving.WSGIRequestHandler,), {'log': lambda *args: None})
    background(werkzeug.serving.make_server('127.0.0.1', port, app, threaded=True, request_handler=quiet).serve_forever)


def echoed(verb, body, headers, query):
    return {
        'verb': verb, 'body': body, 'type': headers.get('content-type'), 'query': query, 'custom': headers.get('x-custom'),
        'trace': headers.get('traceparent'),
        'callers': [headers.get('dapr-caller-app-id'), headers.get('dapr-callee-app-id')],
    }

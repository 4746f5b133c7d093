"""Publish and subscribe: each app gets the events that its sidecar is given."""

import json

from apps import TOPICS
from cases import case, client, equal, failure
from dapr.clients import BulkPublishEntry
from dapr.clients.exceptions import DaprGrpcError

from grpc import StatusCode


def run(nodes, apps):
    for to, app in apps.items():
        deliver(nodes, to, app, list(apps.values()))
    errors(client(nodes['caller']))


def deliver(nodes, to, app, everyone):
    d = client(nodes[to])

    def arrived(route, n):
        """Waits until every app has all events, so that none is late for the next case, and returns those of this one."""
        for a in everyone:
            if route in TOPICS or a is app:
                a.arrived(route, n)
        return app.of(route)

    def publish(topic, data, **more):
        d.publish_event('bus', topic, data, **more)

    def named(what):
        for a in everyone:
            a.clear()
        return case(f'pubsub/{to}/{what}')

    with named('publish'):
        publish('plain', json.dumps({'n': 1, 's': 'ü'}), data_content_type='application/json')
        publish('plain', 'text ü', data_content_type='text/plain')
        publish('plain', b'\x00\xff', data_content_type='application/octet-stream')
        publish('plain', '7')
        got = arrived('plain', 4)
        want = [{'n': 1, 's': 'ü'}, 'text ü', b'\x00\xff', '7']
        equal(sorted(repr(e['data']) for e in got), sorted(map(repr, want)))
        for event in got:
            assert (event['extensions'] if to == 'grpc' else event)['traceparent'].startswith('00-'), event
            equal([event['type'], event['topic'], event['pubsubname'], event['source']], ['com.dapr.event.sent', 'plain', 'bus', nodes[to]['ID']])

    with named('cloud events'):
        event = {'specversion': '1.0', 'id': f'mine-{to}', 'source': 'here', 'type': 'made', 'ext': 'more',
                 'datacontenttype': 'application/json', 'data': {'n': 1}}
        publish('plain', json.dumps(event), data_content_type='application/cloudevents+json')
        publish('plain', 'x', publish_metadata={'cloudevent.id': f'his-{to}', 'cloudevent.type': 'other'}, data_content_type='text/plain')
        got = {e['id']: e for e in arrived('plain', 2)}
        one, two = got[f'mine-{to}'], got[f'his-{to}']
        equal([one['source'], one['type'], one['data']], ['here', 'made', {'n': 1}])
        equal((one['extensions'] if to == 'grpc' else one)['ext'], 'more')
        equal([two['type'], two['data']], ['other', 'x'])

    with named('raw payload'):
        publish('raw', json.dumps({'n': 1}), publish_metadata={'rawPayload': 'true'}, data_content_type='application/json')
        equal(arrived('raw', 1)[0]['data'], {'n': 1})

    if to == 'grpc':
        with named('routes'):
            publish('routed', json.dumps({'n': 9}), data_content_type='application/json')
            publish('routed', json.dumps({'n': 5}), data_content_type='application/json', publish_metadata={'cloudevent.type': 'big'})
            equal(arrived('many', 1)[0]['data'], {'n': 9})
            equal(arrived('big', 1)[0]['data'], {'n': 5})

    with named('retry'):
        publish('again', f'once-{to}', data_content_type='text/plain')
        equal([e['data'] for e in arrived('again', 3)], [f'once-{to}'] * 3)  # it is the third delivery that is taken

    with named('drop'):
        publish('drop', 'away', data_content_type='text/plain')
        publish('drop', 'too', data_content_type='text/plain')
        equal(sorted(e['data'] for e in arrived('drop', 2)), ['away', 'too'])
        equal(app.of('dead'), [])

    with named('dead letters'):
        publish('dropped', 'away', data_content_type='text/plain')
        publish('hopeless', 'never', data_content_type='text/plain')
        # All three apps dead-letter what all got, into one topic.
        equal(sorted(e['data'] for e in arrived('dead', 6)), ['away'] * 3 + ['never'] * 3)
        equal(len(app.of('dropped')), 1)

    with named('bulk'):
        failed = d.publish_events('bus', 'plain', [
            'one', b'two', BulkPublishEntry(event='{"n": 3}', content_type='application/json', metadata={'cloudevent.type': 'third'}),
        ], data_content_type='text/plain').failed_entries
        equal(list(failed), [])
        got = arrived('plain', 3)
        equal(sorted(repr(e['data']) for e in got), sorted(map(repr, ['one', 'two', {'n': 3}])))
        equal([e['data'] for e in got if e['type'] == 'third'], [{'n': 3}])


def errors(d):
    with case('pubsub/errors'):
        def fails(code, reason, message, call, *args, **kwargs):
            error = failure(DaprGrpcError, call, *args, **kwargs)
            equal((error.code(), error.error_code(), error.details()), (code, reason, message))

        for call, data in ((d.publish_event, 'x'), (d.publish_events, ['x', 'y'])):
            fails(StatusCode.INVALID_ARGUMENT, 'DAPR_PUBSUB_NOT_FOUND', 'pubsub nope is not found', call, 'nope', 't', data)
            error = failure(DaprGrpcError, call, 'bus', 'secret', data)
            equal((error.code(), error.error_code()), (StatusCode.PERMISSION_DENIED, 'DAPR_PUBSUB_FORBIDDEN'))
            error = failure(DaprGrpcError, call, 'bus', 'plain', data, publish_metadata={'rawPayload': 'perhaps'})
            equal((error.code(), error.error_code()), (StatusCode.INVALID_ARGUMENT, 'DAPR_PUBSUB_METADATA_DESERIALIZATION'))

"""Metadata, health, tokens, what is not served, shutdown."""

import urllib.error
import urllib.request

from cases import case, client, equal, failure, settings_of, until
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError, DaprHttpError
from dapr.clients.health import DaprHealth
from dapr.common.pubsub.subscription import StreamReconnectError

from grpc import RpcError, StatusCode


def run(nodes, apps):
    d = client(nodes['caller'])

    with case('control/metadata'):
        d.set_metadata('colour', 'blue and green')
        got = d.get_metadata()
        equal((got.application_id, got.extended_metadata['colour']), (nodes['caller']['ID'], 'blue and green'))
        equal(sorted((c.name, c.type, c.version) for c in got.registered_components),
              [('bus', 'pubsub.jetstream', 'v1'), ('locks', 'lock.in-memory', 'v1'),
               ('settings', 'configuration.jetstream', 'v1'), ('store', 'state.in-memory', 'v1'),
               ('talker', 'conversation.echo', 'v1'), ('vault', 'secretstores.local.file', 'v1')])
        can = next(c.capabilities for c in got.registered_components if c.name == 'store')
        for capability in ('ETAG', 'TRANSACTIONAL', 'TTL'):
            assert capability in can, can
        equal(got.active_actors_count, {})

    with case('control/health'):
        DaprHealth.wait_for_sidecar()
        d.wait(5)

    with case('control/app health'):
        for app in apps.values():
            app.clear()
            app.well = False

        def answers(name):
            try:
                return d.invoke_method(nodes[name]['ID'], 'echo', 'x', http_verb='POST').status_code == 200
            except DaprHttpError as error:
                equal((error.status_code, error.error_code), (500, 'ERR_DIRECT_INVOKE'))

        for name in apps:
            until('an unwell app is not called', lambda: not answers(name))
        d.publish_event('bus', 'plain', 'later', data_content_type='text/plain')
        for name, app in apps.items():
            equal(app.of('plain'), [])
            app.well = True
            until('it is called again', lambda: answers(name))
            equal(app.arrived('plain', 1)[0]['data'], 'later')

    with case('control/token'):
        guarded = client(nodes['guarded'])
        equal(guarded.get_metadata().application_id, nodes['guarded']['ID'])
        guarded.save_state('store', 'k', 'v')
        with settings_of({**nodes['guarded'], 'Token': 'wrong'}):
            error = failure(DaprGrpcError, DaprClient().get_metadata)
        equal(error.code(), StatusCode.UNAUTHENTICATED)

    with case('control/shutdown'):
        ending = client(nodes['ending-grpc'])
        live = ending.subscribe('bus', 'ending')
        ending.shutdown()
        failure(StreamReconnectError, live.next_message)  # it ended in a way after which the SDK tries again
        client(nodes['ending-http']).shutdown()
        for name in ('ending-http', 'ending-grpc'):
            url = f'http://127.0.0.1:{nodes[name]["HTTP"]}/v1.0/healthz'

            def gone():
                try:
                    urllib.request.urlopen(url).close()
                except urllib.error.HTTPError:
                    return False
                except OSError:
                    return True

            until(f'{name} is gone', gone)

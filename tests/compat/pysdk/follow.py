"""Settings over gRPC."""

import os
import subprocess

from cases import case, client, equal, failure, until

from grpc import RpcError, StatusCode


def put(key, value):
    """Writes a setting as an operator does."""
    subprocess.run([os.environ['COMPAT_SIDECAST'], 'config', 'set', key, value, '--store', 'settings'], check=True)


def run(nodes, apps):
    d = client(nodes['caller'])

    with case('configuration/get'):
        put('py-a', '1')
        put('py-b', '2')
        got = d.get_configuration('settings', ['py-a', 'py-b', 'absent']).items
        equal({key: item.value for key, item in got.items()}, {'py-a': '1', 'py-b': '2'})
        assert got['py-a'].version.isdigit(), got['py-a'].version
        equal(d.get_configuration('settings', []).items['py-b'].value, '2')
        error = failure(RpcError, d.get_configuration, 'nope', ['k'])
        equal((error.code(), error.details()), (StatusCode.INVALID_ARGUMENT, 'configuration store nope not found'))

    with case('configuration/subscribe'):
        told = {}
        subscription = d.subscribe_configuration(
            'settings', ['py-a'], lambda _, change: told.update((key, item.value) for key, item in change.items.items()))
        assert subscription
        put('py-b', '3')
        put('py-a', '4')
        until('a change is told', lambda: told == {'py-a': '4'})
        equal(d.unsubscribe_configuration('settings', subscription), True)
        equal(d.unsubscribe_configuration('settings', subscription), False)

"""Bindings: operations over gRPC, and events to each app."""

import json

from cases import case, client, equal, failure, until

from grpc import RpcError, StatusCode


def run(nodes, apps):
    d = client(nodes['grpc'])

    with case('binding/invoke'):
        made = d.invoke_binding('files', 'create', json.dumps({'n': 1}), {'fileName': 'note'})
        equal(made.json(), {'fileName': 'note'})
        equal(d.invoke_binding('files', 'get', '', {'fileName': 'note'}).json(), {'n': 1})
        equal(d.invoke_binding('files', 'delete', '', {'fileName': 'note'}).data, b'')
        for name, operation, message in (
            ('nope', 'create', "couldn't find output binding nope"),
            ('files', 'explode', 'binding files does not support operation explode. supported operations:create get list delete'),
        ):
            error = failure(RpcError, d.invoke_binding, name, operation, 'x')
            equal((error.code(), error.details()), (StatusCode.INTERNAL, f'error invoking output binding {name}: {message}'))

    for name, app in apps.items():
        with case(f'binding/{name}'):
            until('two events of the binding', lambda: app.ticks >= 2)

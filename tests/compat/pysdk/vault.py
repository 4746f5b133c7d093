"""Secrets over gRPC."""

from cases import case, client, equal, failure

from grpc import RpcError, StatusCode


def run(nodes, apps):
    d = client(nodes['caller'])

    with case('secrets/get and get bulk'):
        equal(dict(d.get_secret('vault', 'password').secret), {'password': 'hunter2'})
        equal(dict(d.get_secret('vault', 'db', {'version_id': '1'}).secret), {'user': 'me', 'key': 'k'})
        equal(d.get_bulk_secret('vault').secrets, {'password': {'password': 'hunter2'}, 'db': {'user': 'me', 'key': 'k'}})

    with case('secrets/errors'):
        for call, args, code, text in (
                (d.get_secret, ('nope', 'k'), StatusCode.INVALID_ARGUMENT, 'failed finding secret store with key nope'),
                (d.get_bulk_secret, ('nope',), StatusCode.INVALID_ARGUMENT, 'failed finding secret store with key nope'),
                (d.get_secret, ('vault', 'nope'), StatusCode.INTERNAL,
                 'failed getting secret with key nope from secret store vault: secret nope not found')):
            error = failure(RpcError, call, *args)
            equal((error.code(), error.details()), (code, text))

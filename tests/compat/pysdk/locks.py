"""Locks over gRPC."""

from cases import case, client, equal, failure, until
from dapr.clients.grpc._response import UnlockResponseStatus

from grpc import RpcError, StatusCode


def run(nodes, apps):
    d = client(nodes['caller'])

    with case('lock/lock and unlock'):
        def take(owner):
            return d.try_lock('locks', 'resource', owner, 60).success

        def free(owner):
            return d.unlock('locks', 'resource', owner).status

        equal(free('one'), UnlockResponseStatus.lock_does_not_exist)
        equal([take('one'), take('two'), take('one')], [True, False, False])
        equal(free('two'), UnlockResponseStatus.lock_belongs_to_others)
        equal(free('one'), UnlockResponseStatus.success)
        equal(take('two'), True)
        with d.try_lock('locks', 'block', 'one', 60) as lock:  # is unlocked at the end
            assert lock
        equal(d.try_lock('locks', 'block', 'two', 60).success, True)

    with case('lock/expiry'):
        assert d.try_lock('locks', 'short', 'one', 1).success
        until('the lease ends', lambda: d.try_lock('locks', 'short', 'two', 60).success)
        equal(d.unlock('locks', 'short', 'one').status, UnlockResponseStatus.lock_belongs_to_others)

    with case('lock/errors'):
        for call, more in ((d.try_lock, (1,)), (d.unlock, ())):
            error = failure(RpcError, call, 'nope', 'r', 'o', *more)
            equal((error.code(), error.details()), (StatusCode.INVALID_ARGUMENT, 'lock store nope not found'))

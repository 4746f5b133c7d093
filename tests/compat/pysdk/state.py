"""State over gRPC."""

import json

from cases import case, client, equal, failure, until
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions

from grpc import StatusCode

FIRST = StateOptions(consistency=Consistency.strong, concurrency=Concurrency.first_write)


def run(nodes, apps):
    d = client(nodes['caller'])

    with case('state/save and get'):
        for key, value in (('text', 'plain ü'), ('bytes', b'\x00\xff'), ('json', json.dumps({'n': 1}))):
            d.save_state('store', key, value)
            got = d.get_state('store', key)
            equal(got.data, value if isinstance(value, bytes) else value.encode())
            assert got.etag
        equal(d.get_state('store', 'json').json(), {'n': 1})
        absent = d.get_state('store', 'absent')
        equal((absent.data, absent.etag), (b'', ''))

    with case('state/bulk'):
        d.save_bulk_state('store', [StateItem('b1', 'one'), StateItem('b2', b'two', metadata={'ttlInSeconds': '1000'})])
        got = d.get_bulk_state('store', ['b1', 'none', 'b2'], parallelism=2).items
        equal([(i.key, i.data, i.error) for i in got], [('b1', b'one', ''), ('none', b'', ''), ('b2', b'two', '')])
        assert got[0].etag and not got[1].etag

    with case('state/etags'):
        def conflicts(reason, call, *args, **kwargs):
            error = failure(DaprGrpcError, call, *args, **kwargs)
            equal((error.code(), error.error_code()), (StatusCode.ABORTED, reason))
            assert 'possible etag mismatch' in error.details(), error.details()

        d.save_state('store', 'etag', '1')
        etag = d.get_state('store', 'etag').etag
        conflicts('ERR_STATE_SAVE', d.save_state, 'store', 'etag', '9', etag='wrong')
        conflicts('ERR_STATE_SAVE', d.save_state, 'store', 'etag', '9', options=FIRST)  # it is there already
        d.save_state('store', 'etag', '2', etag=etag, options=FIRST)
        conflicts('ERR_STATE_SAVE', d.save_state, 'store', 'etag', '3', etag=etag, options=FIRST)
        conflicts('ERR_STATE_DELETE', d.delete_state, 'store', 'etag', etag=etag, options=FIRST)
        equal(d.get_state('store', 'etag').data, b'2')
        d.delete_state('store', 'etag', etag=d.get_state('store', 'etag').etag, options=FIRST)
        equal(d.get_state('store', 'etag').data, b'')

    with case('state/delete'):
        d.save_state('store', 'gone', '1')
        d.delete_state('store', 'gone')
        d.delete_state('store', 'gone')  # what is not there is deleted already
        equal(d.get_state('store', 'gone').data, b'')

    with case('state/ttl'):
        d.save_state('store', 'ttl', 'short', state_metadata={'ttlInSeconds': '1'})
        d.save_state('store', 'ttl2', 'stays', state_metadata={'ttlInSeconds': '1000'})
        until('it expires', lambda: not d.get_state('store', 'ttl').data)
        equal(d.get_state('store', 'ttl2').data, b'stays')

    with case('state/transaction'):
        upsert = TransactionalStateOperation
        d.save_state('store', 't1', 'old')
        d.execute_state_transaction('store', [
            upsert(key='t2', data='new'), TransactionalStateOperation(operation_type=TransactionOperationType.delete, key='t1'),
        ], transactional_metadata={'some': 'metadata'})
        equal((d.get_state('store', 't1').data, d.get_state('store', 't2').data), (b'', b'new'))
        error = failure(DaprGrpcError, d.execute_state_transaction, 'store', [upsert(key='t3', data='x'), upsert(key='t2', data='x', etag='wrong')])
        equal((error.code(), error.error_code()), (StatusCode.INTERNAL, 'ERR_STATE_TRANSACTION'))
        equal((d.get_state('store', 't3').data, d.get_state('store', 't2').data), (b'', b'new'))  # nothing of it was done

    if 'queried' in nodes:
        with case('state/query'):
            q = client(nodes['queried'])
            for key, city, age in (('ann', 'Bern', 30), ('bob', 'Basel', 40), ('eve', 'Bern', 50)):
                q.save_state('people', key, json.dumps({'city': city, 'age': age}), state_metadata={'contentType': 'application/json'})
            bern = {'filter': {'EQ': {'city': 'Bern'}}, 'sort': [{'key': 'age', 'order': 'DESC'}]}
            found = q.query_state('people', json.dumps(bern)).results
            equal([(r.key, r.json()) for r in found], [('eve', {'city': 'Bern', 'age': 50}), ('ann', {'city': 'Bern', 'age': 30})])
            assert found[0].etag
            page = q.query_state('people', json.dumps({**bern, 'page': {'limit': 1}}))
            equal([r.key for r in page.results], ['eve'])
            page = q.query_state('people', json.dumps({**bern, 'page': {'limit': 1, 'token': page.token}}))
            equal([r.key for r in page.results], ['ann'])
            error = failure(DaprGrpcError, q.query_state, 'people', '{')
            equal((error.code(), error.error_code()), (StatusCode.INTERNAL, 'DAPR_STATE_QUERY_FAILED'))

    with case('state/errors'):
        def fails(code, reason, message, call, *args):
            error = failure(DaprGrpcError, call, *args)
            equal((error.code(), error.error_code(), error.details()), (code, reason, message))

        none = StatusCode.INVALID_ARGUMENT, 'DAPR_STATE_NOT_FOUND', 'state store nope is not found'
        fails(*none, d.get_state, 'nope', 'k')
        fails(*none, d.get_bulk_state, 'nope', ['k'])
        fails(*none, d.save_state, 'nope', 'k', 'v')
        fails(*none, d.save_bulk_state, 'nope', [StateItem('k', 'v')])
        fails(*none, d.delete_state, 'nope', 'k')
        fails(*none, d.execute_state_transaction, 'nope', [TransactionalStateOperation(key='k', data='v')])
        fails(StatusCode.INVALID_ARGUMENT, 'DAPR_STATE_ILLEGAL_KEY', "input key/keyPrefix 'a||b' can't contain '||'", d.get_state, 'store', 'a||b')
        fails(StatusCode.INTERNAL, 'DAPR_STATE_QUERYING_NOT_SUPPORTED', 'state store does not support querying', d.query_state, 'store', '{}')
        info = failure(DaprGrpcError, d.get_state, 'nope', 'k').status_details().error_info
        equal((info['domain'], info.get('metadata')), ('dapr.io', None))  # over HTTP there is the app's id

"""The SDK's asyncio client."""

import asyncio
import json

from cases import PATIENCE, case, equal
from dapr.aio.clients import DaprClient
from dapr.clients.exceptions import DaprInternalError
from dapr.clients.grpc._response import UnlockResponseStatus


def run(nodes, apps):
    async def with_client(body):
        async with DaprClient() as d:
            await asyncio.wait_for(body(d), PATIENCE)

    async def blocks(d):
        await d.save_state('store', 'async', 'one')
        got = await d.get_state('store', 'async')
        equal(got.data, b'one')
        try:
            await d.save_state('store', 'async', 'two', etag='wrong')
            raise AssertionError('a wrong ETag is taken')
        except DaprInternalError as error:
            assert 'possible etag mismatch' in error.message, error
        lock = await d.try_lock('locks', 'async', 'one', 60)
        equal(lock.success, True)
        equal((await d.unlock('locks', 'async', 'one')).status, UnlockResponseStatus.success)
        equal((await d.get_metadata()).application_id, nodes['caller']['ID'])

    async def invoke(d):
        got = await d.invoke_method(nodes['fastapi']['ID'], 'echo', 'body', http_verb='PATCH')
        equal(json.loads(got.data)['verb'], 'PATCH')

    async def stream(d):
        live = await d.subscribe('bus', 'async-live')
        await d.publish_event('bus', 'async-live', 'one', data_content_type='text/plain')
        first = await live.next_message()
        await live.respond_retry(first)
        again = await live.next_message()
        equal((again.id(), again.data()), (first.id(), 'one'))
        await live.respond_success(again)
        await live.close()

    for name, body in (('state, lock, metadata', blocks), ('invocation', invoke), ('streams', stream)):
        with case('async/' + name):
            asyncio.run(with_client(body))

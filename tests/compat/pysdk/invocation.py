"""Service invocation over HTTP and gRPC to apps of each kind, and gRPC's own calls through the proxy."""

import json

from apps import VERBS
from cases import case, client, equal, failure
from dapr.clients.exceptions import DaprHttpError
from dapr.clients.grpc.client import DaprGrpcClient
from dapr.clients.http.dapr_invocation_http_client import DaprInvocationHttpClient

import grpc

TRACE = '0af7651916cd43dd8448eb211c80319c'


def run(nodes, apps):
    for source, caller in (('http', DaprInvocationHttpClient()), ('grpc', DaprGrpcClient())):
        for to in apps:
            invoke(nodes, source, caller, to, nodes[to]['ID'])
    proxy(nodes)
    with case('invocation/default client'):
        equal(json.loads(client(nodes['caller']).invoke_method(nodes['flask']['ID'], 'echo', 'x', http_verb='PUT').data)['verb'], 'PUT')


def invoke(nodes, source, caller, to, app):
    name = f'invocation/{source}-{to}/'

    with case(name + 'verbs'):
        for verb in VERBS:
            got = caller.invoke_method(app, 'echo', 'body', 'text/plain', http_verb=verb, http_querystring=(('a', '1'), ('b', 'x y')))
            answer = json.loads(got.data if source == 'http' else got.text())
            equal(answer['body'], 'body')
            equal(answer['type'], 'text/plain')
            equal(answer['callers'], [nodes['caller']['ID'], app])
            if to != 'grpc':
                equal(answer['verb'], verb)
                equal(answer['query'], 'a=1&b=x+y' if source == 'http' else answer['query'])
                assert 'a=1' in answer['query'], answer
            assert got.content_type.startswith('application/json'), got.content_type

    with case(name + 'headers'):
        # The SDK's gRPC client has a way for metadata, which it calls old.
        metadata = (('x-custom', 'mine'), ('traceparent', f'00-{TRACE}-b7ad6b7169203331-01'))
        got = caller.invoke_method(app, 'echo', b'{}', 'application/json', metadata=metadata, http_verb='POST')
        answer = json.loads(got.data if source == 'http' else got.text())
        equal((answer['custom'], answer['trace'].split('-')[1]), ('mine', TRACE))
        answered = {k.lower(): v for k, v in (got.headers.items() if hasattr(got.headers, 'items') else got.headers)}
        assert answered['x-answer'] in ('yes', ['yes']), answered

    with case(name + 'a large body'):
        large = '0123456789abcdef' * (3 << 16)  # 3 MiB
        got = caller.invoke_method(app, 'echo', large, 'text/plain', http_verb='POST')
        equal(len(json.loads(got.data if source == 'http' else got.text())['body']), len(large))

    with case(name + 'errors'):
        if source == 'http':
            error = failure(DaprHttpError, caller.invoke_method, 'nobody', 'x', 'body')
            equal((error.status_code, error.error_code), (500, 'ERR_DIRECT_INVOKE'))
            assert error.message == "failed to invoke, id: nobody, err: couldn't find service: nobody", error.message
            error = failure(DaprHttpError, caller.invoke_method, app, 'missing', '')
            equal(error.status_code, 501 if to == 'grpc' else 404)
            error = failure(DaprHttpError, caller.invoke_method, app, 'broken', '')
            equal(error.status_code, 500 if to == 'grpc' else 418)
        else:
            error = failure(grpc.RpcError, caller.invoke_method, 'nobody', 'x', 'body', http_verb='GET')
            equal(error.code(), grpc.StatusCode.INTERNAL)
            assert error.details() == "failed to invoke, id: nobody, err: couldn't find service: nobody", error.details()
            error = failure(grpc.RpcError, caller.invoke_method, app, 'missing', '', http_verb='GET')
            equal(error.code(), grpc.StatusCode.UNIMPLEMENTED if to == 'grpc' else grpc.StatusCode.NOT_FOUND)
            error = failure(grpc.RpcError, caller.invoke_method, app, 'broken', '', http_verb='GET')
            equal(error.code(), grpc.StatusCode.UNKNOWN)
            if to == 'grpc':
                equal(error.details(), 'Exception calling application: no')


def proxy(nodes):
    channel = grpc.insecure_channel(f'127.0.0.1:{nodes["caller"]["GRPC"]}')
    metadata = (('dapr-app-id', nodes['grpc']['ID']), ('x-custom', 'mine'))

    with case('invocation/proxy/unary'):
        answer, call = channel.unary_unary('/demo.Demo/Unary').with_call(b'x', metadata=metadata)
        equal(answer, b'one x')
        equal(dict(call.initial_metadata()).get('x-custom'), 'mine')
        equal(dict(call.trailing_metadata()).get('x-trailer'), 'yes')
    with case('invocation/proxy/server stream'):
        equal(list(channel.unary_stream('/demo.Demo/Server')(b'x', metadata=metadata)), [b'0 x', b'1 x', b'2 x'])
    with case('invocation/proxy/client stream'):
        equal(channel.stream_unary('/demo.Demo/Client')(iter([b'a', b'b', b'c']), metadata=metadata), b'a b c')
    with case('invocation/proxy/both stream'):
        equal(list(channel.stream_stream('/demo.Demo/Both')(iter([b'a', b'b']), metadata=metadata)), [b'<a>', b'<b>'])
    with case('invocation/proxy/errors'):
        error = failure(grpc.RpcError, channel.unary_unary('/demo.Demo/Unary'), b'fail', metadata=metadata)
        equal((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, 'not so'))
        error = failure(grpc.RpcError, channel.unary_unary('/demo.Demo/Missing'), b'x', metadata=metadata)
        equal(error.code(), grpc.StatusCode.UNIMPLEMENTED)

"""How cases run and tell their end."""

import contextlib
import json
import time
import traceback

from dapr.clients import DaprClient
from dapr.conf import settings

PATIENCE = 20  # seconds: bounds what a case waits for; never a measure of speed


@contextlib.contextmanager
def case(name):
    """Runs one case to its end."""
    error = ''
    try:
        yield
    except Exception:
        error = traceback.format_exc()[-2000:]
    print('case ' + json.dumps({'name': name, 'error': error}), flush=True)


def until(what, condition):
    """Polls a condition and returns what it was, once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        got = condition()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError(f'never: {what}')


def equal(got, want):
    assert got == want, f'got {got!r}, not {want!r}'


def failure(kind, call, *args, **kwargs):
    """The exception of a call that has to fail."""
    try:
        got = call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f'did not fail, but answered {got!r}')


@contextlib.contextmanager
def settings_of(node):
    """The SDK keeps in global settings which sidecar it talks to: they are another's for a while."""
    kept = settings.DAPR_HTTP_PORT, settings.DAPR_GRPC_PORT, settings.DAPR_API_TOKEN
    settings.DAPR_HTTP_PORT, settings.DAPR_GRPC_PORT, settings.DAPR_API_TOKEN = node['HTTP'], node['GRPC'], node['Token'] or None
    try:
        yield
    finally:
        settings.DAPR_HTTP_PORT, settings.DAPR_GRPC_PORT, settings.DAPR_API_TOKEN = kept


def client(node):
    """An SDK client of a sidecar."""
    with settings_of(node):
        return DaprClient()

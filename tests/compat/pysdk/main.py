"""The published Dapr Python SDK as client and server of sidecars that sdk_test.go has started. Each case ends with a line
`case {"name": …, "error": …}` on standard output; what else is printed is for people."""

import json
import os
import sys
import warnings

# Where everything listens: see sdkNode in sdk_test.go.
NODES = json.loads(os.environ['COMPAT_NODES'])

# The SDK's settings read these when it is imported.
os.environ['DAPR_HTTP_PORT'] = NODES['caller']['HTTP']
os.environ['DAPR_GRPC_PORT'] = NODES['caller']['GRPC']
os.environ['DAPR_HEALTH_TIMEOUT'] = '20'

warnings.simplefilter('ignore')  # old ways and alpha ones of the SDK are tested too

import apps  # noqa: E402
import asynchronous  # noqa: E402
import bindings  # noqa: E402
import control  # noqa: E402
import follow  # noqa: E402
import invocation  # noqa: E402
import locks  # noqa: E402
import pubsub  # noqa: E402
import state  # noqa: E402
import streams  # noqa: E402
import talk  # noqa: E402
import vault  # noqa: E402

try:
    served = apps.serve(NODES)
    for block in (invocation, state, pubsub, bindings, streams, locks, vault, follow, talk, asynchronous, control):
        block.run(NODES, served)
    code = 0
except BaseException as error:  # noqa: B902
    print(f'failed: {error!r}', file=sys.stderr)
    code = 1
sys.stdout.flush()
os._exit(code)  # servers and streams have threads of their own

"""Conversations over gRPC."""

from cases import case, client, equal, failure

from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc import conversation as c
from grpc import StatusCode


def said(text):
    return [c.ConversationMessageContent(text=text)]


def run(nodes, apps):
    d = client(nodes['caller'])

    with case('conversation/alpha1'):
        inputs = [c.ConversationInput(content='ann@example.com', scrub_pii=True), c.ConversationInput(content='hello', role='system')]
        got = d.converse_alpha1('talker', inputs, context_id='c1', parameters={'most': 7}, temperature=0.5, metadata={'a': 'b'})
        equal((got.context_id, [o.result for o in got.outputs]), ('c1', ['<EMAIL_ADDRESS>\nhello']))
        equal(list(got.outputs[0].parameters), ['most'])
        error = failure(DaprGrpcError, d.converse_alpha1, 'nobody', inputs)
        equal((error.code(), error.details()), (StatusCode.INVALID_ARGUMENT, 'failed finding conversation component nobody'))

    with case('conversation/alpha2'):
        tool = c.ConversationTools(function=c.ConversationToolsFunction(
            name='weather', description='tells it', parameters={'type': 'object', 'properties': {'city': {'type': 'string'}}}))
        call = c.ConversationToolCalls(id='7', function=c.ConversationToolCallsOfFunction(name='weather', arguments='{}'))
        messages = [
            c.ConversationMessage(of_developer=c.ConversationMessageOfDeveloper(content=said('one'))),
            c.ConversationMessage(of_system=c.ConversationMessageOfSystem(content=said('two'))),
            c.ConversationMessage(of_user=c.ConversationMessageOfUser(content=said('ann@example.com'))),
            c.ConversationMessage(of_assistant=c.ConversationMessageOfAssistant(content=said('four'), tool_calls=[call])),
            c.ConversationMessage(of_tool=c.ConversationMessageOfTool(tool_id='7', name='weather', content=said('rain'))),
        ]
        got = d.converse_alpha2('talker', [c.ConversationInputAlpha2(messages=messages)], context_id='c2', scrub_pii=True, tools=[tool], tool_choice='auto')
        equal((got.context_id, len(got.outputs), len(got.outputs[0].choices)), ('c2', 1, 1))
        choice = got.outputs[0].choices[0]
        equal((choice.finish_reason, choice.message.content),
              ('tool_calls', "one\ntwo\n<EMAIL_ADDRESS>\nfour\nTool Response for tool ID '7' with name 'weather': rain"))
        equal([(t.id, t.function.name, t.function.arguments) for t in choice.message.tool_calls], [('0', 'weather', 'city'), ('7', 'weather', '{}')])
        equal(got.outputs[0].usage.total_tokens, 28)
        error = failure(DaprGrpcError, d.converse_alpha2, 'talker', [])
        equal((error.code(), error.details()), (StatusCode.INVALID_ARGUMENT, 'failed conversing with component talker: missing inputs in request'))

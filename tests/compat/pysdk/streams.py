"""Subscriptions on a stream."""

import threading

from cases import PATIENCE, case, client, equal, failure, until
from dapr.clients.grpc._response import TopicEventResponse
from dapr.common.pubsub.subscription import StreamInactiveError


def run(nodes, apps):
    d = client(nodes['caller'])

    def publish(topic, data, kind='text/plain'):
        d.publish_event('bus', topic, data, data_content_type=kind)

    with case('streams/success and retry'):
        live = d.subscribe('bus', 'live')
        publish('live', '{"n": 1}', 'application/json')
        first = live.next_message()
        equal([first.data(), first.topic(), first.pubsub_name(), first.type(), first.source(), first.spec_version()],
              [{'n': 1}, 'live', 'bus', 'com.dapr.event.sent', nodes['caller']['ID'], '1.0'])
        live.respond_retry(first)
        again = live.next_message()
        equal(again.id(), first.id())
        live.respond_success(again)
        publish('live', 'two')
        two = live.next_message()
        equal(two.data(), 'two')
        live.respond_success(two)
        live.close()
        failure(StreamInactiveError, live.next_message)

    with case('streams/unanswered'):
        live = d.subscribe('bus', 'kept')
        publish('kept', 'one')
        first = live.next_message()
        live.close()  # without an answer: the next stream gets the event
        live = d.subscribe('bus', 'kept')
        again = live.next_message()
        equal(again.id(), first.id())
        live.respond_success(again)
        live.close()

    with case('streams/drop and dead letter'):
        dead = d.subscribe('bus', 'live-dead')
        live = d.subscribe('bus', 'live-dropped', dead_letter_topic='live-dead')
        publish('live-dropped', 'away')
        message = live.next_message()
        live.respond_drop(message)
        letter = dead.next_message()
        equal((letter.data(), letter.id()), ('away', message.id()))
        dead.respond_success(letter)
        live.close()
        dead.close()

    with case('streams/handler'):
        got, done = [], threading.Event()

        def handle(message):
            got.append(message.data())
            if len(got) == 1:
                return TopicEventResponse('retry')
            if len(got) == 3:
                done.set()
            return TopicEventResponse('success')

        close = d.subscribe_with_handler('bus', 'handled', handle)
        publish('handled', 'one')
        until('it came again', lambda: len(got) == 2)
        publish('handled', 'two')
        assert done.wait(PATIENCE), got
        equal(got, ['one', 'one', 'two'])
        close()

    with case('streams/errors'):
        error = failure(Exception, d.subscribe, 'nope', 'topic')
        assert 'pubsub' in str(error) and 'nope' in str(error), error

//go:build all_components

package contrib

import (
	"github.com/dapr/components-contrib/pubsub/aws/snssqs"
	"github.com/dapr/components-contrib/pubsub/azure/eventhubs"
	"github.com/dapr/components-contrib/pubsub/azure/servicebus/queues"
	"github.com/dapr/components-contrib/pubsub/azure/servicebus/topics"
	gcppubsub "github.com/dapr/components-contrib/pubsub/gcp/pubsub"
	"github.com/dapr/components-contrib/pubsub/kubemq"
	"github.com/dapr/components-contrib/pubsub/pulsar"
	"github.com/dapr/components-contrib/pubsub/rocketmq"
	"github.com/dapr/components-contrib/pubsub/solace/amqp"

	"github.com/sidecast/sidecast/components"
)

// allBrokers are the brokers that are in builds with the tag all_components alone.
var allBrokers = []components.Component{
	plainPubSub("aws.snssqs", snssqs.NewSnsSqs),
	plainPubSub("snssqs", snssqs.NewSnsSqs),
	plainCheckpoints("azure.eventhubs", eventhubs.NewAzureEventHubs),
	plainPubSub("azure.servicebus.queues", queues.NewAzureServiceBusQueues),
	plainPubSub("azure.servicebusqueues", queues.NewAzureServiceBusQueues),
	plainPubSub("azure.servicebus", topics.NewAzureServiceBusTopics),
	plainPubSub("azure.servicebus.topics", topics.NewAzureServiceBusTopics),
	plainPubSub("gcp.pubsub", gcppubsub.NewGCPPubSub),
	plainPubSub("kubemq", kubemq.NewKubeMQ, "group"),
	plainPubSub("pulsar", pulsar.NewPulsar),
	plainPubSub("rocketmq", rocketmq.NewRocketMQ, "consumerGroup"),
	plainPubSub("solace.amqp", amqp.NewAMQPPubsub),
}

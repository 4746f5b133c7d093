//go:build all_components

package contrib

import (
	"github.com/dapr/components-contrib/bindings/alicloud/dingtalk/webhook"
	"github.com/dapr/components-contrib/bindings/alicloud/oss"
	"github.com/dapr/components-contrib/bindings/alicloud/sls"
	"github.com/dapr/components-contrib/bindings/alicloud/tablestore"
	"github.com/dapr/components-contrib/bindings/apns"
	"github.com/dapr/components-contrib/bindings/aws/dynamodb"
	"github.com/dapr/components-contrib/bindings/aws/kinesis"
	"github.com/dapr/components-contrib/bindings/aws/s3"
	"github.com/dapr/components-contrib/bindings/aws/ses"
	"github.com/dapr/components-contrib/bindings/aws/sns"
	"github.com/dapr/components-contrib/bindings/aws/sqs"
	"github.com/dapr/components-contrib/bindings/azure/blobstorage"
	"github.com/dapr/components-contrib/bindings/azure/cosmosdb"
	cosmosdbgremlinapi "github.com/dapr/components-contrib/bindings/azure/cosmosdb/gremlinapi"
	"github.com/dapr/components-contrib/bindings/azure/eventgrid"
	"github.com/dapr/components-contrib/bindings/azure/eventhubs"
	"github.com/dapr/components-contrib/bindings/azure/openai"
	"github.com/dapr/components-contrib/bindings/azure/servicebusqueues"
	"github.com/dapr/components-contrib/bindings/azure/signalr"
	"github.com/dapr/components-contrib/bindings/azure/storagequeues"
	cfqueues "github.com/dapr/components-contrib/bindings/cloudflare/queues"
	"github.com/dapr/components-contrib/bindings/commercetools"
	"github.com/dapr/components-contrib/bindings/dubbo"
	"github.com/dapr/components-contrib/bindings/gcp/bucket"
	gcppubsub "github.com/dapr/components-contrib/bindings/gcp/pubsub"
	"github.com/dapr/components-contrib/bindings/graphql"
	"github.com/dapr/components-contrib/bindings/huawei/obs"
	"github.com/dapr/components-contrib/bindings/influx"
	"github.com/dapr/components-contrib/bindings/kubemq"
	"github.com/dapr/components-contrib/bindings/kubernetes"
	"github.com/dapr/components-contrib/bindings/postmark"
	"github.com/dapr/components-contrib/bindings/rethinkdb/statechange"
	"github.com/dapr/components-contrib/bindings/rocketmq"
	"github.com/dapr/components-contrib/bindings/sftp"
	"github.com/dapr/components-contrib/bindings/twilio/sendgrid"
	"github.com/dapr/components-contrib/bindings/twilio/sms"
	"github.com/dapr/components-contrib/bindings/wasm"
	"github.com/dapr/components-contrib/bindings/zeebe/command"
	"github.com/dapr/components-contrib/bindings/zeebe/jobworker"

	"github.com/sidecast/sidecast/components"
)

// allBindings are the bindings that are in builds with the tag all_components alone.
var allBindings = []components.Component{
	plainTwoWay("alicloud.dingtalk.webhook", webhook.NewDingTalkWebhook),
	plainOutput("alicloud.dubbo", dubbo.NewDubboOutput),
	plainOutput("alicloud.oss", oss.NewAliCloudOSS),
	plainOutput("alicloud.sls", sls.NewAliCloudSlsLogstorage),
	plainOutput("alicloud.tablestore", tablestore.NewAliCloudTableStore),
	plainOutput("apns", apns.NewAPNS),
	plainOutput("aws.dynamodb", dynamodb.NewDynamoDB),
	plainTwoWay("aws.kinesis", kinesis.NewAWSKinesis),
	plainOutput("aws.s3", s3.NewAWSS3),
	plainOutput("aws.ses", ses.NewAWSSES),
	plainOutput("aws.sns", sns.NewAWSSNS),
	plainTwoWay("aws.sqs", sqs.NewAWSSQS),
	plainOutput("azure.blobstorage", blobstorage.NewAzureBlobStorage),
	plainOutput("azure.cosmosdb", cosmosdb.NewCosmosDB),
	plainOutput("azure.cosmosdb.gremlinapi", cosmosdbgremlinapi.NewCosmosDBGremlinAPI),
	plainTwoWay("azure.eventgrid", eventgrid.NewAzureEventGrid),
	plainTwoWay("azure.eventhubs", eventhubs.NewAzureEventHubs),
	plainOutput("azure.openai", openai.NewOpenAI),
	plainTwoWay("azure.servicebus.queues", servicebusqueues.NewAzureServiceBusQueues),
	plainTwoWay("azure.servicebusqueues", servicebusqueues.NewAzureServiceBusQueues),
	plainOutput("azure.signalr", signalr.NewSignalR),
	plainTwoWay("azure.storagequeues", storagequeues.NewAzureStorageQueues),
	plainOutput("cloudflare.queues", cfqueues.NewCFQueues),
	plainOutput("commercetools", commercetools.NewCommercetools),
	plainTwoWay("dingtalk.webhook", webhook.NewDingTalkWebhook),
	plainOutput("dubbo", dubbo.NewDubboOutput),
	plainOutput("gcp.bucket", bucket.NewGCPStorage),
	plainTwoWay("gcp.pubsub", gcppubsub.NewGCPPubSub),
	plainOutput("graphql", graphql.NewGraphQL),
	plainOutput("huawei.obs", obs.NewHuaweiOBS),
	plainOutput("influx", influx.NewInflux),
	plainTwoWay("kubemq", kubemq.NewKubeMQ),
	plainInput("kubernetes", kubernetes.NewKubernetes),
	plainOutput("postmark", postmark.NewPostmark),
	plainInput("rethinkdb.statechange", statechange.NewRethinkDBStateChangeBinding),
	plainTwoWay("rocketmq", rocketmq.NewRocketMQ),
	plainOutput("sftp", sftp.NewSftp),
	plainOutput("twilio.sendgrid", sendgrid.NewSendGrid),
	plainOutput("twilio.sms", sms.NewSMS),
	plainOutput("wasm", wasm.NewWasmOutput),
	plainOutput("zeebe.command", command.NewZeebeCommand),
	plainInput("zeebe.jobworker", jobworker.NewZeebeJobWorker),
}

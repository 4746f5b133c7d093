//go:build all_components

package contrib

import (
	"github.com/dapr/components-contrib/state/aerospike"
	"github.com/dapr/components-contrib/state/alicloud/tablestore"
	"github.com/dapr/components-contrib/state/aws/dynamodb"
	azureblobstoragev1 "github.com/dapr/components-contrib/state/azure/blobstorage/v1"
	azureblobstoragev2 "github.com/dapr/components-contrib/state/azure/blobstorage/v2"
	"github.com/dapr/components-contrib/state/azure/cosmosdb"
	"github.com/dapr/components-contrib/state/azure/tablestorage"
	"github.com/dapr/components-contrib/state/cassandra"
	cfkv "github.com/dapr/components-contrib/state/cloudflare/workerskv"
	"github.com/dapr/components-contrib/state/cockroachdb"
	"github.com/dapr/components-contrib/state/coherence"
	"github.com/dapr/components-contrib/state/couchbase"
	"github.com/dapr/components-contrib/state/gcp/firestore"
	"github.com/dapr/components-contrib/state/hashicorp/consul"
	"github.com/dapr/components-contrib/state/hazelcast"
	"github.com/dapr/components-contrib/state/oci/objectstorage"
	"github.com/dapr/components-contrib/state/oracledatabase"
	"github.com/dapr/components-contrib/state/ravendb"
	"github.com/dapr/components-contrib/state/rethinkdb"
	"github.com/dapr/components-contrib/state/sqlserver"
	sqlserverv2 "github.com/dapr/components-contrib/state/sqlserver/v2"
	"github.com/dapr/components-contrib/state/zookeeper"

	"github.com/sidecast/sidecast/components"
)

// allState are the state stores that are in builds with the tag all_components alone.
var allState = []components.Component{
	plainState("aerospike", "v1", aerospike.NewAerospikeStateStore),
	plainState("alicloud.tablestore", "v1", tablestore.NewAliCloudTableStore),
	plainState("aws.dynamodb", "v1", dynamodb.NewDynamoDBStateStore),
	plainState("azure.blobstorage", "v1", azureblobstoragev1.NewAzureBlobStorageStore),
	plainState("azure.blobstorage", "v2", azureblobstoragev2.NewAzureBlobStorageStore),
	plainState("azure.cosmosdb", "v1", cosmosdb.NewCosmosDBStateStore),
	plainState("azure.tablestorage", "v1", tablestorage.NewAzureTablesStateStore),
	plainState("cassandra", "v1", cassandra.NewCassandraStateStore),
	plainState("cloudflare.workerskv", "v1", cfkv.NewCFWorkersKV),
	plainState("cockroachdb", "v1", cockroachdb.New),
	plainState("coherence", "v1", coherence.NewCoherenceStateStore),
	plainState("couchbase", "v1", couchbase.NewCouchbaseStateStore),
	plainState("gcp.firestore", "v1", firestore.NewFirestoreStateStore),
	plainState("consul", "v1", consul.NewConsulStateStore),
	plainState("hashicorp.consul", "v1", consul.NewConsulStateStore),
	plainState("hazelcast", "v1", hazelcast.NewHazelcastStore),
	plainState("oci.objectstorage", "v1", objectstorage.NewOCIObjectStorageStore),
	plainState("oracledatabase", "v1", oracledatabase.NewOracleDatabaseStateStore),
	plainState("ravendb", "v1", ravendb.NewRavenDB),
	plainState("rethinkdb", "v1", rethinkdb.NewRethinkDBStateStore),
	plainState("sqlserver", "v1", sqlserver.New),
	plainState("sqlserver", "v2", sqlserverv2.New),
	plainState("zookeeper", "v1", zookeeper.NewZookeeperStateStore),
}

//go:build all_components

package contrib

import (
	"github.com/dapr/components-contrib/secretstores/alicloud/parameterstore"
	awsparameterstore "github.com/dapr/components-contrib/secretstores/aws/parameterstore"
	"github.com/dapr/components-contrib/secretstores/aws/secretmanager"
	"github.com/dapr/components-contrib/secretstores/azure/keyvault"
	gcpsecretmanager "github.com/dapr/components-contrib/secretstores/gcp/secretmanager"
	"github.com/dapr/components-contrib/secretstores/hashicorp/vault"
	"github.com/dapr/components-contrib/secretstores/huaweicloud/csms"
	"github.com/dapr/components-contrib/secretstores/kubernetes"
	"github.com/dapr/components-contrib/secretstores/tencentcloud/ssm"

	"github.com/sidecast/sidecast/components"
)

// allSecrets are the secret stores that are in builds with the tag all_components alone.
var allSecrets = []components.Component{
	plainSecrets("alicloud.parameterstore", parameterstore.NewParameterStore),
	plainSecrets("aws.parameterstore", awsparameterstore.NewParameterStore),
	plainSecrets("aws.secretmanager", secretmanager.NewSecretManager),
	plainSecrets("azure.keyvault", keyvault.NewAzureKeyvaultSecretStore),
	plainSecrets("gcp.secretmanager", gcpsecretmanager.NewSecreteManager),
	plainSecrets("hashicorp.vault", vault.NewHashiCorpVaultSecretStore),
	plainSecrets("huaweicloud.csms", csms.NewHuaweiCsmsSecretStore),
	plainSecrets("kubernetes", kubernetes.NewKubernetesSecretStore),
	plainSecrets("tencentcloud.ssm", ssm.NewSSM),
}

//go:build all_components

package contrib

import (
	"github.com/dapr/components-contrib/configuration/azure/appconfig"
	"github.com/dapr/components-contrib/configuration/kubernetes"
	"github.com/dapr/components-contrib/crypto/azure/keyvault"
	kubernetessecrets "github.com/dapr/components-contrib/crypto/kubernetes/secrets"

	"github.com/sidecast/sidecast/components"
)

// allOthers are the configuration stores and crypto providers that are in builds with the tag all_components alone.
var allOthers = []components.Component{
	plainConfiguration("azure.appconfig", appconfig.NewAzureAppConfigurationStore),
	plainConfiguration("kubernetes", kubernetes.NewKubernetesConfigMapStore),
	plainKeyring("azure.keyvault", keyvault.NewAzureKeyvaultCrypto),
	plainKeyring("dapr.kubernetes.secrets", kubernetessecrets.NewKubeSecretsCrypto),
}

package contrib

import (
	"slices"
	"strings"

	azauth "github.com/dapr/components-contrib/common/authentication/azure"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/manifest"
)

// otherNames are names of one key that the library's code takes for the same, and that neither its datasheets nor what it says
// of its structs tell: tags of the kind mapstructurealiases, and look-ups by several names. A component that has one of them is
// taken to have all; those that it does not read do no harm, as with daprd.
var otherNames = [][]string{
	{"region", "awsRegion"}, {"timeout", "timeoutInSeconds"}, {"cleanupInterval", "cleanupIntervalInSeconds"}, {"ttl", "ttlInSeconds"},
	{"connectionString", "url"}, {"databaseName", "database"}, {"schemaName", "schema"}, {"resyncPeriod", "resyncPeriodInSec"},
	{"responseCacheTTL", "cacheTTL"}, {"useEntraID", "useAzureAD"}, {"azureSubscriptionID", "subscriptionID"},
	{"projectID", "project_id"}, {"privateKeyID", "private_key_id"}, {"privateKey", "private_key"}, {"clientEmail", "client_email"},
	{"clientID", "client_id"}, {"authURI", "auth_uri"}, {"tokenURI", "token_uri"},
	{"authProviderX509CertURL", "auth_provider_x509_cert_url"}, {"clientX509CertURL", "client_x509_cert_url"},
}

// withOtherNames adds them to fields, of a product of that name.
func withOtherNames(product string, fields []components.Field) []components.Field {
	groups, azure := otherNames, strings.HasPrefix(product, "azure.")
	if azure {
		groups = slices.Clone(otherNames)
		for _, names := range azauth.MetadataKeys {
			groups = append(groups, names)
		}
	}
	taken := map[string]bool{}
	for _, f := range fields {
		for _, name := range append(f.Aliases, f.Key) {
			taken[manifest.FoldKey(name)] = true
		}
	}
	for i := range fields {
		f := &fields[i]
		for _, group := range groups {
			if !slices.ContainsFunc(group, func(name string) bool { return manifest.FoldKey(name) == manifest.FoldKey(f.Key) }) {
				continue
			}
			for _, name := range group {
				if !taken[manifest.FoldKey(name)] {
					taken[manifest.FoldKey(name)] = true
					f.Aliases = append(f.Aliases, name)
				}
			}
		}
		slices.Sort(f.Aliases)
	}
	if methods := azauth.MetadataKeys["AzureAuthMethods"]; azure && len(methods) > 0 && !taken[manifest.FoldKey(methods[0])] {
		fields = append(fields, components.Field{Key: methods[0], Aliases: methods[1:], Type: "string", Doc: "Ways to sign in, tried in order, separated by commas."})
	}
	return fields
}

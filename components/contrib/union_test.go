package contrib

import (
	"slices"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/components/datasheet"
	"github.com/sidecast/sidecast/manifest"
)

// What the library's own files say of a component of the default build is taken here, too, in whatever words it is described.
func TestKeysOfTheLibrarysFilesAreTaken(t *testing.T) {
	for _, c := range All() {
		d := c.Describe()
		sheet, ok := datasheet.Of(d.Type, d.Version)
		if !ok || d.When != "" {
			continue
		}
		taken := map[string]bool{}
		for _, f := range d.Fields {
			for _, name := range append(f.Aliases, f.Key) {
				taken[manifest.FoldKey(name)] = true
			}
		}
		for _, k := range sheet.Keys {
			if !taken[manifest.FoldKey(k.Name)] && !slices.Contains(refusedKeys, k.Name) && !slices.Contains(refusedKeys, sameAs(d.Type)+" "+k.Name) {
				t.Errorf("%s has no key %s: %s", d.Title(), k.Name, k.Doc)
			}
		}
	}
}

// refusedKeys are keys of those files that are errors all the same: the component would be without what they ask for.
var refusedKeys = []string{
	"trustAnchorArn", "trustProfileArn", // IAM Roles Anywhere needs a certificate of Dapr's sentry
	"bindings.localstorage fileName", // it is metadata of requests
	// These two do not sign in with AWS IAM, whatever their files say.
	"configuration.postgresql useAWSIAM", "configuration.postgresql region", "configuration.postgresql awsRegion", "configuration.postgresql accessKey",
	"configuration.postgresql secretKey", "configuration.postgresql sessionToken", "configuration.postgresql awsAccessKey", "configuration.postgresql awsSecretKey",
	"configuration.postgresql awsSessionToken", "configuration.postgresql assumeRoleArn", "configuration.postgresql sessionName",
	"bindings.postgresql useAWSIAM", "bindings.postgresql region", "bindings.postgresql awsRegion", "bindings.postgresql accessKey",
	"bindings.postgresql secretKey", "bindings.postgresql sessionToken", "bindings.postgresql awsAccessKey", "bindings.postgresql awsSecretKey",
	"bindings.postgresql awsSessionToken", "bindings.postgresql assumeRoleArn", "bindings.postgresql sessionName",
}

// sameAs is the longer of the two names of PostgreSQL's components.
func sameAs(typ string) string {
	if strings.HasSuffix(typ, ".postgres") {
		return typ + "ql"
	}
	return typ
}

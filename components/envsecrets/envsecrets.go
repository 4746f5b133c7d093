// Package envsecrets is the secret store "secretstores.local.env": a secret is an environment variable of the sidecar.
// It promises that the variables that configure the sidecar itself, its API tokens among them, are never given out.
//
//	spec:
//	  type: secretstores.local.env
//	  metadata:
//	  - name: prefix
//	    value: ORDERS_
package envsecrets

import (
	"context"
	"os"
	"strings"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Prefix string `meta:"prefix" doc:"Give out only variables whose names start with this; secrets are named without it."`
}

// Component makes the store known to the runtime.
var Component = components.Secrets("local.env", "Secrets from the environment variables of the sidecar.", open)

var _ components.SecretStore = (*store)(nil)

type store struct{ prefix string }

func open(_ context.Context, _ components.Host, c Config) (components.SecretStore, error) {
	return &store{prefix: c.Prefix}, nil
}

// Secret returns the variable under the secret's name.
func (s *store) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	variable := s.prefix + name
	if components.OwnVariable(variable) {
		return nil, fault.New("secret "+name, fault.SecretNotFound, "%s configures the sidecar and is not given out", variable)
	}
	text, ok := os.LookupEnv(variable)
	if !ok {
		return nil, fault.New("secret "+name, fault.SecretNotFound, "the environment variable %s is not set", variable)
	}
	return map[string]string{name: text}, nil
}

// Secrets returns all variables with the prefix.
func (s *store) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	all := make(map[string]map[string]string)
	for _, entry := range os.Environ() {
		variable, text, _ := strings.Cut(entry, "=")
		name, ok := strings.CutPrefix(variable, s.prefix)
		if ok && name != "" && !components.OwnVariable(variable) {
			all[name] = map[string]string{name: text}
		}
	}
	return all, nil
}

// Close has nothing to end.
func (s *store) Close(context.Context) error { return nil }

// Package e2e runs the product as its users do: the binary, real processes, the commands of the README.
package e2e

import (
	"os"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }

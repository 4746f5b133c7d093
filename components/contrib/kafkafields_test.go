//go:build linux

package contrib

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// kafkaDefaults are the settings of a manifest that says nothing but this.
func kafkaDefaults(more map[string]string) map[string]string {
	values := map[string]string{}
	for _, f := range kafkaFields() {
		values[f.Key] = f.Default
	}
	maps.Copy(values, more)
	return values
}

func TestKafkaChecksDurations(t *testing.T) {
	connection := func(more map[string]string) (*kafkaConnection, error) {
		return newKafkaConnection("test", kafkaDefaults(kafkaAt("nowhere:1", more)), newLogs(discard, nil))
	}
	k, err := connection(map[string]string{"heartbeatInterval": "500ms", "sessionTimeout": " 6 ", "readTimeout": "0"})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]time.Duration{"heartbeatInterval": 500 * time.Millisecond, "sessionTimeout": 6 * time.Second, "readTimeout": 0, "dialTimeout": 30 * time.Second, "metadataTimeout": 0} {
		if got := k.duration(key); got != want {
			t.Errorf("%s is %s, not %s", key, got, want)
		}
	}
	for _, key := range kafkaSpans {
		for _, wrong := range []string{"soon", "5 minutes", "-1s", "-1", "9999999999999"} {
			if _, err := connection(map[string]string{key: wrong}); err == nil || !strings.Contains(err.Error(), key+` is "`+wrong+`"`) {
				t.Errorf("%s %q gives %v", key, wrong, err)
			}
		}
	}
	for _, wrong := range []map[string]string{
		{"heartbeatInterval": "0"}, {"heartbeatInterval": "1ns"}, {"heartbeatInterval": "10s"}, {"sessionTimeout": "3s"}, {"sessionTimeout": "0"},
	} {
		if _, err := connection(wrong); err == nil || !strings.Contains(err.Error(), "heartbeatInterval") {
			t.Errorf("%v gives %v", wrong, err)
		}
	}
	for _, c := range []components.Component{kafkaPubSub, kafkaBinding} {
		if _, err := c.Open(t.Context(), host, kafkaAt("nowhere:1", map[string]string{"readTimeout": "soon"})); fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), "spec.metadata.readTimeout") {
			t.Errorf("%s says %v", c.Type(), err)
		}
	}
}
